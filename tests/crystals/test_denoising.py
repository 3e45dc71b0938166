"""Targets of crystals: the same expected gradient, less variance, and what is averaged over."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from orbitwise.crystals import CrystalDenoiser, CrystalDenoising, CrystalProcess, CSPNet
from orbitwise.crystals.crystal import Crystal, crystal_batch
from orbitwise.crystals.denoising import TARGETS, choosing_times
from orbitwise.errors import InputError
from orbitwise.groups.torus import wrapped_normal
from orbitwise.processes.gaussian import beside

PROCESS = CrystalProcess()


def crystals(sizes=((38, 22, 8, 8, 8), (11, 17), (6,) * 6)):
    import numpy as np

    rng = np.random.default_rng(0)
    return crystal_batch(
        [
            Crystal(rng.random((len(z), 3)), 4 * np.eye(3) + 0.2 * rng.random((3, 3)), np.array(z))
            for z in sizes
        ]
    )


def brute_force(frac, xt, sigma, species, shifts, mirror=False):
    """The score of the orbit mixture by summing over all permutations and a grid of shifts, one
    axis after the other being impossible once permutations are there."""
    n = len(species)
    tables = [
        p
        for p in itertools.permutations(range(n))
        if all(species[p[i]] == species[i] for i in range(n))
    ]
    logs, scores = [], []
    grid = torch.linspace(0, 1, shifts + 1, dtype=torch.float64)[:-1]
    for table, sign in itertools.product(tables, (1, -1) if mirror else (1,)):
        log_w, score = torch.zeros((), dtype=torch.float64), torch.zeros(n, 3, dtype=torch.float64)
        for axis in range(3):  # given the permutation the axes are independent
            r = xt[:, axis] - sign * frac[list(table), axis]
            kernel = wrapped_normal(r[:, None] - grid, torch.tensor(sigma, dtype=torch.float64))
            total = kernel.log_density.sum(0)
            weights = torch.softmax(total, 0)
            log_w = log_w + torch.logsumexp(total, 0)
            score[:, axis] = kernel.score @ weights
        logs.append(log_w)
        scores.append(score)
    weights = torch.softmax(torch.stack(logs), 0)
    return (weights[:, None, None] * torch.stack(scores)).sum(0)


@pytest.mark.parametrize("t", [0.05, 0.25, 0.5])
def test_the_exact_target_is_the_score_of_the_whole_orbit(t):
    batch = crystals()
    objective = CrystalDenoising(PROCESS, "exact", max_order=24, beyond="translations")
    times = torch.full((3,), t, dtype=torch.float64)
    double = batch.with_structure(batch.frac.double(), batch.lattice.double())
    xt, pull = objective.pair(double, times, torch.Generator().manual_seed(0))
    sigma = float(PROCESS.frac.wrapped_sigma(times[:1]))
    for i, size in ((0, 5), (1, 2)):
        expected = brute_force(
            double.frac[i, :size], xt[i, :size], sigma, batch.species[i, :size].tolist(), 2000
        )
        torch.testing.assert_close(pull[i, :size] / sigma**2, expected, rtol=1e-6, atol=1e-6)
    # 6! = 720 permutations are beyond max_order: the target is over the translations alone, of one
    # permutation
    alone = CrystalDenoising(PROCESS, "translations")
    xt2, pull2 = alone.pair(double, times, torch.Generator().manual_seed(0))
    torch.testing.assert_close(xt2, xt)
    torch.testing.assert_close(pull2[2], pull[2], rtol=1e-9, atol=1e-12)
    if t < 0.4:  # wide noise: the three equal atoms may have changed places
        assert (pull2[0] - pull[0]).abs().max() > 1e-4


@pytest.mark.parametrize("t", [0.1, 0.3])
def test_mirror_images_belong_to_the_orbit_where_asked(t):
    batch = crystals().repeat(4)
    batch = batch.with_structure(batch.frac.double(), batch.lattice.double())
    times = torch.full((12,), t, dtype=torch.float64)
    objective = CrystalDenoising(PROCESS, "exact", mirror=True)
    xt, pull = objective.pair(batch, times, torch.Generator().manual_seed(0))
    sigma = float(PROCESS.frac.wrapped_sigma(times[:1]))
    for i in range(4):  # of the first crystal
        species = batch.species[i, :5].tolist()
        expected = brute_force(batch.frac[i, :5], xt[i, :5], sigma, species, 1000, mirror=True)
        torch.testing.assert_close(pull[i, :5] / sigma**2, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("beyond", ["gibbs", "mode"])
def test_large_permutation_groups_are_solved_as_asked(beyond):
    batch = crystals(((6,) * 4, (6,) * 4))
    batch = batch.with_structure(batch.frac.double(), batch.lattice.double())
    times = torch.full(
        (2,), 0.7, dtype=torch.float64
    )  # narrow noise: all ways must agree with enumeration
    whole = CrystalDenoising(PROCESS, "exact", max_order=24)
    part = CrystalDenoising(PROCESS, "exact", max_order=2, beyond=beyond, states=64)
    xt, expected = whole.pair(batch, times, torch.Generator().manual_seed(1))
    again, found = part.pair(batch, times, torch.Generator().manual_seed(1))
    torch.testing.assert_close(again, xt)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=2e-4)


@pytest.mark.parametrize("target", [t for t in TARGETS if t != "augmentation"])
def test_every_target_has_the_mean_of_the_plain_one_and_less_scatter(target):
    """E[target · f(x_t)] does not depend on the target for an invariant f, which is what the
    gradient is made of."""
    batch = crystals(((38, 22, 8, 8, 8),)).repeat(6000)
    batch = batch.with_structure(batch.frac.double(), batch.lattice.double())
    times = torch.full((6000,), 0.25, dtype=torch.float64)

    def projections(name):
        objective = CrystalDenoising(PROCESS, name, proposals=16)
        xt, pull = objective.pair(batch, times, torch.Generator().manual_seed(5))
        # an equivariant vector field: invariant to shifts, permutes with equal atoms
        d = 2 * math.pi * (xt[:, :, None] - xt[:, None])
        same = (batch.species[:, :, None] == batch.species[:, None]).double()
        fields = torch.stack([(d.sin() * (0.3 + same[..., None])).sum(2), ((2 * d).sin()).sum(2)])
        return (fields * pull).sum((-2, -1)), pull

    plain, raw = projections("augmentation")
    other, averaged = projections(target)
    difference = plain - other
    error = difference.std(-1) / math.sqrt(difference.shape[-1])
    assert ((difference.mean(-1)).abs() < 4 * error + 1e-12).all()
    assert averaged.square().mean() < raw.square().mean()


def test_losses_are_finite_and_fall_on_one_crystal():
    batch = crystals().repeat(16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = CrystalDenoiser.fitted(CSPNet(32, 2), PROCESS, batch)
    objective = CrystalDenoising(PROCESS, "exact", times="choosing")
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=3e-3)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(100):
        loss = objective(denoiser, batch, generator)
        assert loss.shape == (48,) and loss.isfinite().all()
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        losses.append(loss.mean().item())
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])  # 0.51 to 0.53 with four seeds


def test_padding_counts_for_nothing():
    batch = crystals()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = CrystalDenoiser.fitted(CSPNet(16, 1), PROCESS, batch)
    t = torch.full((3,), 0.4)
    xt, pull = CrystalDenoising(PROCESS).pair(batch, t, torch.Generator().manual_seed(0))
    assert pull[~batch.mask].abs().max() == 0
    out = denoiser(xt, denoiser.standard_cell(batch.lattice, batch.atoms), t, batch)
    assert out.shift[~batch.mask].abs().max() == 0
    dirty = torch.where(batch.mask[..., None], xt, 0.77)
    again = denoiser(dirty, denoiser.standard_cell(batch.lattice, batch.atoms), t, batch)
    torch.testing.assert_close(again.shift, out.shift)


def test_cells_are_standardised_and_come_back():
    batch = crystals()
    denoiser = CrystalDenoiser.fitted(CSPNet(16, 1), PROCESS, batch)
    cell = denoiser.standard_cell(batch.lattice, batch.atoms)
    assert cell.shape == (3, 1, 6) and cell.mean(0).abs().max() < 1e-4
    lattice = denoiser.lattice(cell, batch.atoms)
    torch.testing.assert_close(
        lattice @ lattice.mT, batch.lattice @ batch.lattice.mT, rtol=1e-4, atol=1e-4
    )
    scale = denoiser.pull_scale(torch.tensor([0.5]))
    torch.testing.assert_close(beside(scale)[0, 0, 0], torch.tensor(0.05), rtol=1e-3, atol=0)


def test_times_and_names_are_checked():
    u = torch.linspace(1e-6, 1 - 1e-6, 4001, dtype=torch.float64)
    t = choosing_times(u)
    assert t.min() >= 1e-3 and t.max() <= 1 - 1e-3
    around = ((t > 0.18) & (t < 0.42)).double().mean()
    # three quarters of a normal law within one standard deviation (0.683, cut at 0), and 0.24 of
    # the uniform quarter
    assert abs(around - (0.75 * 0.6827 / 0.99379 + 0.25 * 0.24)) < 0.003
    for bad in ({"target": "exactly"}, {"beyond": "sinkhorn"}, {"times": "late"}):
        with pytest.raises(InputError, match="unknown"):
            CrystalDenoising(PROCESS, **bad)
