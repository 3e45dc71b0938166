"""What networks regress on, against brute force, the process itself and a sampler's step."""

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError
from orbitwise.processes.gaussian import PROCESSES
from orbitwise.processes.sampling import Euler, Stage

HALF_TURNS = ow.Finite(
    torch.stack(
        [
            torch.diag(torch.tensor(signs, dtype=torch.float64))
            for signs in ([1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1])
        ]
    )
)


def clouds(process, zero_com=False, time=0.6):
    gen = torch.Generator().manual_seed(0)
    x1 = torch.randn(6, 4, 3, generator=gen, dtype=torch.float64)
    t = torch.full((6,), time, dtype=torch.float64)
    return x1, process.perturb(x1, t, generator=gen), t


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("zero_com", [False, True])
def test_velocity_by_enumeration_and_finite_differences(name, zero_com):
    """Σ_g w_g d/dt(alpha g·x1 + sigma ε_g), the derivative of the path by differences."""
    process = ow.GaussianProcess.named(name, zero_com=zero_com)
    x1, xt, t = clouds(process)
    post = ow.orbit_posterior(HALF_TURNS, process, x1, xt, t)

    images = process.project(HALF_TURNS.act(torch.arange(4)[:, None], x1))
    weights = process.log_density(xt, images, t).softmax(0)[..., None, None]
    alpha, sigma = process.alpha(t)[:, None, None], process.sigma(t)[:, None, None]
    eps = (xt - alpha * images) / sigma

    def path(h):
        later = t + h
        return (
            process.alpha(later)[:, None, None] * images + process.sigma(later)[:, None, None] * eps
        )

    h = 1e-5
    velocity = (weights * (path(h) - path(-h)) / (2 * h)).sum(0)
    scale = velocity.abs().max().item()
    torch.testing.assert_close(post.velocity, velocity, rtol=1e-6, atol=1e-7 * scale)
    torch.testing.assert_close(post.noise, (weights * eps).sum(0))
    for short, long in (("v", "velocity"), ("eps", "noise"), ("x1", "endpoint")):
        assert torch.equal(post.target(short), post.target(long))
    assert torch.equal(post.target("score"), post.score)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_small_step_along_the_velocity_is_the_samplers(name):
    process = ow.GaussianProcess.named(name)
    x1, xt, t = clouds(process)
    post = ow.orbit_posterior(ow.SO3(), process, x1, xt, t)
    steps = []
    for h in (1e-3, 5e-4):
        stage = Stage(process, lambda x, t: post.mean, t, t + h, False, None, None)
        steps.append((Euler().step(xt, stage) - (xt + h * post.velocity)).abs().max() / h)
    assert steps[1] < 0.51 * steps[0] + 1e-9  # what differs is of the order of the step


def test_velocity_on_the_torus_is_the_probability_flow():
    process = ow.WrappedNormalProcess(0.05, 0.5)
    x1, xt, t = clouds(process)
    post = ow.orbit_posterior(ow.PeriodicTranslation(), process, x1, xt, t)
    h = 1e-5
    rate = (process.wrapped_sigma(t + h) - process.wrapped_sigma(t - h)) / (2 * h)
    sigma = process.wrapped_sigma(t)
    expected = -(rate * sigma)[:, None, None] * post.score
    torch.testing.assert_close(post.velocity, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(post.mean + sigma[:, None, None] * post.noise, xt)


def test_correlated_noise():
    springs = ow.processes.Springs.of(
        torch.diag(torch.ones(3), 1).add(torch.diag(torch.ones(3), -1))[None].expand(6, 4, 4),
        torch.ones(6, 4, dtype=torch.bool),
    )
    process = ow.HarmonicProcess(springs=springs)
    x1, xt, t = clouds(process)
    post = ow.orbit_posterior(ow.SO3(), process, x1, xt, t)
    eps = (xt - 0.6 * post.mean) / 0.4
    torch.testing.assert_close(post.noise, eps, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(post.velocity, post.mean - eps, rtol=1e-5, atol=1e-5)


class Own:
    def alpha(self, t):
        return t.square()

    def sigma(self, t):
        return 2 * (1 - t) ** 3


def test_a_process_of_ones_own_is_differentiated():
    x1, xt, t = clouds(ow.GaussianProcess.flow())
    post = ow.orbit_posterior(ow.SO3(), Own(), x1, xt, t)
    eps = (xt - 0.36 * post.mean) / (2 * 0.4**3)
    torch.testing.assert_close(post.velocity, 1.2 * post.mean - 6 * 0.4**2 * eps)


def test_a_schedule_that_leaves_torch_is_refused_and_a_constant_is_not():
    class Table(Own):
        def alpha(self, t):
            return torch.tensor([a * a for a in t.flatten().tolist()]).to(t).reshape(t.shape)

    class Exploding(Own):
        def alpha(self, t):
            return torch.ones(())

    x1, xt, t = clouds(ow.GaussianProcess.flow())
    post = ow.orbit_posterior(ow.SO3(), Table(), x1, xt, t)
    with pytest.raises(InputError, match=r"Table.alpha\(t\) cannot be differentiated.*alpha_dot"):
        _ = post.velocity
    post = ow.orbit_posterior(ow.SO3(), Exploding(), x1, xt, t)
    torch.testing.assert_close(post.velocity, -6 * 0.4**2 * post.noise)


@pytest.mark.parametrize("name", ["velocity", "noise"])
def test_no_velocity_without_noise(name):
    x1, _, _ = clouds(ow.GaussianProcess.flow())
    for process, t in ((ow.GaussianProcess.flow(), 1.0), (ow.GaussianProcess.bridge(), 0.0)):
        post = ow.orbit_posterior(ow.SO3(), process, x1, x1, t)
        with pytest.raises(InputError, match=r"sigma\(t\) = 0"):
            getattr(post, name)


def test_unknown_prediction():
    x1, xt, t = clouds(ow.GaussianProcess.flow())
    with pytest.raises(InputError, match="none of 'x1'"):
        ow.orbit_posterior(ow.SO3(), ow.GaussianProcess.flow(), x1, xt, t).target("x0")


def test_float32_near_the_data_keeps_the_noise():
    """(x_t − alpha mean)/sigma in float32 would lose four digits here."""
    process = ow.GaussianProcess.flow()
    gen = torch.Generator().manual_seed(0)
    x1 = 10 * torch.randn(6, 4, 3, generator=gen, dtype=torch.float64)
    xt = process.perturb(x1, torch.full((6,), 0.9999, dtype=torch.float64), generator=gen).float()
    post = ow.orbit_posterior(ow.SO3(), process, x1.float(), xt, 0.9999)
    exact = ow.orbit_posterior(ow.SO3(), process, x1.float().double(), xt.double(), 0.9999)
    torch.testing.assert_close(post.noise, exact.noise.float(), rtol=1e-5, atol=1e-5)
