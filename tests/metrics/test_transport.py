"""Transport distances against brute force, scipy and closed forms."""

import itertools
import math

import pytest
import torch
from scipy.stats import wasserstein_distance

from orbitwise.errors import InputError
from orbitwise.metrics.transport import (
    compare_distances,
    pair_distances,
    total_variation,
    wasserstein,
    wasserstein_1d,
    wasserstein_from_distances,
)


def test_one_dimension_equals_scipy_and_sorting():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(500, generator=g), 2 + 1.5 * torch.randn(731, generator=g)
    assert wasserstein_1d(x, y) == pytest.approx(
        wasserstein_distance(x.numpy(), y.numpy()), rel=1e-6
    )
    a, b = x[:300], y[:300]
    assert wasserstein_1d(a, b, 2) == pytest.approx(
        float((a.sort()[0] - b.sort()[0]).square().mean().sqrt()), rel=1e-5
    )


def test_points_against_all_permutations():
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(7, 2, 3, generator=g), torch.randn(7, 2, 3, generator=g)
    d = (x[:, None] - y[None]).square().sum((-1, -2)).double()
    best = min(sum(d[i, p[i]] for i in range(7)) for p in itertools.permutations(range(7)))
    assert wasserstein(x, y) == pytest.approx(float((best / 7).sqrt()), rel=1e-6)
    assert wasserstein_from_distances(d.sqrt()) == pytest.approx(float((best / 7).sqrt()), rel=1e-6)


def test_shift_is_the_distance_and_order_does_not_matter():
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(2))
    shift = torch.tensor([0.3, -0.4, 1.2])
    assert wasserstein(x, x.flip(0) + shift) == pytest.approx(1.3, rel=1e-5)
    assert wasserstein(x, x.flip(0), p=1) == pytest.approx(0.0, abs=1e-9)


def test_distances_ignore_rigid_motion_and_see_stretching():
    g = torch.Generator().manual_seed(3)
    x = torch.randn(40, 6, 3, generator=g)
    q = torch.linalg.qr(torch.randn(3, 3, generator=g))[0]
    same = compare_distances(x, x @ q + 5.0)
    assert same.w1_angstrom < 1e-5
    brute = torch.stack(
        [(x[:, i] - x[:, j]).norm(dim=-1) for i in range(6) for j in range(i + 1, 6)], -1
    )
    assert torch.allclose(pair_distances(x), brute)
    stretched = compare_distances(x, 1.1 * x)
    assert stretched.w1_angstrom == pytest.approx(0.1 * float(brute.mean()), rel=1e-4)


def test_total_variation():
    a, b = torch.tensor([0.1, 0.2, 1.2, 2.2]), torch.tensor([0.3, 1.2, 1.4, 9.0])
    assert total_variation(a, b, 1.0) == pytest.approx(0.5)  # (2,1,1,0)/4 against (1,2,0,1)/4
    assert total_variation(a, a, 0.5) == 0.0
    assert total_variation(a, a + 100, 1.0) == 1.0


def test_empty_sets_are_refused():
    with pytest.raises(InputError):
        wasserstein(torch.zeros(0, 3), torch.zeros(4, 3))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_has_no_distance(bad):
    x = torch.zeros(5, 4, 3)
    y = x.clone()
    y[2, 1, 0] = bad
    for ask in (
        lambda: wasserstein(x, y),
        lambda: wasserstein_1d(x[:, 1, 0], y[:, 1, 0]),
        lambda: wasserstein_from_distances(y[:, 1]),
        lambda: compare_distances(x, y),
        lambda: total_variation(x, y, 0.1),
    ):
        with pytest.raises(InputError, match=r"1 numbers of the \w+ set are NaN or infinite"):
            ask()


def test_what_is_no_distance():
    x = torch.zeros(3, 2)
    with pytest.raises(InputError, match="negative"):
        wasserstein_from_distances(x - 1)
    with pytest.raises(InputError, match="no distance"):
        wasserstein(x, torch.zeros(3, 3))
    with pytest.raises(InputError, match="width"):
        total_variation(x, x, 0.0)
    with pytest.raises(InputError, match="at least one"):
        total_variation(x[:0], x, 0.1)
