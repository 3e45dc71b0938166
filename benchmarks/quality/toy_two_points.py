"""The two-point toy of Orbit Diffusion (2502.09890, table 1): data {1}, group {±1}, three training
targets.

    python -m benchmarks.quality.toy_two_points

A network made odd, D(x, t) = f(x, t) − f(−x, t), with f a 2-10-5-1 tanh perceptron, is trained for
100,000 steps of batch 200 on σ ∈ linspace(0.01, 0.999, 100), α = √(1−σ²), loss weight α²/σ², and
sampled with 100 steps of DDIM, whose last D is the sample. Rows:

    equivariant    x_t from +1, target +1
    augmentation   x_t from ±1, target that point
    exact          x_t from ±1, target E[±1 | x_t] (``ow.orbit_posterior``)

Two settings, each the same for all three rows, on the same training data:

    as_published   f reads (x, step/100); Adam 1e-3, times 0.8 every 8,000 steps
    whitened       f reads (αx/σ, ½ ln σ + 1): x in units of its noise; Adam 3e-3 falling as half a
    cosine

The headline rows ``toy.rmsd`` and ``toy.w2`` are the exact target in the whitened setting. Reading
αx/σ, the tanh units saturate at small σ, where the answer is the constant ±1; this helps all three
rows, and what is left of the exact one is the rounding of float32 next to 1 (6e-8 and 1.2e-7).

What is reported. No checkpoint is selected: the weights are those after the last step. All 100,000
samples count; those whose sign is not that of their start are counted besides. ``rmsd`` is the mean
of |x − sign x|, as the published "RMSD" is; ``rms`` the true root mean square. W2 against half −1,
half +1 from random N(0, 1) starts has a floor of 2 |n₊/n − ½|^½ ≈ 0.07 from the coin flips of the
starts alone, for a perfect sampler too (``w2_random_starts``, and ``w2_floor`` with a perfect
sampler on the same starts); the published figure forces half of the starts to each side. ``w2``
uses the 100,000 mid-quantiles of N(0, 1) as starts: no sign is forced, so a model that favours one
side would show, but coin flips do not. (An odd D cannot favour a side.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

import orbitwise as ow
from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.rows import Row, commit_id, device_name, write_rows
from orbitwise.objectives.denoising import Denoising
from orbitwise.processes.sampling import Euler, sample

TARGETS = ("equivariant", "augmentation", "exact")
SEEDS = (0, 1, 2)
LEVELS, BATCH, SAMPLES, STEPS = 100, 200, 100_000, 100_000
GROUP = ow.Finite(torch.tensor([[[1.0]], [[-1.0]]]))


@dataclass(frozen=True)
class TwoPointNoise(ow.GaussianProcess):
    """σ falls linearly from 0.999 to 0.01, α = √(1−σ²)."""

    zero_com: bool = False

    def alpha(self, t: Tensor) -> Tensor:
        return (1 - self.sigma(t).square()).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return 0.999 + (0.01 - 0.999) * t

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -self.sigma(t) * self.sigma_dot(t) / self.alpha(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.full_like(t, 0.01 - 0.999)


PROCESS = TwoPointNoise()


def raw(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Position and level as published: the number of the noise level, 0..99, over 100."""
    return x, (1 - t) * (LEVELS - 1) / LEVELS


