"""Effective sample sizes, R-hat and block errors against AR(1) closed forms and repeated chains."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
from scipy.stats import norm, rankdata

from orbitwise.errors import InputError
from orbitwise.metrics.mixing import (
    block_average,
    effective_sample_size,
    rank_effective_sample_size,
    split_rhat,
    statistical_inefficiency,
)


def ar1(rho, chains, draws, seed):
    """Stationary AR(1) with unit variance: integrated autocorrelation time (1 + ρ)/(1 - ρ)."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(chains, draws)) * math.sqrt(1 - rho**2)
    noise[:, 0] = rng.normal(size=chains)
    return torch.tensor(scipy.signal.lfilter([1], [1, -rho], noise, axis=1))


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, -0.3])
def test_effective_sample_size_of_ar1(rho):
    x = ar1(rho, 4, 50_000, 3)
    exact = x.numel() * (1 - rho) / (1 + rho)
    assert float(effective_sample_size(x)) == pytest.approx(exact, rel=0.08)
    assert float(rank_effective_sample_size(x.exp())) == pytest.approx(exact, rel=0.1)
    assert float(statistical_inefficiency(x)) == pytest.approx((1 + rho) / (1 - rho), rel=0.1)


def test_batched_over_quantities():
    x = torch.stack([ar1(r, 4, 2000, s) for r, s in ((0.2, 1), (0.8, 2), (0.95, 3))], -1).unflatten(
        -1, (3, 1)
    )
    together = effective_sample_size(x)
    assert together.shape == (3, 1)
    apart = torch.stack([effective_sample_size(x[..., i, 0]) for i in range(3)])
    assert torch.allclose(together[:, 0], apart)
    assert torch.allclose(
        split_rhat(x)[:, 0], torch.stack([split_rhat(x[..., i, 0]) for i in range(3)])
    )


def test_rhat_step_by_step():
    """The published formula written out with scipy, ties included."""
    x = ar1(0.5, 3, 200, 5).round(decimals=1).numpy()

    def rhat(values):
        z = norm.ppf((rankdata(values).reshape(values.shape) - 0.375) / (values.size + 0.25))
        n = z.shape[1]
        w = z.var(1, ddof=1).mean()
        b = n * z.mean(1).var(ddof=1)
        return math.sqrt(((n - 1) / n * w + b / n) / w)

    halves = np.concatenate([x[:, :100], x[:, 100:]])
    ordered = np.sort(halves.ravel())
    median = ordered[(len(ordered) - 1) // 2]
    expected = max(rhat(halves), rhat(np.abs(halves - median)))
    assert float(split_rhat(torch.tensor(x))) == pytest.approx(expected, rel=1e-12)


def test_rhat_sees_location_scale_and_drift():
    good = ar1(0.3, 4, 2000, 7)
    assert split_rhat(good) < 1.01
    moved = good.clone()
    moved[0] += 1.0
    wide = good.clone()
    wide[0] *= 3.0
    drift = good + torch.linspace(0, 2, 2000, dtype=good.dtype)
    for bad in (moved, wide, drift):
        assert split_rhat(bad) > 1.05
    assert torch.isnan(split_rhat(torch.ones(4, 100)))


def test_block_error_covers_the_truth():
    """The standard error against the closed form sd sqrt(τ / n) and against the scatter of many
    chains."""
    x = ar1(0.8, 300, 4000, 9)
    blocks = torch.stack([block_average(row[None], 20).error for row in x])
    exact = math.sqrt((1.8 / 0.2) / 4000)
    assert float(blocks.square().mean().sqrt()) == pytest.approx(exact, rel=0.1)
    assert float(x.mean(1).std()) == pytest.approx(exact, rel=0.15)
    assert float(block_average(x).mean) == pytest.approx(float(x.mean()), abs=1e-9)


def test_block_errors_of_several_chains():
    """Every chain counts: the error of the mean of 16 is a quarter of one's, and it is that of the
    formula over all blocks."""
    x = ar1(0.8, 160, 4000, 11)
    together = torch.stack([block_average(x[k : k + 16], 20).error for k in range(0, 160, 16)])
    exact = math.sqrt((1.8 / 0.2) / (16 * 4000))
    assert float(together.square().mean().sqrt()) == pytest.approx(exact, rel=0.1)
    few = x[:3, :100]
    means = few.double().reshape(15, 20).mean(1)
    found = block_average(few, 5)
    assert float(found.error) == pytest.approx(float(means.std()) / math.sqrt(15), rel=1e-12)
    assert float(found.mean) == pytest.approx(float(means.mean()), rel=1e-12)


def test_short_chains_are_refused():
    with pytest.raises(InputError, match="at least 8"):
        split_rhat(torch.zeros(2, 4))
    with pytest.raises(InputError, match="fewer blocks"):
        block_average(torch.zeros(1, 10), 20)
