"""Time and target error of the SO(3) posterior: exact, importance sampling, alignment.

    python -m benchmarks.speed.orbit_posterior [--device cuda]

Clouds: N Gaussian points of root mean square radius 2.6·(N/18)^(1/3) Å, batch 256, noise sigma in
Å, alpha = 1, poses Haar distributed. Truth: the posterior mean from SciPy alone (SVD, Lee's
integral on 16-node panels graded towards both ends of its interval, exponentially scaled Bessel
functions), float64. The error of a target is the root mean square per coordinate of its difference
from the truth, in Å; "augmentation" is the error of g·x1 itself, what there is to be removed.
"snisK": K proposals per item through F, as published among them the identity, that is, the pose
that made x_t ("haarK": without it); "snis64_published": candidates built and compared atom by atom,
the rotations shared by the batch. Timings are of float32 input, medians over rounds in which every
method takes its turn.
"""

from __future__ import annotations

import math
import time
from typing import Literal

import numpy as np
import scipy.special
import torch

import orbitwise as ow
from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.rows import Row, write_rows

SIZES = (5, 9, 22, 55, 256)
SIGMAS = (0.1, 0.3, 1.0, 3.0)
BATCH, SEED, ROUNDS = 256, 0, 15
PROPOSALS = (16, 64, 256, 1024)
PROCESS = ow.GaussianProcess.ve(sigma_min=1e-3, sigma_max=1e3)
GROUP = ow.SO3()


def time_of(sigma: float) -> float:
    return math.log(sigma / 1e3) / math.log(1e-6)


