"""The twirl makes any model equivariant, leaves equivariant ones alone, and averages without bias."""

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError, NoClosedFormError


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def backbone(seed=0):
    """Not equivariant under anything."""
    W = torch.randn(12, 12, generator=gen(seed), dtype=torch.float64)
    return lambda x, t: torch.tanh(x.flatten(-2) @ W + t).unflatten(-1, (4, 3))


def cube():
    """The 24 rotations of the cube."""
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    cycle = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    found = [torch.eye(3)]
    for g in found:
        for h in (turn, cycle):
            if not any(torch.equal(h @ g, k) for k in found):
                found.append(h @ g)
    assert len(found) == 24
    return ow.Finite(torch.stack(found))


X = torch.randn(5, 4, 3, generator=gen(1), dtype=torch.float64)


@pytest.mark.parametrize(
    "group", [cube(), ow.Permutation(4), ow.Product(cube(), ow.Permutation(4))], ids=repr
)
def test_exact_average_is_equivariant(group):
    model = backbone()
    averaged = ow.twirl(model, group)
    h = group.sample((5,), generator=gen(2))
    before, after = averaged(X, 0.3), averaged(group.act(h, X), 0.3)
    assert torch.allclose(after, group.act(h, before, kind="vector"), atol=1e-13)
    assert (before - model(X, 0.3)).abs().max() > 0.1
    again = ow.twirl(averaged, group)
    assert torch.allclose(again(X, 0.3), before, atol=1e-13)  # a projection
    pieces = ow.twirl(model, group, chunk=7)
    assert torch.allclose(pieces(X, 0.3), before, atol=1e-13)


def test_invariant_output():
    group, model = cube(), backbone()
    energy = ow.twirl(lambda x: model(x, 0.0).sum((-2, -1)), group, output="invariant")
    h = group.sample((5,), generator=gen(2))
    assert energy(X).shape == (5,) and torch.allclose(energy(group.act(h, X)), energy(X), atol=1e-12)


def test_equivariant_models_are_left_alone():
    model = lambda x: x * x.square().sum(-1, keepdim=True)  # noqa: E731
    for group in (ow.SO3(), ow.O3()):
        assert torch.allclose(ow.twirl(model, group, 3, generator=gen())(X), model(X), atol=1e-12)


def test_sampled_average_has_no_bias():
    group, model = cube(), backbone()
    exact = ow.twirl(model, group)(X, 0.3)
    draws = torch.stack([ow.twirl(model, group, 50, generator=gen(s))(X, 0.3) for s in range(200)])
    error = draws.std(0) / 200**0.5
    assert ((draws.mean(0) - exact).abs() < 5 * error).all()


def test_masks_and_gradients():
    mask = torch.tensor([True, True, True, False])
    x = X.clone().requires_grad_(True)
    out = ow.twirl(lambda x: x**3, cube(), output="point")(x, mask=mask)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0


def test_errors():
    with pytest.raises(NoClosedFormError):
        ow.twirl(backbone(), ow.SO3())(X, 0.0)
    with pytest.raises(InputError):
        ow.twirl(backbone(), ow.SO3(), 0)
    with pytest.raises(InputError):
        ow.twirl(backbone(), ow.SO3(), 2, output="scalar")
