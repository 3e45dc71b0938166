"""Noise with the inverse of a graph Laplacian as covariance, against explicit matrices."""

from __future__ import annotations

import pytest
import torch

from orbitwise.data.batch import PointBatch
from orbitwise.errors import InputError
from orbitwise.processes import GaussianProcess, HarmonicProcess, Springs


def bonds_of(pairs, n: int) -> torch.Tensor:
    bonds = torch.zeros(n, n, dtype=torch.long)
    for i, j in pairs:
        bonds[i, j] = bonds[j, i] = 1
    return bonds


def two_molecules() -> PointBatch:
    """A branched chain of five points, and a ring of four with one row of padding."""
    bonds = torch.stack(
        [
            bonds_of([(0, 1), (1, 2), (2, 3), (1, 4)], 5),
            bonds_of([(0, 1), (1, 2), (2, 3), (0, 3)], 5),
        ]
    )
    mask = torch.tensor([[True] * 5, [True] * 4 + [False]])
    return PointBatch(torch.zeros(2, 5, 3), torch.ones(2, 5, dtype=torch.long), bonds, mask)


def covariance(batch: PointBatch, item: int) -> torch.Tensor:
    """The pseudo-inverse of three times the Laplacian, by another route."""
    n = int(batch.mask[item].sum())
    joined = (batch.bonds[item, :n, :n] > 0).double()
    return torch.linalg.pinv(3 * (torch.diag(joined.sum(1)) - joined), hermitian=True)


def test_noise_has_the_covariance_of_the_springs():
    batch, draws = two_molecules(), 40_000
    process = HarmonicProcess().on(batch)
    like = torch.zeros(draws, 2, 5, 3, dtype=torch.float64)
    eps = process.noise(like, generator=torch.Generator().manual_seed(0), mask=batch.mask)
    assert (eps[:, 1, 4] == 0).all()
    assert eps[:, 0].sum(-2).abs().max() < 1e-10
    for item, n in ((0, 5), (1, 4)):
        x = eps[:, item, :n]
        expected = covariance(batch, item)
        found = torch.einsum("sid,sjd->ij", x, x) / (3 * draws)
        size = expected.diagonal().sqrt()
        error = (
            (2 / (3 * draws)) ** 0.5 * size[:, None] * size
        )  # at most, for products of normal numbers
        assert ((found - expected).abs() < 5 * error).all()


def test_a_bond_of_a_tree_has_the_length_sigma():
    process = HarmonicProcess().on(two_molecules())
    cov = process.colour(process.colour(torch.eye(5, dtype=torch.float64)))[0]
    for i, j in ((0, 1), (1, 2), (2, 3), (1, 4)):
        assert 3 * float(cov[i, i] + cov[j, j] - 2 * cov[i, j]) == pytest.approx(1, abs=1e-9)


def test_density_and_score_are_those_of_a_normal_law():
    batch = two_molecules()
    process = HarmonicProcess(GaussianProcess.flow(1.7)).on(batch)
    gen = torch.Generator().manual_seed(1)
    x1 = torch.randn(2, 5, 3, generator=gen, dtype=torch.float64)
    t = torch.tensor([0.3, 0.8], dtype=torch.float64)
    xt = process.perturb(x1, t, generator=gen, mask=batch.mask)
    found = process.log_density(xt, x1, t, batch.mask)
    for item, n in ((0, 5), (1, 4)):
        centred = x1[item, :n] - x1[item, :n].mean(0)
        basis = torch.linalg.svd(torch.eye(n, dtype=torch.float64) - 1 / n)[0][
            :, : n - 1
        ]  # zero mean
        variance = (1.7 * (1 - t[item])) ** 2
        law = torch.distributions.MultivariateNormal(
            torch.zeros(n - 1, dtype=torch.float64),
            variance * basis.T @ covariance(batch, item) @ basis,
        )
        residual = xt[item, :n] - t[item] * centred
        assert float(found[item]) == pytest.approx(
            float(law.log_prob((basis.T @ residual).T).sum()), abs=1e-8
        )
    xt.requires_grad_()
    (slope,) = torch.autograd.grad(process.log_density(xt, x1, t, batch.mask).sum(), xt)
    torch.testing.assert_close(process.score(xt, x1, t, batch.mask), slope, rtol=1e-8, atol=1e-8)


def test_without_springs_it_is_isotropic_noise_of_zero_mean():
    plain, free = (
        GaussianProcess.flow(2.0, zero_com=True),
        HarmonicProcess(GaussianProcess.flow(2.0)),
    )
    x1, t = (
        torch.randn(3, 6, 3, dtype=torch.float64),
        torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64),
    )
    draws = [p.perturb(x1, t, generator=torch.Generator().manual_seed(2)) for p in (plain, free)]
    torch.testing.assert_close(*draws)
    torch.testing.assert_close(*(p.log_density(draws[0], x1, t) for p in (plain, free)))


def test_renamings_that_keep_the_bonds_keep_the_noise_and_others_do_not():
    springs = Springs.of(two_molecules().bonds, two_molecules().mask)
    root = springs.whiten(torch.eye(5, dtype=torch.float64))[0]
    swap, other = torch.tensor([4, 1, 2, 3, 0]), torch.tensor([1, 0, 2, 3, 4])
    torch.testing.assert_close(root[swap][:, swap], root)
    assert (root[other][:, other] - root).abs().max() > 0.1


def test_whitening_and_colouring_undo_each_other_in_float32():
    batch = two_molecules()
    process = HarmonicProcess().on(batch)
    x = process.project(torch.randn(2, 5, 3), batch.mask)
    torch.testing.assert_close(
        process.colour(process.whiten(x, batch.mask)), x, rtol=1e-4, atol=1e-5
    )


def test_points_that_are_not_joined_are_refused():
    bonds = bonds_of([(0, 1), (2, 3)], 4)[None]
    with pytest.raises(InputError, match="item 0: its points are not all joined"):
        Springs.of(bonds, torch.ones(1, 4, dtype=torch.bool))
