"""Gradients of the log evidence against finite differences; everything else refused."""

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError

FLOW = ow.GaussianProcess.flow()
CENTRED = ow.GaussianProcess.vp(zero_com=True)
CHAIN = ow.processes.Springs.of(
    (torch.diag(torch.ones(2), 1) + torch.diag(torch.ones(2), -1)).expand(2, 3, 3),
    torch.ones(2, 3, dtype=torch.bool),
)
CASES = {
    "SO3": (ow.SO3(), FLOW),
    "SO3 centred": (ow.SO3(), CENTRED),
    "SO3 harmonic": (ow.SO3(), ow.HarmonicProcess(springs=CHAIN)),
    "O3": (ow.O3(), FLOW),
    "Translation": (ow.Translation(), FLOW),
    "Permutation": (ow.Permutation(3), FLOW),
    "SO3 x Permutation": (ow.Product(ow.SO3(), ow.Permutation(3)), CENTRED),
    "torus": (ow.PeriodicTranslation(), ow.WrappedNormalProcess(0.05, 0.5)),
    "torus x Permutation": (
        ow.Product(ow.PeriodicTranslation(), ow.Permutation(3)),
        ow.WrappedNormalProcess(0.05, 0.5),
    ),
}
T = torch.tensor([0.3, 0.7], dtype=torch.float64)


def clouds(seed=0):
    return torch.randn(
        2, 2, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


@pytest.mark.parametrize("method", ["exact", "mode"])
@pytest.mark.parametrize("name", CASES)
def test_gradients_in_both_clouds(name, method):
    group, process = CASES[name]
    x1, xt = (x.requires_grad_() for x in clouds())

    def evidence(xt, x1):
        return ow.orbit_posterior(group, process, x1, xt, T, method=method).log_evidence

    if (name, method) == ("torus", "mode"):  # its climb stops short of the mode's digits
        kind = {"rtol": 1e-2, "atol": 1e-3}
    else:
        kind = {"rtol": 1e-5, "atol": 1e-6}
    gradients = torch.autograd.grad(evidence(xt, x1).sum(), (xt, x1))
    for k, gradient in enumerate(gradients):
        gen = torch.Generator().manual_seed(k)
        step = 1e-5 * torch.randn(xt.shape, generator=gen, dtype=xt.dtype)
        ends = []
        for sign in (1, -1):
            moved = [xt.detach(), x1.detach()]
            moved[k] = moved[k] + sign * step
            ends.append(evidence(*moved))
        slope = (gradient * step).sum((-2, -1)) / 1e-5
        torch.testing.assert_close((ends[0] - ends[1]) / 2e-5, slope, **kind)


def test_func_grad_equals_the_score():
    x1, xt = clouds()

    def evidence(x):
        return ow.orbit_posterior(ow.SO3(), FLOW, x1, x, T).log_evidence.sum()

    score = ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, T).score
    torch.testing.assert_close(torch.func.grad(evidence)(xt), score)
    _, pull = torch.func.vjp(
        lambda x: ow.orbit_posterior(ow.SO3(), FLOW, x1, x, T).log_evidence, xt
    )
    torch.testing.assert_close(pull(torch.tensor([1.0, 2.0]).double())[0][1], 2 * score[1])


@pytest.mark.parametrize("name", ["mean", "score", "velocity", "noise"])
def test_func_grad_of_anything_else_is_refused(name):
    x1, xt = clouds()

    def value(x):
        return getattr(ow.orbit_posterior(ow.SO3(), FLOW, x1, x, T), name).sum()

    with pytest.raises(InputError, match=r"only the exact log_evidence has gradients"):
        torch.func.grad(value)(xt)


def test_a_target_in_func_grad_over_parameters():
    """The way a functional training step uses it: the points are constants there."""
    x1, xt = clouds()

    def loss(scale):
        target = ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, T).mean
        return (scale * xt - target).square().sum()

    mean = ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, T).mean
    one = torch.ones((), dtype=torch.float64)
    torch.testing.assert_close(torch.func.grad(loss)(one), (2 * xt * (xt - mean)).sum())


def test_second_derivatives_vmap_and_forward_mode_are_refused():
    x1, xt = clouds()

    def evidence(x):
        return ow.orbit_posterior(ow.SO3(), FLOW, x1, x, T).log_evidence.sum()

    with pytest.raises(InputError, match="second derivatives"):
        torch.func.grad(lambda x: torch.func.grad(evidence)(x).square().sum())(xt)
    x = xt.clone().requires_grad_()
    (slope,) = torch.autograd.grad(evidence(x), x, create_graph=True)
    with pytest.raises(InputError, match="second derivatives"):
        slope.square().sum().backward()
    with pytest.raises(InputError, match="vmap"):
        torch.vmap(lambda a, b: ow.orbit_posterior(ow.SO3(), FLOW, a, b, 0.5).mean)(x1, xt)
    with pytest.raises(InputError, match="forward-mode"):
        torch.func.jvp(evidence, (xt,), (xt,))


def test_sampled_estimates_have_no_gradient_in_x1():
    x1, xt = (x.requires_grad_() for x in clouds())
    post = ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, T, method="snis")
    with pytest.raises(InputError, match="gradient of log_evidence in x1"):
        post.log_evidence.sum().backward()


def test_only_the_evidence_takes_part_in_autograd():
    x1, xt = (x.requires_grad_() for x in clouds())
    post = ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, T)
    assert post.log_evidence.requires_grad
    with torch.no_grad():
        assert not ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, T).log_evidence.requires_grad
    for value in (post.mean, post.score, post.velocity, post.sample(2)):
        assert not value.requires_grad
