"""The posterior over rotations and automorphisms under harmonic noise, against Monte Carlo over the
group."""

from __future__ import annotations

import math

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError
from orbitwise.groups.item_permutations import ItemPermutations
from orbitwise.orbits.posterior.matrix_fisher import MatrixFisher
from orbitwise.processes import GaussianProcess, HarmonicProcess, Springs

SWAP = torch.tensor([4, 1, 2, 3, 0])


@pytest.fixture(scope="module")
def setting():
    """A branched chain of five points (0 and 4 alike) and a plain chain of four, at two noise
    levels."""
    bonds = torch.zeros(2, 5, 5, dtype=torch.long)
    for item, pairs in enumerate([[(0, 1), (1, 2), (2, 3), (1, 4)], [(0, 1), (1, 2), (2, 3)]]):
        for i, j in pairs:
            bonds[item, i, j] = bonds[item, j, i] = 1
    mask = torch.tensor([[True] * 5, [True] * 4 + [False]])
    process = HarmonicProcess(GaussianProcess.flow(1.3), Springs.of(bonds, mask))
    gen = torch.Generator().manual_seed(0)
    x1 = process.project(torch.randn(2, 5, 3, generator=gen, dtype=torch.float64), mask)
    t = torch.tensor([0.45, 0.6], dtype=torch.float64)
    xt = process.perturb(x1, t, generator=gen, mask=mask)
    unit = torch.arange(5)
    tables = torch.stack([torch.stack([unit, unit]), torch.stack([SWAP, unit])])
    group = ItemPermutations(tables, torch.tensor([[True, True], [True, False]]))
    return process, mask, x1, xt, t, ow.Product(ow.SO3(), group)


def monte_carlo(process, mask, x1, xt, t, group, draws: int):
    """Mean, log evidence and error of each by Haar draws, weighted by the density of the process
    itself."""
    g = group.sample((draws, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = group.act(g, x1, mask=mask)
    log_density = process.log_density(xt, moved, t.expand(draws, 2), mask.expand(draws, 2, 5))
    weight = log_density.softmax(0)
    mean = (weight[..., None, None] * moved).sum(0)
    error = (weight.square()[..., None, None] * (moved - mean).square()).sum(0).sqrt()
    evidence = log_density.logsumexp(0) - math.log(draws)
    relative = (weight.square().sum(0) - 1 / draws).clamp_min(0).sqrt()
    return mean, error, evidence, relative


def test_exact_mean_and_evidence_against_monte_carlo(setting):
    process, mask, x1, xt, t, group = setting
    post = ow.orbit_posterior(group, process, x1, xt, t, mask)
    mean, error, evidence, relative = monte_carlo(*setting, draws=200_000)
    assert error.max() < 0.02  # it can tell
    assert ((post.mean - mean).abs() < 5 * error + 1e-9).all()
    assert ((post.log_evidence - evidence).abs() < 5 * relative).all()
    isotropic = ow.orbit_posterior(group, GaussianProcess.flow(1.3, zero_com=True), x1, xt, t, mask)
    assert (
        ((isotropic.mean - mean).abs() > 8 * error + 1e-9).any(-1).any(-1).all()
    )  # the wrong noise shows


def test_rotations_alone_have_the_parameter_of_the_whitened_points(setting):
    process, mask, x1, xt, t, _ = setting
    post = ow.orbit_posterior(ow.SO3(), process, x1, xt, t, mask)
    for item, n in ((0, 5), (1, 4)):
        x, y = x1[item, :n], xt[item, :n]
        root = (
            process.springs.vectors[item]
            @ torch.diag(process.springs.values[item])
            @ process.springs.vectors[item].T
        )
        alpha, variance = float(t[item]), (1.3 * (1 - float(t[item]))) ** 2
        law = MatrixFisher.of(alpha / variance * y.T @ root[:n, :n] @ x)
        torch.testing.assert_close(
            post.mean[item, :n], x @ law.moments()[1].T, rtol=1e-8, atol=1e-9
        )


def test_score_is_the_slope_of_the_evidence(setting):
    process, mask, x1, xt, t, group = setting
    post = ow.orbit_posterior(group, process, x1, xt, t, mask)
    step = 1e-5
    for i, axis in ((0, 0), (2, 1), (3, 2)):
        moved = xt.clone()
        moved[:, i, axis] += step
        up = ow.orbit_posterior(group, process, x1, moved, t, mask).log_evidence
        moved[:, i, axis] -= 2 * step
        down = ow.orbit_posterior(group, process, x1, moved, t, mask).log_evidence
        torch.testing.assert_close(
            (up - down) / (2 * step), post.score[:, i, axis], rtol=1e-5, atol=1e-5
        )


def test_mode_is_the_best_of_many_and_snis_comes_close(setting):
    process, mask, x1, xt, t, group = setting
    best = ow.orbit_posterior(group, process, x1, xt, t, mask, method="mode")
    g = group.sample((20_000, 2), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    tried = process.log_density(
        xt, group.act(g, x1, mask=mask), t.expand(20_000, 2), mask.expand(20_000, 2, 5)
    )
    assert (tried.amax(0) <= best.log_evidence + 1e-9).all()
    assert (tried.amax(0) > best.log_evidence - 0.3).all()
    exact = ow.orbit_posterior(group, process, x1, xt, t, mask)
    drawn = ow.orbit_posterior(
        group,
        process,
        x1,
        xt,
        t,
        mask,
        "snis",
        proposals=20_000,
        generator=torch.Generator().manual_seed(4),
    )
    error = drawn.ess.rsqrt()  # of the sum of the weights, relative
    assert error.max() < 0.2
    assert ((drawn.log_evidence - exact.log_evidence).abs() < 4 * error).all()
    size = x1.norm(dim=-1).amax(-1)
    assert ((drawn.mean - exact.mean).abs().amax((1, 2)) < 4 * error * size).all()


def test_half_a_whitening_is_refused():
    """Without the rest the noise would be taken for isotropic."""

    class Half:
        def alpha(self, t):
            return t

        def sigma(self, t):
            return 1 - t

        def whiten(self, x, mask=None):
            return x

    x = torch.randn(4, 3)
    with pytest.raises(InputError, match="colour, isotropic and log_volume"):
        ow.orbit_posterior(ow.SO3(), Half(), x, x, 0.5)
