"""The wrapped normal against mpmath and SciPy, and what periodic translations do to coordinates."""

import math

import mpmath
import pytest
import scipy.integrate
import scipy.stats
import torch

from orbitwise.errors import InputError
from orbitwise.groups.torus import PeriodicTranslation, nearest_image, wrap, wrapped_normal

SIGMAS = [1e-3, 0.01, 0.1, 0.2499, 0.25, 0.3, 0.5, 1.0, 2.0]
PLACES = [0.0, 1e-9, 0.1, 0.25, 0.4, 0.499999, 0.5, -0.5, 0.73, -3.2]


def oracle(x, sigma):
    """log density and score by 40 digits of the image sum."""
    with mpmath.workdps(40):
        x, s = mpmath.mpf(x), mpmath.mpf(sigma)
        reach = int(20 * sigma) + 8
        images = [x + m for m in range(-reach, reach + 1)]
        terms = [mpmath.exp(-(y**2) / (2 * s**2)) for y in images]
        total = sum(terms)
        log_density = mpmath.log(total) - mpmath.log(s * mpmath.sqrt(2 * mpmath.pi))
        score = -sum(w * y for w, y in zip(terms, images, strict=True)) / total / s**2
        return float(log_density), float(score)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("x", PLACES)
def test_against_forty_digits(x, sigma):
    kernel = wrapped_normal(*(torch.tensor(v, dtype=torch.float64) for v in (x, sigma)))
    log_density, score = oracle(x, sigma)
    assert abs(kernel.log_density - log_density) <= 1e-14 * max(1, abs(log_density))
    assert abs(kernel.score - score) <= 2e-14 * (abs(score) + 1 / sigma**2)
    if sigma >= 1:  # nearly flat: still relative to its own size
        assert abs(kernel.score - score) <= 1e-13 * (abs(score) + 1e-6)


@pytest.mark.parametrize("sigma", [0.05, 0.25, 0.7])
def test_against_scipy(sigma):
    x = torch.linspace(-0.5, 0.5, 101, dtype=torch.float64)
    kernel = wrapped_normal(x, torch.tensor(sigma, dtype=torch.float64))
    images = sum(scipy.stats.norm.pdf(x.numpy() + m, scale=sigma) for m in range(-12, 13))
    torch.testing.assert_close(
        kernel.log_density.exp(), torch.from_numpy(images), rtol=1e-13, atol=0
    )
    density = lambda y: math.exp(wrapped_normal(torch.tensor(y), torch.tensor(sigma)).log_density)  # noqa: E731
    assert abs(scipy.integrate.quad(density, -0.5, 0.5)[0] - 1) < 1e-6


def test_score_is_the_derivative():
    x = torch.linspace(-0.5, 0.5, 41, dtype=torch.float64).requires_grad_()
    for sigma in SIGMAS:
        kernel = wrapped_normal(x, torch.tensor(sigma, dtype=torch.float64))
        (slope,) = torch.autograd.grad(kernel.log_density.sum(), x)
        inside = x.detach().abs() < 0.49  # at ±1/2 rounding decides the image
        torch.testing.assert_close(
            slope[inside], kernel.score[inside], rtol=1e-10, atol=1e-9 / sigma
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_everywhere(dtype):
    x = torch.linspace(-1000, 1000, 20_011, dtype=dtype)[:, None]
    sigma = torch.logspace(-6, 3, 30, dtype=dtype)
    kernel = wrapped_normal(x, sigma)
    assert torch.isfinite(kernel.log_density).all() and torch.isfinite(kernel.score).all()


def test_single_precision_against_double():
    x = torch.rand(20_000, generator=torch.Generator().manual_seed(0)) - 0.5
    for sigma in SIGMAS:
        single = wrapped_normal(x, torch.tensor(sigma))
        double = wrapped_normal(x.double(), torch.tensor(sigma).double())
        error = (
            single.log_density - double.log_density
        ).abs() / double.log_density.abs().clamp_min(1)
        assert error.max() < 1e-5
        assert ((single.score - double.score).abs() / (double.score.abs() + 1 / sigma)).max() < 1e-4


def test_wrap_is_half_open():
    x = torch.tensor([-1e-9, 0.0, 1.0, -2.25, 5.5, 0.9999999])
    y = wrap(x)
    assert ((y >= 0) & (y < 1)).all()
    torch.testing.assert_close(y, torch.tensor([0.0, 0.0, 0.0, 0.75, 0.5, 0.9999999]))
    assert (
        nearest_image(torch.tensor([0.6, -0.6, 1.2])) - torch.tensor([-0.4, 0.4, 0.2])
    ).abs().max() < 1e-6


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_any_dimension(dim):
    gen = torch.Generator().manual_seed(1)
    group = PeriodicTranslation(dim)
    g = group.sample((50_000,), generator=gen, dtype=torch.float64)
    assert g.shape == (50_000, dim)
    for axis in g.T:
        assert scipy.stats.kstest(axis.numpy(), "uniform").pvalue > 1e-4
    x = torch.rand(50_000, 2, dim, generator=gen, dtype=torch.float64)
    y = group.act(g, x)
    assert ((y >= 0) & (y < 1)).all()
    relative = nearest_image(nearest_image(y[:, 0] - y[:, 1]) - nearest_image(x[:, 0] - x[:, 1]))
    assert relative.abs().max() < 1e-12  # what is between the points stays
    assert torch.equal(group.act(g, x, kind="vector"), x)


def test_refusals():
    with pytest.raises(InputError, match="dim >= 1"):
        PeriodicTranslation(0)
    with pytest.raises(InputError, match="2 coordinates"):
        PeriodicTranslation(3).act(torch.zeros(3), torch.zeros(4, 2))