def whitened(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Position in units of its noise, and the logarithm of the noise."""
    sigma = PROCESS.sigma(t)
    return PROCESS.alpha(t) * x / sigma, 0.5 * sigma.log() + 1


class OddNets(nn.Module):
    """``M`` independent odd perceptrons: ``(x, t): (M, n) -> D: (M, n)``. Weights of a seed agree
    in all rows."""

    def __init__(
        self, reads: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], sizes=(2, 10, 5, 1)
    ):
        super().__init__()
        self.reads = reads
        gens = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i, o in pairwise(sizes):
            for store, columns in ((self.weights, i), (self.biases, 1)):
                draws = torch.stack([torch.rand(o, columns, generator=g) for g in gens])
                store.append(
                    nn.Parameter(((2 * draws - 1) / math.sqrt(i)).repeat(len(TARGETS), 1, 1))
                )
        self.biases = self.biases[:-1]  # the last one drops out of f(x) − f(−x)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        position, level = self.reads(x, t)
        h = torch.stack([torch.cat([position, -position], -1), torch.cat([level, level], -1)], 1)
        for w, b in zip(self.weights[:-1], self.biases, strict=True):
            h = torch.tanh(torch.baddbmm(b, w, h))  # (M, units, 2n)
        there, back = torch.bmm(self.weights[-1], h).squeeze(1).chunk(2, -1)
        return there - back


def draw(steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``x_t``, t, targets and loss weights of ``steps`` batches, each ``(steps, M, BATCH)``."""
    number = len(SEEDS) * steps * BATCH
    x1, mask = torch.ones(number, 1, 1), torch.ones(number, 1, dtype=torch.bool)
    parts = []
    for name in TARGETS:
        t = 1 - torch.randint(0, LEVELS, (number,), generator=generator) / (LEVELS - 1)
        if name == "equivariant":
            xt, y = PROCESS.perturb(x1, t, generator=generator), x1
        else:
            xt, y = Denoising(PROCESS, GROUP, name).pair(x1, t, mask, generator)
        parts.append(torch.stack([xt.flatten(), t, y.flatten()]).view(3, len(SEEDS), steps, BATCH))
    xt, t, y = torch.cat(parts, 1).transpose(1, 2).contiguous()
    return xt, t, y, (PROCESS.alpha(t) / PROCESS.sigma(t)).square() / BATCH


def settings(steps: int) -> dict[str, tuple[OddNets, torch.optim.Optimizer, LRScheduler]]:
    """The networks of each setting, with optimiser and schedule."""
    out = {}
    for name, reads, rate in (("whitened", whitened, 3e-3), ("as_published", raw, 1e-3)):
        net = OddNets(reads)
        optimiser = torch.optim.Adam(net.parameters(), lr=rate, fused=True)
        if name == "whitened":
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        else:
            schedule = torch.optim.lr_scheduler.StepLR(optimiser, 8_000, 0.8)
        out[name] = (net, optimiser, schedule)
    return out


def train(steps: int, chunk: int = 250) -> dict[str, OddNets]:
    """All models for ``steps`` steps; the loss is summed over models, which keeps them
    independent."""
    runs, generator = settings(steps), torch.Generator().manual_seed(100)
    for _ in range(steps // chunk):
        for xt, t, y, weight in zip(*draw(chunk, generator), strict=True):
            for net, optimiser, schedule in runs.values():
                loss = (weight * (net(xt, t) - y).square()).sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    return {name: net for name, (net, _, _) in runs.items()}


def generate(net: OddNets, start: Tensor) -> Tensor:
    """DDIM over all levels from ``start: (n,)``, every model: ``(M, n)``."""
    grid = torch.linspace(0, 1, LEVELS, dtype=torch.float64)
    models = len(TARGETS) * len(SEEDS)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return net(x.flatten(1), t).view_as(x)

    parts = [
        sample(
            denoise,
            PROCESS,
            start=part.expand(models, -1)[..., None, None],
            grid=grid,
            stepper=Euler(),
        ).x
        for part in start.split(2_000)
    ]
    return torch.cat(parts, 1).flatten(1)


def w2(x: Tensor) -> Tensor:
    """Exact one-dimensional W2 of samples ``(M, n)`` against half −1, half +1: ``(M,)``."""
    target = torch.ones(x.shape[-1])
    target[: x.shape[-1] // 2] = -1
    return (x.sort(-1).values - target).double().square().mean(-1).sqrt()


def figures(net: OddNets, start: Tensor, quantiles: Tensor) -> dict[str, Tensor]:
    """Every figure, ``(M,)``."""
    with torch.no_grad():
        x, even = generate(net, start), generate(net, quantiles)
    away = (x - x.sign()).double()
    return {
        "rmsd": away.abs().mean(-1),
        "rms": away.square().mean(-1).sqrt(),  # = W2 from random starts with the imbalance removed
        "w2": w2(even),
        "w2_random_starts": w2(x),
        "wrong_sign": (x.sign() != start.sign()).sum(-1).double(),
        "largest_deviation": away.abs().amax(-1),
    }


def main() -> None:
    begin = time.perf_counter()
    start = torch.randn(SAMPLES, generator=torch.Generator().manual_seed(200))
    quantiles = torch.special.ndtri(
        (torch.arange(SAMPLES, dtype=torch.float64) + 0.5) / SAMPLES
    ).float()
    measured = {setting: figures(net, start, quantiles) for setting, net in train(STEPS).items()}
    seconds = time.perf_counter() - begin
    goals = {"rmsd": "< 0.37e-5", "w2": "< 0.004e-3"}
    device, commit, rows = device_name(), commit_id(), []

    def row(what: str, values: Tensor, goal: str | None = None, note: str | None = None) -> None:
        error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
        rows.append(Row(f"toy.{what}", values.mean().item(), error, goal, list(SEEDS), 0, seconds))
        rows[-1].device, rows[-1].commit, rows[-1].note = device, commit, note

    for setting, values in measured.items():
        prefix = "" if setting == "whitened" else f"{setting}."
        for figure, each in values.items():
            for name, per_seed in zip(TARGETS, each.view(len(TARGETS), len(SEEDS)), strict=True):
                row(f"{prefix}{name}.{figure}", per_seed)
    for figure, goal in goals.items():
        exact = measured["whitened"][figure].view(len(TARGETS), -1)[TARGETS.index("exact")]
        row(figure, exact, goal, "error: one standard error over seeds")
    row("w2_floor", w2(start.sign()[None]), note="a perfect sampler on the same random starts")
    write_rows("orbit_diffusion", rows)


if __name__ == "__main__":
    benchmark(main, quick={"STEPS": 250, "SAMPLES": 500})