def clouds(
    points: int, sigma: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clouds in Haar random poses and what noise makes of them, float64."""
    radius = 2.6 * (points / 18) ** (1 / 3)
    x1 = radius / 3**0.5 * torch.randn(BATCH, points, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(BATCH, points, 3, generator=generator, dtype=torch.float64)
    return x1, x1 + sigma * noise


def truth(x1: np.ndarray, xt: np.ndarray, sigma: float) -> np.ndarray:
    """E[R] x1 by Lee 1710.03746, theorem 2.1, with v = 1 - u."""
    U, s, Vh = np.linalg.svd(np.einsum("bni,bnj->bij", xt, x1) / sigma**2)
    s[:, 2] *= np.linalg.det(U) * np.linalg.det(Vh)
    U[:, :, 2] *= np.linalg.det(U)[:, None]
    Vh[:, 2] *= np.linalg.det(Vh)[:, None]
    edges = np.concatenate([[0], 2.0 ** np.arange(-34, 1), 2 - 2.0 ** np.arange(-1, -35, -1), [2]])
    node, weight = np.polynomial.legendre.leggauss(16)
    v = (edges[:-1, None] + np.diff(edges)[:, None] * (node + 1) / 2).ravel()
    w = (np.diff(edges)[:, None] * weight / 2).ravel()
    s1, s2, s3 = s[:, 0, None], s[:, 1, None], s[:, 2, None]
    a, b = (s1 - s2) * v / 2, (s1 + s2) * (2 - v) / 2
    ia, ib, decay = scipy.special.i0e(a), scipy.special.i0e(b), w * np.exp(-(s2 + s3) * v)
    ja, jb = scipy.special.i1e(a) * v / 2 * ib, scipy.special.i1e(b) * (2 - v) / 2 * ia
    terms = np.stack([jb + ja, jb - ja, ia * ib * (1 - v)])  # ∂/∂s1, ∂/∂s2, ∂/∂s3 of the integrand
    d = (terms * decay).sum(-1) / (ia * ib * decay).sum(-1)
    return np.einsum("bij,jb,bjk,bnk->bni", U, d, Vh, x1)


def snis_as_published(x1: torch.Tensor, xt: torch.Tensor, sigma: float, generator) -> torch.Tensor:
    """64 candidates for every cloud of the batch, compared atom by atom."""
    R = GROUP.sample((64,), generator=generator, device=x1.device, dtype=x1.dtype)
    R[0] = torch.eye(3)
    candidates = torch.einsum("kij,bnj->kbni", R, x1)
    logits = (candidates - xt).square().sum((-2, -1)) / (-2 * sigma**2)
    return torch.einsum("kb,kbni->bni", torch.softmax(logits, 0), candidates)


def methods(sigma: float, generator: torch.Generator) -> dict:
    """Name -> function (x1, xt) -> target."""
    t = time_of(sigma)

    def ours(method: str, **options):
        return lambda x1, xt: (
            ow.orbit_posterior(GROUP, PROCESS, x1, xt, t, method=method, **options).mean
        )

    return {
        "exact": ours("exact"),
        "mode": ours("mode"),
        "haar256": ours("snis", proposals=256, generator=generator),
        **{
            f"snis{k}": ours("snis", proposals=k, include_identity=True, generator=generator)
            for k in PROPOSALS
        },
        "snis64_published": lambda x1, xt: snis_as_published(x1, xt, sigma, generator),
    }


def rms(difference: torch.Tensor) -> tuple[float, float]:
    """Root mean square per coordinate and its standard error over the items."""
    square = difference.square().mean((-2, -1))
    value = square.mean().sqrt()
    return value.item(), (square.std() / len(square) ** 0.5 / (2 * value)).item()


def errors(points: int, sigma: float, prefix: str, device: str) -> list[Row]:
    draw = torch.Generator().manual_seed(SEED)
    x1, xt = clouds(points, sigma, draw)
    best = torch.from_numpy(truth(x1.numpy(), xt.numpy(), sigma))
    targets = {
        name: solve(x1.to(device), xt.to(device)) for name, solve in methods(sigma, draw).items()
    }
    targets["exact_float32"] = methods(sigma, draw)["exact"](
        x1.float().to(device), xt.float().to(device)
    )
    targets["augmentation"] = x1
    rows = []
    for name, target in targets.items():
        value, error = rms(target.cpu().double() - best)
        what = f"{prefix}.n{points}.{name}_error.sigma{sigma:g}"
        rows.append(
            Row(what, value, error, goal="1e-12" if name == "exact" else None, seeds=[SEED])
        )
    return rows


def timings(points: int, prefix: str, device: str) -> list[Row]:
    draw = torch.Generator(device).manual_seed(SEED)
    x1, xt = (
        x.float().to(device) for x in clouds(points, 1.0, torch.Generator().manual_seed(SEED))
    )
    solvers = methods(1.0, draw)
    taken: dict[str, list[float]] = {name: [] for name in solvers}
    for turn in range(ROUNDS + 1):
        for name, solve in solvers.items():
            seconds = clock(lambda solve=solve: solve(x1, xt), device)
            if turn:  # the first round warms up
                taken[name].append(1e3 * seconds)
    rows = []
    for name, values in taken.items():
        goal = "<= snis64_ms" if (name, points) == ("exact", 22) else None
        what = (
            "snis64"
            if name == "snis64_published"
            else "snis64_through_F"
            if name == "snis64"
            else name
        )
        rows.append(Row(f"{prefix}.n{points}.{what}_ms", *median(values), goal=goal, seeds=[SEED]))
    return rows


def median(values: list[float]) -> tuple[float, float]:
    """Median and its standard error (1.25 times that of a mean, the spread from the quartiles)."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(middle), float(1.25 * (high - low) / 1.35 / len(values) ** 0.5)


def clock(work, device: str) -> float:
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def step_share(prefix: str, device: str) -> list[Row]:
    """Exact target over one training step of the equivariant network of the package, N = 22,
    float32."""
    from orbitwise.data.batch import PointBatch
    from orbitwise.networks.points.egnn import EGNN
    from orbitwise.objectives.denoiser import Denoiser

    points, generator = 22, torch.Generator().manual_seed(SEED)
    x1, xt = (x.float().to(device) for x in clouds(points, 1.0, generator))
    bonds = torch.diag_embed(torch.ones(points - 1, dtype=torch.long), 1)
    batch = PointBatch(
        x1,
        torch.full((BATCH, points), 6),
        (bonds + bonds.T).expand(BATCH, -1, -1).contiguous(),
        torch.ones(BATCH, points, dtype=torch.bool),
    ).to(device)
    t = torch.full((BATCH,), time_of(1.0), device=device)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        denoiser = Denoiser(EGNN(), PROCESS, 1.5).to(device)
    optimiser = torch.optim.Adam(denoiser.parameters())

    def step():
        loss = (denoiser(xt, t, batch) - x1).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def target():
        ow.orbit_posterior(GROUP, PROCESS, x1, xt, t, batch.mask)

    pairs = [(clock(target, device), clock(step, device)) for _ in range(7)][1:]
    share, error = median([a / (a + b) for a, b in pairs])
    step_ms, step_error = median([1e3 * b for _, b in pairs])
    return [
        Row(f"{prefix}.n22.exact_step_share", share, error, goal="<= 0.05", seeds=[SEED]),
        Row(f"{prefix}.n22.training_step_ms", step_ms, step_error, seeds=[SEED]),
    ]


def main(*, device: Literal["cpu", "cuda"] = "cpu") -> None:
    prefix = "orbit_posterior" if device == "cpu" else "orbit_posterior.cuda"
    start, rows = time.perf_counter(), []
    for points in SIZES:
        rows += timings(points, prefix, device)
        for sigma in SIGMAS:
            rows += errors(points, sigma, prefix, device)
    rows += step_share(prefix, device)
    for row in rows:
        row.seconds = time.perf_counter() - start
    write_rows("orbit_posterior", rows)


if __name__ == "__main__":
    benchmark(
        main,
        quick={
            "SIZES": (5,),
            "SIGMAS": (1.0,),
            "BATCH": 16,
            "ROUNDS": 2,
            "PROPOSALS": (16, 64, 256),
        },
    )
