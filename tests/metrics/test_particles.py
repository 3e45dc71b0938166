"""Distances between configurations of identical particles: brute force, invariances, bounds,
reference sets."""

from __future__ import annotations

import itertools
import math

import numpy as np
import ot
import pytest
import torch
from scipy.stats import ortho_group, special_ortho_group

from orbitwise.errors import InputError
from orbitwise.metrics import aligned_distance, published_distance, symmetric_w2


def points(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def brute_force(x: np.ndarray, y: np.ndarray, reflection: bool) -> float:
    """Every permutation, each with its best rotation from NumPy's own SVD."""
    x, y = x - x.mean(0), y - y.mean(0)
    images = y[np.array(list(itertools.permutations(range(len(y)))))]
    cross = np.einsum("pia,ib->pab", images, x)
    s = np.linalg.svd(cross, compute_uv=False)
    if not reflection:
        s[:, -1] *= np.where(np.linalg.det(cross) < 0, -1.0, 1.0)
    return math.sqrt(max(0.0, (x**2).sum() + (y**2).sum() - 2 * s.sum(1).max()))


def moved(y: torch.Tensor, reflection: bool, seed: int) -> torch.Tensor:
    """Each configuration turned, shifted and relabelled in its own way."""
    rng = np.random.default_rng(seed)
    law = ortho_group if reflection else special_ortho_group
    turn = torch.from_numpy(law.rvs(y.shape[-1], size=len(y), random_state=rng)).reshape(
        len(y), *2 * y.shape[-1:]
    )
    order = torch.from_numpy(np.argsort(rng.random(y.shape[:2]), 1))
    relabelled = y.gather(1, order[..., None].expand_as(y))
    return relabelled @ turn + torch.from_numpy(rng.normal(size=(len(y), 1, y.shape[-1])))


@pytest.mark.parametrize("reflection", [False, True])
@pytest.mark.parametrize(
    ("particles", "dim"), [(1, 3), (2, 3), (4, 2), (4, 3), (5, 3), (6, 3), (5, 2)]
)
def test_brute_force(particles, dim, reflection):
    x, y = points(8, particles, dim), points(7, particles, dim, seed=1)
    exact = torch.tensor([[brute_force(a, b, reflection) for b in y.numpy()] for a in x.numpy()])
    found = aligned_distance(x, y, starts=64, reflection=reflection)
    assert found.shape == (8, 7) and found.dtype == torch.float64
    assert (found > exact - 1e-6).all()  # an upper bound
    assert ((found - exact).abs() < 1e-6).double().mean() > 0.85  # and mostly reached
    few = aligned_distance(x, y, starts=4, reflection=reflection)
    assert (few >= exact - 1e-6).all() and few.mean() < 1.1 * exact.mean() + 1e-6


@pytest.mark.parametrize("reflection", [False, True])
def test_the_same_configuration_moved_is_found(reflection):
    x = points(12, 13, 3)
    found = aligned_distance(x, moved(x, reflection, 2), starts=8, reflection=reflection)
    assert (found.diagonal() < 1e-5).double().mean() > 0.9
    off = ~torch.eye(12, dtype=torch.bool)
    assert found[off].min() > 1.0
    assert aligned_distance(x, x, starts=0).diagonal().max() < 1e-5


def test_a_mirror_image_is_another_configuration_unless_asked():
    x = points(6, 5, 3)
    mirror = x * torch.tensor([1.0, 1.0, -1.0])
    assert aligned_distance(x, mirror, starts=16).diagonal().min() > 0.1
    assert aligned_distance(x, mirror, starts=16, reflection=True).diagonal().max() < 1e-5


def test_more_starts_are_tighter_and_below_the_published_distance():
    x, y = points(10, 13, 3), points(9, 13, 3, seed=1)
    published = published_distance(x, y)
    ladder = [published, *(aligned_distance(x, y, starts=s) for s in (0, 1, 4, 16))]
    for upper, lower in itertools.pairwise(ladder):
        assert (lower <= upper + 1e-9).all()
    assert ladder[-1].mean() < 0.95 * published.mean()
    raw = torch.cdist(
        (x - x.mean(1, keepdim=True)).flatten(1), (y - y.mean(1, keepdim=True)).flatten(1)
    )
    assert (published <= raw + 1e-9).all()


def test_published_distance_is_one_assignment_and_one_rotation():
    from scipy.optimize import linear_sum_assignment

    x, y = points(4, 7, 3), points(3, 7, 3, seed=1)
    found = published_distance(x, y)
    for i, j in itertools.product(range(4), range(3)):
        a, b = (v.numpy() - v.numpy().mean(0) for v in (x[i], y[j]))
        b = b[linear_sum_assignment(((a[:, None] - b[None]) ** 2).sum(-1))[1]]
        u, _, v = np.linalg.svd(b.T @ a)
        u[:, -1] *= np.sign(np.linalg.det(u @ v))
        assert found[i, j].item() == pytest.approx(np.linalg.norm(a - b @ u @ v), abs=1e-7)


def test_invariance_symmetry_units_and_dtype():
    x, y = points(8, 6, 3), points(8, 6, 3, seed=1)
    plain = aligned_distance(x, y, starts=64)
    turned = aligned_distance(moved(x, False, 3), moved(y, False, 4), starts=64)
    assert ((plain - turned).abs() < 1e-6).double().mean() > 0.95
    back = aligned_distance(y, x, starts=64).T
    assert ((plain - back).abs() < 1e-6).double().mean() > 0.95
    torch.testing.assert_close(aligned_distance(10 * x, 10 * y, starts=64), 10 * plain)
    torch.testing.assert_close(
        aligned_distance(x.float(), y.float(), starts=64), plain, atol=1e-4, rtol=1e-4
    )
    assert torch.equal(aligned_distance(x, y, starts=64), plain)  # no hidden randomness
    other = aligned_distance(x, y, starts=64, generator=torch.Generator().manual_seed(9))
    assert ((plain - other).abs() < 1e-6).double().mean() > 0.95


def test_w2_against_brute_force():
    x, y = points(12, 4, 2), points(12, 4, 2, seed=1)
    exact = np.array([[brute_force(a, b, False) for b in y.numpy()] for a in x.numpy()])
    expected = math.sqrt(ot.emd2([], [], exact**2))
    found = symmetric_w2(x, y, starts=8)
    assert expected - 1e-6 <= found < 1.03 * expected
    assert symmetric_w2(x, moved(x, False, 1), starts=16) < 1e-3
    unequal = symmetric_w2(x, y[:5], starts=8)
    expected = math.sqrt(ot.emd2([], [], exact[:, :5] ** 2))
    assert expected - 1e-6 <= unequal < 1.03 * expected


def test_refining_only_what_the_plan_uses_loses_little():
    x, y = points(30, 13, 3), points(30, 13, 3, seed=1)
    full = math.sqrt(ot.emd2([], [], aligned_distance(x, y, starts=8).square().numpy()))
    found = symmetric_w2(x, y, starts=8)
    assert full - 1e-9 <= found < 1.03 * full


def test_input():
    x = points(3, 5, 3)
    with pytest.raises(InputError, match=r"\(n, N, D\)"):
        aligned_distance(x, points(3, 6, 3))
    with pytest.raises(InputError, match="finite"):
        aligned_distance(x, x * torch.nan)
    with pytest.raises(InputError, match="negative"):
        aligned_distance(x, x, starts=-1)
    with pytest.raises(InputError, match="at least 1"):
        symmetric_w2(x, x, starts=0)
    with pytest.raises(InputError, match="between 0 and 1"):
        symmetric_w2(x, x, slack=1.5)
    assert aligned_distance(x, x[:0]).shape == (3, 0) and aligned_distance(x[:0], x).shape == (0, 3)
    with pytest.raises(InputError, match="at least one sample"):
        symmetric_w2(x, x[:0])


@pytest.mark.parametrize(
    ("file", "key", "size", "low", "high"),
    [
        ("lj13_reference/lj13", "val", 150, 1.2, 1.7),
        ("boltzmann_generated/dw4", "samples", 300, 0.2, 0.7),
    ],
)
def test_two_halves_of_a_reference_set(shared_data, file, key, size, low, high):
    """The floor: what independent exact samples show. The published convention shows more for the
    same sets."""
    every = torch.from_numpy(np.load(shared_data(f"{file}.npz"))[key])
    half = len(every) // 2
    pick = torch.randperm(half, generator=torch.Generator().manual_seed(0))[:size]
    x, y = every[pick], every[half + pick]
    floor = symmetric_w2(x, y)
    published = math.sqrt(ot.emd2([], [], published_distance(x, y).square().numpy()))
    print(f"{file}: {floor:.3f}, published convention {published:.3f}, {size} samples a side")
    assert low < floor < high and floor < published
    shrunk = symmetric_w2(x, 1.2 * y)
    assert shrunk > floor + 0.05  # it sees a set that is a fifth too large
