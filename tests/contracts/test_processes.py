"""Every process found in the package, through every stepper found, with the exact mixture
denoiser."""

import importlib
import inspect
import pickle
import pkgutil

import pytest
import torch

import orbitwise.processes
from orbitwise.processes.base import Process
from orbitwise.processes.gaussian import PROCESSES, GaussianProcess
from orbitwise.processes.sampling import Heun, Stepper, sample, snr_grid


def found(base):
    """Concrete classes below ``base`` in any module of orbitwise.processes."""
    for info in pkgutil.iter_modules(orbitwise.processes.__path__):
        module = importlib.import_module(f"orbitwise.processes.{info.name}")
        for cls in vars(module).values():
            if inspect.isclass(cls) and issubclass(cls, base) and not inspect.isabstract(cls):
                yield cls


ANY = sorted(set(found(Process)), key=lambda c: c.__name__)
GAUSSIAN = [cls for cls in ANY if issubclass(cls, GaussianProcess)]
STEPPERS = sorted(set(found(Stepper)), key=lambda c: c.__name__)
STEPS = {"Euler": 200, "Heun": 50, "Ancestral": 250}  # a new stepper gets 250


def name(value):
    return value.__name__


def test_something_was_found():
    assert len(GAUSSIAN) >= 6 and len(STEPPERS) >= 3
    assert set(PROCESSES.values()) == set(GAUSSIAN)


@pytest.mark.parametrize("cls", ANY, ids=name)
def test_score_is_the_gradient_of_the_log_density_and_has_mean_zero(cls):
    process = cls()
    gen = torch.Generator().manual_seed(0)
    x1 = torch.rand(5, 3, generator=gen, dtype=torch.float64).expand(10_000, 5, 3)
    mask = torch.tensor([True, True, True, True, False]).expand(10_000, 5)
    t = torch.full((10_000,), 0.6, dtype=torch.float64)
    xt = process.perturb(x1, t, generator=gen, mask=mask).requires_grad_()
    (slope,) = torch.autograd.grad(process.log_density(xt, x1, t, mask=mask).sum(), xt)
    score = process.score(xt, x1, t, mask=mask).detach()
    torch.testing.assert_close(score, slope, rtol=1e-8, atol=1e-8)
    mean, error = score.mean(0), score.std(0) / 10_000**0.5
    assert (mean.abs() <= 5 * error + 1e-12).all()  # ∫ ∇p = 0
    assert (score[:, 4] == 0).all()


@pytest.mark.parametrize("cls", GAUSSIAN, ids=name)
def test_can_be_pickled_and_is_reproducible(cls):
    process = cls(zero_com=True)
    assert pickle.loads(pickle.dumps(process)) == process
    x1, t = torch.ones(2, 4, 3), torch.tensor([0.3, 0.7])
    draws = [process.perturb(x1, t, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*draws)


class Mixture:
    """Two isotropic Gaussians in point space (or, ``zero_com``, in its centred subspace)."""

    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    spread = 0.3

    def __init__(self, process, mask):
        gen = torch.Generator().manual_seed(11)
        base = (
            torch.randn(2, *mask.shape[-1:], 3, generator=gen, dtype=torch.float64)
            * mask[0, :, None]
        )
        self.process, self.mask = process, mask
        self.means = process.project(base, mask[:1])

    def denoise(self, x, t):
        """E[x1 | x_t] by Bayes: component weights, then the linear-Gaussian mean of each."""
        a, s = (
            self.process.alpha(t)[:, None, None, None],
            self.process.sigma(t)[:, None, None, None],
        )
        variance = (a**2 * self.spread**2 + s**2).clamp_min(
            1e-300
        )  # 0 at the start of a bridge, as is r
        r = (x[:, None] - a * self.means) * self.mask[:, None, :, None]
        logits = self.weights.log() - 0.5 * (r**2 / variance).sum((-2, -1))
        each = self.means + a * self.spread**2 / variance * r
        return (logits.softmax(-1)[..., None, None] * each).sum(1)


@pytest.mark.parametrize("zero_com", [False, True], ids=["all", "zero_com"])
@pytest.mark.parametrize("stepper", STEPPERS, ids=name)
@pytest.mark.parametrize("cls", GAUSSIAN, ids=name)
def test_mixture_moments_and_weights(cls, stepper, zero_com):
    process, number = cls(zero_com=zero_com), 2500
    mask = torch.tensor([True, True, True, False]).expand(number, 4)
    mix = Mixture(process, mask)
    grid = snr_grid(process, STEPS.get(stepper.__name__, 250))
    out = sample(
        mix.denoise,
        process,
        (number, 4, 3),
        grid=grid,
        stepper=stepper(),
        mask=mask,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(3),
    )
    x = out.x
    assert out.evaluations == stepper.calls * (len(grid) - 1) + 1
    assert (x[:, 3] == 0).all()
    if zero_com:
        assert x.sum(-2).abs().max() < 1e-10
    near = (x[:, None] - mix.means).square().sum((-2, -1)).argmin(1)
    share = (near == 0).double().mean()
    error = (0.3 * 0.7 / number) ** 0.5  # 0.009
    # Beside the Monte-Carlo error stands discretisation. With 40,000 samples Heun's variance was
    # within 1 % (its Monte-Carlo error), that of the first-order steppers 2 to 4 % low, for every
    # process.
    assert abs(share - 0.3) < 4 * error + 0.005, share
    dims = 3 * (3 - zero_com)
    for k, count in enumerate(near.bincount(minlength=2)):
        r = x[near == k] - mix.means[k]
        assert r.mean(0).abs().max() < 5 * mix.spread / count**0.5 + 0.005
        variance = r.square().sum() / (count * dims)
        discretisation = 0.005 if stepper is Heun else 0.04
        assert (
            abs(variance / mix.spread**2 - 1) < 4 * (2 / (count * dims)) ** 0.5 + discretisation
        ), variance
