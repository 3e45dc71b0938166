"""Haar moments of rotations, tables of finite groups, products; the axioms are in
tests/contracts."""

import math

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError, NoClosedFormError


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("group", [ow.SO3(), ow.O3()], ids=repr)
def test_haar_moments(group):
    """E[R] = 0, E[R_ij R_kl] = δ_ik δ_jl / 3, and for rotations E[tr R · tr R] = 1, angle density
    (1 - cos)/π."""
    count = 200_000
    R = group.sample((count,), generator=gen(), dtype=torch.float64)
    assert torch.allclose(R @ R.mT, torch.eye(3).double().expand_as(R), atol=1e-13)
    det = torch.linalg.det(R)
    assert det.mean().abs() < 5 / count**0.5 if isinstance(group, ow.O3) else (det > 0).all()
    assert R.mean(0).abs().max() < 5 * (1 / 3) ** 0.5 / count**0.5
    second = torch.einsum("nij,nkl->ijkl", R, R) / count
    expected = torch.einsum("ik,jl->ijkl", torch.eye(3), torch.eye(3)).double() / 3
    assert (second - expected).abs().max() < 5 * 0.35 / count**0.5
    turn = R * det[:, None, None]
    angle = torch.acos(((turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1)).sort()[0]
    cdf = (angle - angle.sin()) / math.pi
    empirical = (torch.arange(count) + 0.5) / count
    assert (cdf - empirical).abs().max() < 2.2 / count**0.5  # Kolmogorov-Smirnov, p = 1e-4


def test_draws_follow_the_generator_and_the_dtype():
    for group in (ow.SO3(), ow.O3(), ow.Product(ow.SO3(), ow.Permutation(3))):
        a, b = (group.sample((4,), generator=gen(5), dtype=torch.float32) for _ in range(2))
        for x, y in zip(*(g if isinstance(g, tuple) else (g,) for g in (a, b)), strict=True):
            assert torch.equal(x, y)
    assert ow.SO3().sample((2, 3)).dtype == torch.get_default_dtype()


def test_masks_and_vectors():
    x = torch.randn(2, 4, 3, generator=gen())
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    g = ow.SO3().sample((5, 2), generator=gen(1))
    moved = ow.SO3().act(g, x, mask=mask)
    assert moved.shape == (5, 2, 4, 3) and torch.equal(moved[:, 1, 2:], x[1, 2:].expand(5, 2, 3))
    assert torch.allclose(moved[3, 0], x[0] @ g[3, 0].T, atol=1e-6)
    shift = torch.randn(5, 2, 3, generator=gen(2))
    assert torch.allclose(ow.Translation().act(shift, x)[4], x + shift[4, :, None])
    assert torch.equal(ow.Translation().act(shift, x, kind="vector"), x.expand(5, 2, 4, 3))


def test_finite_tables():
    """The symmetries of a square in whole-number matrices, and a group that is not orthogonal."""
    turn, flip = torch.tensor([[0.0, -1], [1, 0]]), torch.tensor([[1.0, 0], [0, -1]])
    square = ow.Finite(
        torch.stack(
            [
                torch.linalg.matrix_power(turn, k) @ f
                for k in range(4)
                for f in (flip, turn @ turn.T)
            ]
        )
    )
    table, log_haar = square.enumerate(dtype=torch.float64)
    assert len(table) == 8 and torch.logsumexp(log_haar, 0).abs() < 1e-14
    g, h = torch.meshgrid(table, table, indexing="ij")
    assert torch.equal(
        square.matrices[square.compose(g, h)], square.matrices[g] @ square.matrices[h]
    )
    assert torch.equal(square.compose(g, square.inverse(g)), square.identity(g.shape))
    counts = square.sample((80_000,), generator=gen()).bincount(minlength=8)
    assert ((counts - 10_000).abs() < 5 * 100).all()
    hexagonal = torch.tensor([[1.0, -1], [1, 0]])  # order 6, in lattice coordinates
    assert (
        len(ow.Finite(torch.stack([torch.linalg.matrix_power(hexagonal, k) for k in range(6)])))
        == 6
    )


@pytest.mark.parametrize(
    "matrices",
    [
        torch.eye(3)[None].repeat(2, 1, 1),  # twice the same
        torch.stack([torch.eye(2), torch.tensor([[0.0, -1], [1, 0]])]),  # not closed
        -torch.eye(2)[None],  # no identity
        torch.eye(3),  # not a stack
        torch.stack([torch.eye(2), torch.full((2, 2), math.nan)]),
    ],
)
def test_not_a_finite_group(matrices):
    with pytest.raises(InputError):
        ow.Finite(matrices)


def test_products():
    sign, points = ow.Finite(torch.tensor([[[1.0]], [[-1.0]]])), ow.Permutation(3)
    group = ow.Product(sign, points)
    (s, p), log_haar = group.enumerate(dtype=torch.float64)
    assert s.shape == (12,) and p.shape == (12, 3) and group.finite
    assert torch.logsumexp(log_haar, 0).abs() < 1e-14
    images = group.act((s, p), torch.tensor([[1.0], [2.0], [4.0]]))
    assert len(images.unique(dim=0)) == 12
    endless = ow.Product(ow.SO3(), points)
    assert not endless.finite
    with pytest.raises(NoClosedFormError, match="SO3"):
        endless.enumerate()
    for factors in [(), (ow.SO3(), ow.O3()), (points, points), (ow.Translation(), ow.SO3())]:
        with pytest.raises(InputError):
            ow.Product(*factors)
