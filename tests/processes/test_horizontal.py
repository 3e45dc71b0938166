"""Horizontal noise: the law of shapes is that of full noise with the drift of the orbit's volume,
and another without."""

import math
from itertools import pairwise

import pytest
import torch
from scipy import stats

import orbitwise as ow
from orbitwise.data.batch import PointBatch
from orbitwise.groups.tangent import grown, horizontal_part, orbit_drift
from orbitwise.objectives import Denoiser
from orbitwise.processes.gaussian import GaussianProcess, centre
from orbitwise.processes.harmonic import HarmonicProcess, Springs
from orbitwise.processes.horizontal import Horizontal
from orbitwise.processes.sampling import STEPPERS, Ancestral, edm_grid, sample

F64 = torch.float64
CHAINS, DT, STEPS, BURN, EVERY = 1200, 0.02, 320, 220, 50


def normal(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def langevin(x, noise):
    """Overdamped Langevin at U = |x|²/2, ``x: (C, N, D)``: an exact step under full noise.
    ``noise``: full, horizontal, or bare (horizontal without the drift). Configurations ``(S·C, N,
    D)`` of the second part."""
    generator, found = torch.Generator().manual_seed(3), []
    size = torch.full((1, 1, 1), math.sqrt(1 - math.exp(-2 * DT)), dtype=x.dtype)
    space = Horizontal(GaussianProcess.flow(zero_com=True))
    for step in range(STEPS):
        fresh = centre(torch.randn(x.shape, generator=generator, dtype=x.dtype))
        y = x * math.exp(-DT)
        if noise == "full":
            x = y + size * fresh
        elif noise == "horizontal":
            x = space.noised(y, size, fresh)
        else:
            x = y + size * horizontal_part(y, fresh)
        if step >= BURN and (step - BURN) % EVERY == EVERY - 1:
            found.append(x)
    return torch.cat(found)


def mean_and_error(values):
    """Of ``(S·C)``: S looks at C chains, which are independent."""
    chains = values.reshape(-1, CHAINS).mean(0)
    return float(chains.mean()), float(chains.std() / math.sqrt(CHAINS))


@pytest.mark.parametrize(("N", "D"), [(3, 3), (4, 2), (2, 3)])
def test_the_law_of_pair_distances(N, D):
    """Under U = |x|²/2 at zero centre of mass every pair distance is √2 χ_D: the whole law is
    known. Started far from it, at half its size."""
    start = 0.5 * centre(normal(CHAINS, N, D, seed=2))
    wanted = {"distance": math.sqrt(2) * stats.chi(D).mean(), "square": 2.0 * D}
    for noise in ("full", "horizontal", "bare"):
        x = langevin(start, noise)
        d = (x[:, 0] - x[:, 1]).norm(dim=-1)
        found = {"distance": mean_and_error(d), "square": mean_and_error(d.square())}
        # the last look alone: its chains are independent
        p = stats.kstest((d[-CHAINS:] / math.sqrt(2)).numpy(), stats.chi(D).cdf).pvalue
        for key, (mean, error) in found.items():
            if noise == "bare":
                assert mean < wanted[key] - 5 * error
            else:
                assert abs(mean - wanted[key]) < 4 * error, (noise, key, mean, error)
        assert p < 1e-5 if noise == "bare" else p > 1e-3, (noise, p)


def test_a_growing_step_is_the_drift_and_bounded():
    x = normal(3, 5, 3)
    for variance in (1e-4, 1e-6):
        v = torch.full((1, 1, 1), variance, dtype=F64)
        step = (grown(x, v) - x) / (0.5 * variance)
        torch.testing.assert_close(step, orbit_drift(x), rtol=0, atol=10 * variance)

    line = torch.tensor([[-1.0, 0, 0], [0, 1e-9, 0], [1.0, 0, 0]], dtype=F64)
    assert orbit_drift(line).abs().max() > 1e2
    v = torch.full((1, 1), 0.01, dtype=F64)
    moved = grown(line, v)
    # one direction of a line's noise turns nothing, two do; so do all of these three points
    assert moved.square().sum() - line.square().sum() <= 3 * 0.01 + 1e-9
    assert (moved - line).abs().max() < 0.1


def turned_a_bit(x, t):
    """A denoiser whose answers turn the points."""
    axis = torch.tensor([0.3, -0.2, 0.9], dtype=x.dtype).expand_as(x)
    return 0.5 * torch.tanh(x) + torch.linalg.cross(axis, x)


@pytest.mark.parametrize("stepper", ["euler", "ancestral"])
def test_steps_of_the_sampler_turn_nothing(stepper):
    process = GaussianProcess.edm(zero_com=True)
    start = process.prior((6, 5, 3), generator=torch.Generator().manual_seed(0), dtype=F64)
    grid = edm_grid(process, 8, noise_min=0.1)
    seen = []

    def denoise(x, t):
        seen.append(x)
        return turned_a_bit(x, t)

    most = {}
    for horizontal in (True, False):
        seen.clear()
        sample(
            denoise,
            process,
            start=start,
            grid=grid,
            stepper=STEPPERS[stepper](),
            generator=torch.Generator().manual_seed(1),
            horizontal=horizontal,
        )
        turning = [
            ((b - a) - ow.horizontal(a, b - a)).norm() / (b - a).norm() for a, b in pairwise(seen)
        ]
        most[horizontal] = float(max(turning))
    assert most[False] > 0.1
    # fresh noise turns nothing at the point where it is added, which is half a step away
    assert most[True] < (1e-12 if stepper == "euler" else 0.5 * most[False])


def test_the_sampler_gives_the_law_of_the_shape():
    """Three points whose shape is one of two, in any pose, by the exact denoiser: fresh noise that
    turns nothing gives as many of each, and the same distances."""
    process = GaussianProcess.edm(zero_com=True)
    shapes = centre(torch.stack([normal(3, 3, seed=1), 1.5 * normal(3, 3, seed=2)]))
    grid = edm_grid(process, 40, noise_min=0.2, noise_max=20.0)

    def denoise(x, t):
        x1 = shapes[:, None].expand(-1, len(x), -1, -1)
        prior = torch.tensor([0.7, 0.3], dtype=F64).log()
        return ow.orbit_posterior(ow.SO3(), process, x1, x, t, log_weights=prior).mean

    means = {}
    for horizontal in (False, True):
        found = sample(
            denoise,
            process,
            (600, 3, 3),
            grid=grid,
            stepper=Ancestral(),
            generator=torch.Generator().manual_seed(4),
            dtype=F64,
            horizontal=horizontal,
        ).x
        pairs = torch.stack([torch.pdist(x) for x in found])
        near = torch.stack([torch.pdist(x) for x in shapes])
        first = (pairs - near[0]).square().sum(-1) < (pairs - near[1]).square().sum(-1)
        means[horizontal] = float(first.double().mean())
    error = math.sqrt(0.21 / 600)
    assert abs(means[False] - 0.7) < 4 * error
    assert abs(means[True] - 0.7) < 4 * error


class Wild(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(normal(3, 3, seed=7, dtype=torch.float32))

    def forward(self, x, fraction, batch):
        return torch.tanh(x @ self.weight) + 0.3


def chain_of(N, items):
    bonds = torch.diag(torch.ones(N - 1), 1)
    bonds = (bonds + bonds.mT).expand(items, N, N)
    mask = torch.ones(items, N, dtype=torch.bool)
    mask[0, -1] = False
    bonds = bonds * (mask[:, None] & mask[..., None])
    x = normal(items, N, 3, dtype=torch.float32) * mask[..., None]
    return PointBatch(x, torch.zeros(items, N, dtype=torch.long), bonds, mask)


@pytest.mark.parametrize("springs", [False, True])
def test_a_denoiser_leaves_out_what_turns_and_loses_that_of_its_error(springs):
    """In the metric of the noise, in which the exact target turns nothing either."""
    batch = chain_of(5, 4)
    process = GaussianProcess.flow(zero_com=True)
    if springs:
        process = HarmonicProcess(process, Springs.of(batch.bonds, batch.mask))
    space = Horizontal(process, batch.mask)
    t = torch.tensor([0.2, 0.4, 0.6, 0.8])
    g = torch.Generator().manual_seed(0)
    x1 = process.project(batch.x, batch.mask)
    xt = process.perturb(x1, t, generator=g, mask=batch.mask)
    target = ow.orbit_posterior(ow.SO3(), process, x1, xt, t, batch.mask).mean
    torch.testing.assert_close(space.part(xt, target), target, rtol=0, atol=1e-5)

    plain, projected = (
        Denoiser(Wild(), process, 1.0, horizontal=horizontal) for horizontal in (False, True)
    )
    with torch.no_grad():
        d, h = plain(xt, t, batch), projected(xt, t, batch)
    torch.testing.assert_close(h, space.part(xt, d), rtol=0, atol=1e-5)
    assert (d - h).abs().max() > 1e-2
    white = (lambda y: process.whiten(y, batch.mask)) if springs else (lambda y: y)
    error, left, lost = (
        white(a - b).double().square().sum((-2, -1)) for a, b in ((d, target), (h, target), (d, h))
    )
    torch.testing.assert_close(error, left + lost, rtol=1e-4, atol=1e-5)
    projected(xt, t, batch).square().sum().backward()
    assert projected.network.weight.grad.isfinite().all()
