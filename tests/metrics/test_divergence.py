"""Divergences against scipy, closed forms and repeated draws."""

import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from orbitwise.errors import InputError
from orbitwise.metrics.divergence import (
    angle_histogram,
    compare_angles,
    js_divergence,
    kl_divergence,
)


def draw(n, seed, shift=0.0, width=0.4, dims=1):
    return width * torch.randn(n, dims, generator=torch.Generator().manual_seed(seed)) + shift


def test_equals_scipy_and_its_range():
    g = torch.Generator().manual_seed(1)
    p, q = torch.rand(7, 40, generator=g), torch.rand(7, 40, generator=g)
    theirs = torch.tensor(
        [jensenshannon(a, b) ** 2 for a, b in zip(p.double(), q.double(), strict=True)]
    )
    assert torch.allclose(js_divergence(p, q), theirs, atol=1e-7)
    assert float(
        js_divergence(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0]))
    ) == pytest.approx(math.log(2))
    assert float(js_divergence(p[0], 5 * p[0])) < 1e-15
    kl = [entropy(a + 0.5, b + 0.5) for a, b in zip(p.double(), q.double(), strict=True)]
    assert torch.allclose(kl_divergence(p, q), torch.tensor(kl), atol=1e-7)


def test_histogram_is_periodic_and_keeps_every_sample():
    x = draw(4000, 2, shift=3.0, dims=2)
    counts = angle_histogram(x, 36)
    assert counts.shape == (36, 36) and counts.sum() == 4000
    assert torch.equal(counts, angle_histogram(x + 4 * math.pi, 36))
    edge = angle_histogram(
        torch.tensor([[-math.pi, math.pi - 1e-9], [math.pi, -math.pi]], dtype=torch.float64), 36
    )
    assert edge[0, 35] == 1 and edge[0, 0] == 1  # π is -π


def test_floor_is_what_equal_distributions_give():
    """The floor against fresh draws, and both against (k-1)/8 (1/n + 1/m) where that expansion
    holds."""
    g = torch.Generator().manual_seed(3)
    n, m, k = 2000, 6000, 36
    uniform = lambda size: (2 * torch.rand(size, 1, generator=g) - 1) * math.pi  # noqa: E731
    fresh = torch.tensor(
        [compare_angles(uniform(n), uniform(m), repeats=2, generator=g).value for _ in range(200)]
    )
    ours = compare_angles(uniform(n), uniform(m), repeats=400, generator=g)
    expected = (k - 1) / 8 * (1 / n + 1 / m)
    assert float(fresh.mean()) == pytest.approx(
        expected, abs=4 * float(fresh.std()) / 200**0.5 + 1e-5
    )
    assert ours.floor == pytest.approx(expected, abs=4 * ours.floor_std / 20 + 1e-5)
    assert ours.floor_std == pytest.approx(float(fresh.std()), rel=0.3)


def test_floor_holds_for_sparse_maps_and_excess_finds_a_difference():
    g = torch.Generator().manual_seed(4)
    same = compare_angles(draw(800, 5, dims=2), draw(8000, 6, dims=2), generator=g)
    assert same.value > 0.01  # the plug-in alone would suggest a difference
    assert abs(same.excess) < 4 * same.floor_std
    other = compare_angles(draw(800, 5, dims=2), draw(8000, 6, shift=0.25, dims=2), generator=g)
    assert other.excess > 10 * other.floor_std
    assert other.sizes == (800, 8000) and other.bins == 36


def test_standard_error_against_repeated_draws():
    g = torch.Generator().manual_seed(7)
    runs = [
        compare_angles(draw(1500, 100 + i), draw(3000, 900 + i, shift=0.3), repeats=2, generator=g)
        for i in range(150)
    ]
    spread = float(torch.tensor([r.value for r in runs]).std())
    assert runs[0].error == pytest.approx(spread, rel=0.25)


def test_empty_and_mismatched_sets_are_refused():
    with pytest.raises(InputError):
        compare_angles(torch.zeros(0, 2), torch.zeros(5, 2))
    with pytest.raises(InputError):
        compare_angles(torch.zeros(5, 1), torch.zeros(5, 2))
    with pytest.raises(InputError):
        js_divergence(torch.zeros(3), torch.ones(3))
