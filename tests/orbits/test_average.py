"""The twirl makes any model equivariant, leaves equivariant ones alone, and averages without
bias."""

import math

import numpy as np
import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.polyhedral import icosahedral, octahedral, tetrahedral


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
    assert energy(X).shape == (5,) and torch.allclose(
        energy(group.act(h, X)), energy(X), atol=1e-12
    )


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


# ---- nodes: a polyhedral group turned as a whole

POLYHEDRA = {
    "tetrahedral": (tetrahedral, 2),
    "octahedral": (octahedral, 3),
    "icosahedral": (icosahedral, 5),
}


def harmonic_like(degree, seed=4):
    """A vector-valued polynomial of exactly this degree in x, of no symmetry: components of
    (x·a)^degree."""
    a = torch.randn(4, 3, 12, generator=gen(seed), dtype=torch.float64)
    a = a / a.norm(dim=1, keepdim=True)
    return lambda x: torch.einsum("...nd,ndk->...k", x, a).pow(degree).unflatten(-1, (4, 3))


def haar_average(model, x, degree):
    """By a product rule on SO(3) exact for this degree: z-y-z angles, trapezoid × Gauss-Legendre ×
    trapezoid."""
    n = degree + 1
    nodes, weights = (torch.tensor(v) for v in np.polynomial.legendre.leggauss(n))
    angle = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    c, s, zero, one = angle.cos(), angle.sin(), 0 * angle, 1 + 0 * angle
    Rz = torch.stack([c, -s, zero, s, c, zero, zero, zero, one], -1).reshape(n, 3, 3)
    c, s = nodes, (1 - nodes**2).sqrt()
    zero, one = 0 * c, 1 + 0 * c
    Ry = torch.stack([c, zero, s, zero, one, zero, -s, zero, c], -1).reshape(n, 3, 3)
    R = (Rz[:, None, None] @ Ry[None, :, None] @ Rz[None, None]).flatten(0, 2)
    w = (weights[None, :, None] / 2 / n / n).expand(n, n, n).flatten()
    return torch.einsum("k,kbnd->bnd", w, torch.stack([model(x @ r.mT) @ r for r in R]))


@pytest.mark.parametrize(("nodes", "exact"), POLYHEDRA.values(), ids=POLYHEDRA.keys())
def test_nodes_are_exact_up_to_their_degree_and_not_beyond(nodes, exact):
    for degree in (exact - 1, exact):  # of the model; g⁻¹ adds one
        model = harmonic_like(degree)
        truth = haar_average(model, X, degree + 1)
        draw = ow.twirl(model, ow.SO3(), nodes=nodes(), generator=gen(degree))(X)
        right = torch.allclose(draw, truth, atol=1e-11, rtol=1e-9)
        assert right == (degree + 1 <= exact), degree
        assert truth.abs().max() > 0.01
        energy = lambda x, model=model: model(x)[..., 0, 0]  # noqa: E731
        mean = ow.twirl(energy, ow.SO3(), nodes=nodes(), output="invariant", generator=gen(5))(X)
        long = ow.twirl(
            energy, ow.SO3(), 3, nodes=icosahedral(), output="invariant", generator=gen(6)
        )(X)
        assert torch.allclose(mean, long, atol=1e-11, rtol=1e-9)  # degree ≤ 5 in g


@pytest.mark.parametrize("group", [ow.SO3(), ow.O3()], ids=repr)
def test_nodes_have_no_bias_and_less_noise_at_equal_cost(group):
    model = backbone()
    call = lambda x: model(x, 0.3)  # noqa: E731
    x, repeats = X[:2], 400
    many = x.repeat(repeats, 1, 1)
    nodes = ow.twirl(call, group, nodes=octahedral(), generator=gen(7))(many).unflatten(
        0, (repeats, 2)
    )
    plain = ow.twirl(call, group, 24, generator=gen(8))(many).unflatten(0, (repeats, 2))
    truth = ow.twirl(call, group, 20000, generator=gen(9))(x)
    error = (nodes.var(0) / repeats + plain.var(0) * 24 / 20000).sqrt()
    z = (nodes.mean(0) - truth) / error
    assert (
        z.abs().max() < 4.5 and z.square().mean() < 1.8
    )  # correlated within an item, so not exactly 1
    assert nodes.var(0).mean() < 0.7 * plain.var(0).mean()


def test_several_turns_of_the_nodes_masks_and_errors():
    model = harmonic_like(4)
    one, four = (
        ow.twirl(model, ow.SO3(), k, nodes=octahedral(), generator=gen(3))(X.repeat(300, 1, 1))
        for k in (1, 4)
    )
    spread = [v.unflatten(0, (300, 5)).var(0).mean() for v in (one, four)]
    assert 3 < spread[0] / spread[1] < 5.3
    mask = torch.tensor([True, True, False, True])
    far = X.clone()
    far[:, 2] = 50.0
    point = lambda x: torch.where(mask[:, None], x.sin().cumsum(-1), 0)  # noqa: E731
    a, b = (
        ow.twirl(point, ow.SO3(), nodes=tetrahedral(), generator=gen(2))(x, mask=mask)
        for x in (X, far)
    )
    assert torch.equal(a, b)
    mirror = ow.Finite(torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, 1.0, -1.0]))]))
    ow.twirl(model, ow.O3(), nodes=mirror, generator=gen())(X)
    with pytest.raises(InputError, match="reflections"):
        ow.twirl(model, ow.SO3(), nodes=mirror)
    with pytest.raises(InputError, match="SO3 and O3"):
        ow.twirl(model, ow.Permutation(4), nodes=tetrahedral())
    with pytest.raises(InputError, match="orthogonal"):
        ow.twirl(model, ow.SO3(), nodes=ow.Finite(torch.tensor([[[1.0]], [[-1.0]]])))
