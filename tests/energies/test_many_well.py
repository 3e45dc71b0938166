import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from orbitwise.energies import ManyWell
from orbitwise.errors import InputError


def density(a):
    return math.exp(-(a**4) + 6 * a**2 + 0.5 * a)


def expectation(f):
    return (
        integrate.quad(lambda a: f(a) * density(a), -5, 5, epsabs=0, epsrel=1e-12, limit=500)[0]
        / integrate.quad(density, -5, 5, epsabs=0, epsrel=1e-12, limit=500)[0]
    )


@pytest.mark.parametrize(("dim", "published"), [(32, 164.696), (64, 329.391), (128, 658.783)])
def test_log_z_is_the_published_one(dim, published):
    assert abs(ManyWell(dim).log_z - published) < 6e-4


def test_log_z_against_adaptive_quadrature():
    z = integrate.quad(density, -5, 5, epsabs=0, epsrel=1e-12, limit=500)[0]
    assert abs(ManyWell(2).log_z - math.log(z * math.sqrt(2 * math.pi))) < 1e-9


def test_samples_follow_the_density():
    n = 40_000
    x = ManyWell(32).double().sample((n,), generator=torch.Generator().manual_seed(0))
    a, b = x[:, 0::2], x[:, 1::2]
    for f, values in (
        (lambda t: t, a),
        (lambda t: t * t, a * a),
        (lambda t: float(t < 0), (a < 0).double()),
    ):
        error = values.std() / values.numel() ** 0.5
        assert (values.mean() - expectation(f)).abs() < 4 * error
    assert abs((a < 0).double().mean().item() - 0.1557) < 0.002
    # Kolmogorov-Smirnov against the distribution function by adaptive quadrature.
    grid = np.linspace(-3, 3, 241)
    pieces = [integrate.quad(density, u, v)[0] for u, v in zip([-5, *grid[:-1]], grid, strict=True)]
    cdf = np.cumsum(pieces) / integrate.quad(density, -5, 5, limit=500)[0]
    empirical = np.searchsorted(np.sort(a[:, 3].numpy()), grid) / n
    assert np.abs(empirical - cdf).max() < stats.kstwobign.ppf(1 - 1e-4) / n**0.5
    assert stats.kstest(b[:, 5].numpy(), "norm").pvalue > 1e-4


def test_mean_energy_of_the_samples():
    energy = ManyWell(64).double()
    u = energy(energy.sample((20_000,), generator=torch.Generator().manual_seed(1)))
    exact = 32 * (expectation(lambda a: a**4 - 6 * a**2 - 0.5 * a) + 0.5)
    assert (u.mean() - exact).abs() < 4 * u.std() / len(u) ** 0.5


def test_an_odd_dimension_is_refused():
    with pytest.raises(InputError, match="even"):
        ManyWell(3)
