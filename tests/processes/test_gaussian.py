"""Gaussian processes against closed forms, autograd and torch.distributions."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from orbitwise.errors import InputError
from orbitwise.processes.gaussian import PROCESSES, GaussianProcess, centre

ALL = [
    GaussianProcess.flow(),
    GaussianProcess.flow(2.5),
    GaussianProcess.vp(),
    GaussianProcess.vp_linear(),
    GaussianProcess.ve(),
    GaussianProcess.edm(),
    GaussianProcess.bridge(0.4),
]
F64 = torch.float64


@pytest.mark.parametrize("process", ALL, ids=repr)
def test_derivatives_are_those_of_autograd(process):
    t = torch.linspace(0.02, 0.98, 25, dtype=F64, requires_grad=True)
    for value, slope in ((process.alpha, process.alpha_dot), (process.sigma, process.sigma_dot)):
        v = value(t)
        auto = torch.autograd.grad(v.sum(), t)[0] if v.requires_grad else torch.zeros_like(t)
        torch.testing.assert_close(slope(t), auto, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("process", ALL, ids=repr)
def test_time_at_a_noise_ratio(process):
    t = torch.linspace(0.01, 0.99, 33, dtype=F64)
    ratio = process.sigma(t) / process.alpha(t)
    torch.testing.assert_close(process.time_at_ratio(ratio), t, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        GaussianProcess.time_at_ratio(process, ratio), t, rtol=1e-9, atol=1e-9
    )
    far = process.time_at_ratio(torch.tensor([1e-6, 1e6], dtype=F64))
    assert ((far >= 0) & (far <= 1)).all() and far[0] > far[1]


def test_known_values():
    half = torch.tensor(0.5, dtype=F64)
    ends = torch.tensor([0.0, 1.0], dtype=F64)
    assert GaussianProcess.flow(3.0).sigma(half) == 1.5
    vp = GaussianProcess.vp()
    assert (
        torch.equal(vp.sigma(ends), torch.tensor([1.0, 0.0], dtype=F64)) and vp.alpha(ends)[0] == 0
    )
    # noise levels of the EDM paper's table, 18 steps: the first three, from its formula in other
    # arithmetic
    edm = GaussianProcess.edm()
    for i, level in enumerate([80.0, 57.585978, 40.785574]):
        assert math.isclose(float(edm.sigma(torch.tensor(i / 17, dtype=F64))), level, rel_tol=1e-6)
    assert math.isclose(float(GaussianProcess.ve(0.01, 100.0).sigma(half)), 1.0, rel_tol=1e-12)
    assert math.isclose(float(GaussianProcess.bridge(2.0).sigma(half)), 1.0, rel_tol=1e-12)
    linear = GaussianProcess.vp_linear()
    assert math.isclose(float(linear.alpha(ends[0])), math.exp(-5.025), rel_tol=1e-12)
    torch.testing.assert_close(
        linear.alpha(half) ** 2 + linear.sigma(half) ** 2, torch.ones((), dtype=F64)
    )


@pytest.mark.parametrize("process", ALL, ids=repr)
def test_every_prediction_converts_to_every_other(process):
    gen = torch.Generator().manual_seed(0)
    x1, eps = torch.randn(2, 6, 4, 3, generator=gen, dtype=F64)
    t = torch.linspace(0.1, 0.9, 6, dtype=F64)
    a, s, da, ds = (
        f(t)[:, None, None]
        for f in (process.alpha, process.sigma, process.alpha_dot, process.sigma_dot)
    )
    xt = a * x1 + s * eps
    # the velocity by its definition: d/dt of the path with x1 and ε held fixed
    h = 1e-6
    ahead, behind = (
        process.alpha(t + d)[:, None, None] * x1 + process.sigma(t + d)[:, None, None] * eps
        for d in (h, -h)
    )
    torch.testing.assert_close(da * x1 + ds * eps, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-5)
    truth = {
        "endpoint": x1,
        "noise": eps,
        "score": process.score(xt, x1, t),
        "velocity": da * x1 + ds * eps,
    }
    for source, value in truth.items():
        for target, expected in truth.items():
            got = process.convert(value, xt, t, source=source, target=target)
            torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-7)


def test_density_is_that_of_a_multivariate_normal_in_the_subspace():
    gen = torch.Generator().manual_seed(1)
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    x1 = torch.randn(2, 4, 3, generator=gen, dtype=F64) * mask[..., None]
    t = torch.tensor([0.3, 0.8], dtype=F64)
    for zero_com in (False, True):
        process = GaussianProcess.flow(1.7, zero_com=zero_com)
        assert process.dimension(mask).tolist() == ([6, 3] if zero_com else [9, 6])
        xt = process.perturb(x1, t, generator=gen, mask=mask)
        got = process.log_density(xt, x1, t, mask=mask)
        for b, n in enumerate((3, 2)):
            centred = torch.eye(n, dtype=F64) - 1 / n
            basis = (
                torch.linalg.eigh(centred).eigenvectors[:, 1:]
                if zero_com
                else torch.eye(n, dtype=F64)
            )
            inside = (basis.T @ (xt[b, :n] - t[b] * x1[b, :n])).flatten()
            sigma = (1 - t[b]) * 1.7
            law = MultivariateNormal(
                torch.zeros_like(inside), torch.eye(len(inside), dtype=F64) * sigma**2
            )
            torch.testing.assert_close(got[b], law.log_prob(inside))


def test_zero_com_noise_is_centred_and_has_the_projected_covariance():
    process = GaussianProcess.flow(2.0, zero_com=True)
    mask = torch.tensor([True, True, True, False]).expand(100_000, 4)
    x = process.prior(
        (100_000, 4, 3), mask=mask, dtype=F64, generator=torch.Generator().manual_seed(2)
    )
    assert (x[:, 3] == 0).all() and x.sum(1).abs().max() < 1e-12
    covariance = torch.einsum("bid,bjd->ij", x, x)[:3, :3] / 300_000
    expected = 4 * (torch.eye(3, dtype=F64) - 1 / 3)
    assert (covariance - expected).abs().max() < 5 * 4 * (
        2 / 300_000
    ) ** 0.5  # five standard errors


def test_perturb_moments_extra_axes_and_generator():
    process = GaussianProcess.vp()
    x1 = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(3))
    t = torch.tensor([0.2, 0.5, 0.9])
    xt = process.perturb(x1.expand(20_000, 3, 5, 3), t, generator=torch.Generator().manual_seed(4))
    mean, sd = xt.mean(0), xt.std(0)
    s = process.sigma(t)[:, None, None]
    assert ((mean - process.alpha(t)[:, None, None] * x1).abs() < 5 * s / 20_000**0.5).all()
    assert ((sd / s - 1).abs() < 5 * 0.5**0.5 / 20_000**0.5).all()


def test_centre_ignores_padding():
    x = torch.tensor([[[1.0], [3.0], [100.0]]])
    assert centre(x, torch.tensor([[True, True, False]])).flatten().tolist() == [-1, 1, 100]


def test_named_and_its_errors():
    assert GaussianProcess.named("flow", scale=2.0, zero_com=True) == GaussianProcess.flow(
        2.0, zero_com=True
    )
    for name in PROCESSES:  # the constructor of each name gives the class of that name
        assert type(getattr(GaussianProcess, name)()) is PROCESSES[name]
    with pytest.raises(InputError, match="did you mean 'flow'"):
        GaussianProcess.named("flwo")
    with pytest.raises(InputError, match="did you mean 'sigma_max'"):
        GaussianProcess.named("ve", sigma_mx=3.0)
    x = torch.zeros(1, 2, 3)
    with pytest.raises(InputError, match="unknown prediction"):
        GaussianProcess.flow().convert(x, x, torch.tensor([0.5]), source="endpoint", target="speed")
