"""Frames make any model exactly equivariant away from equal moments, and say so where they
cannot."""

import itertools
import math

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.orbits.frames import framed, principal_axes

GROUPS = [ow.SO3(), ow.O3()]


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def backbone(seed=0):
    """Not equivariant under anything, nor under translations."""
    W = torch.randn(15, 15, generator=gen(seed), dtype=torch.float64) / 3
    return lambda x, t: torch.tanh(x.flatten(-2) @ W + t).unflatten(-1, (5, 3))


X = torch.randn(40, 5, 3, generator=gen(1), dtype=torch.float64) + 0.3


@pytest.mark.parametrize("group", GROUPS, ids=repr)
def test_framed_models_are_exactly_equivariant(group):
    model = framed(backbone(), group)
    h = group.sample((40,), generator=gen(2), dtype=torch.float64)
    before, after = model(X, 0.3), model(group.act(h, X), 0.3)
    assert torch.allclose(after, group.act(h, before), atol=1e-10, rtol=0)
    assert (before - backbone()(X, 0.3)).abs().mean() > 0.1
    again = framed(framed(backbone(), group, min_gap=0), group)
    assert torch.allclose(again(X, 0.3), before, atol=1e-10)  # a projection
    assert torch.allclose(framed(backbone(), group, chunk=3)(X, 0.3), before, atol=1e-13)
    one = framed(backbone(), group)(X[7], 0.3)  # without batch
    assert torch.allclose(one, before[7], atol=1e-12)


@pytest.mark.parametrize("group", GROUPS, ids=repr)
def test_invariant_and_point_outputs(group):
    h = group.sample((40,), generator=gen(3), dtype=torch.float64)
    model = backbone()
    energy = framed(lambda x: model(x, 0.1).sum((-2, -1)), group, output="invariant")
    assert energy(X).shape == (40,)
    assert torch.allclose(energy(group.act(h, X)), energy(X), atol=1e-10, rtol=0)
    assert energy(X).std() > 0.1
    points = framed(backbone(), group, output="point")
    assert torch.allclose(points(group.act(h, X), 0.0), group.act(h, points(X, 0.0)), atol=1e-10)


def test_rotations_keep_handedness_and_reflections_do_not():
    """A pseudoscalar survives the frames of SO3 and is averaged away by those of O3."""
    triple = lambda x: torch.linalg.det(x[..., 1:4, :] - x[..., :1, :])  # noqa: E731
    assert torch.allclose(framed(triple, ow.SO3(), output="invariant")(X), triple(X), atol=1e-10)
    assert framed(triple, ow.O3(), output="invariant")(X).abs().max() < 1e-10


@pytest.mark.parametrize(("group", "size"), [(ow.SO3(), 4), (ow.O3(), 8)], ids=repr)
def test_against_frames_by_hand(group, size):
    """Brute force over all signs of the axes of numpy's SVD, kept when they lie in the group."""
    x, model, seen = X[3], backbone(), []
    _, _, axes = torch.linalg.svd(x - x.mean(0))
    for signs in itertools.product((1.0, -1.0), repeat=3):
        F = (axes.flip(0) * torch.tensor(signs, dtype=torch.float64)[:, None]).T
        if size == 8 or torch.linalg.det(F) > 0:
            seen.append(model(x @ F, 0.2) @ F.T)
    assert len(seen) == size
    assert torch.allclose(framed(model, group)(x, 0.2), torch.stack(seen).mean(0), atol=1e-12)


def test_equivariant_models_are_left_alone():
    model = lambda x: x * x.square().sum(-1, keepdim=True)  # noqa: E731
    for group in GROUPS:
        assert torch.allclose(framed(model, group)(X), model(X), atol=1e-11)


def test_padding_does_not_matter():
    mask = torch.tensor([True, True, True, True, False]).expand(40, 5)
    other = X.clone()
    other[:, 4] = 100.0
    model = lambda x: torch.where(mask[..., None], x.sin().cumsum(-1), 0)  # noqa: E731
    a, b = (framed(model, ow.SO3())(x, mask=mask) for x in (X, other))
    assert torch.equal(a[:, :4], b[:, :4])
    short = framed(lambda x: x.sin().cumsum(-1), ow.SO3())(X[:, :4])
    assert torch.allclose(a[:, :4], short, atol=1e-12)


def test_single_precision():
    model = framed(lambda x: x.sin().cumsum(-1), ow.SO3())
    h = ow.SO3().sample((40,), generator=gen(2))
    x = X.float()
    assert model(x).dtype == torch.float32
    _, moments, _ = torch.linalg.svd(x - x.mean(-2, keepdim=True))
    gap = (-moments.square().diff(dim=-1)).amin(-1) / moments[:, 0].square()
    clear = gap > 0.05
    error = (model(x @ h.mT) - model(x) @ h.mT).abs().amax((-2, -1))
    assert clear.sum() > 20 and error[clear].max() < 1e-4


def test_gradients_pass_through_the_frame():
    """Forces of a framed energy: against finite differences, and equivariant."""
    model = backbone()
    energy = framed(lambda x: model(x, 0.1).sum((-2, -1)), ow.SO3(), output="invariant")
    x = X[:3].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(energy, (x,), atol=1e-6)
    h = ow.SO3().sample((3,), generator=gen(2), dtype=torch.float64)
    (force,) = torch.autograd.grad(energy(x).sum(), x)
    turned = (X[:3] @ h.mT).requires_grad_(True)
    (other,) = torch.autograd.grad(energy(turned).sum(), turned)
    assert torch.allclose(other, force @ h.mT, atol=1e-9)


def test_planar_clouds_are_fine():
    h = ow.O3().sample((40,), generator=gen(5), dtype=torch.float64)
    flat = X * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    for group in GROUPS:
        model = framed(backbone(), group)
        turn = h if isinstance(group, ow.O3) else h * torch.linalg.det(h)[:, None, None]
        assert torch.allclose(model(flat @ turn.mT, 0.1), model(flat, 0.1) @ turn.mT, atol=1e-10)


CORNERS = torch.tensor(list(itertools.product((1.0, -1.0), repeat=3)), dtype=torch.float64)
DEGENERATE = {
    "linear": (
        torch.linspace(-1, 1, 4, dtype=torch.float64)[:, None] * torch.tensor([1.0, 2.0, 3.0])
    ),
    "symmetric top": CORNERS * torch.tensor([1.0, 1.0, 2.0]),
    "cube": CORNERS,
    "two points": torch.tensor([[0.0, 0, 0], [1, 0, 0]]),
    "one point": torch.ones(1, 3),
}


@pytest.mark.parametrize("x", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_degenerate_clouds_are_named(x):
    model = lambda x: x.sin().cumsum(-1)  # noqa: E731
    clear = torch.randn(x.shape, generator=gen(), dtype=torch.float64)
    batch = torch.stack([clear, x.double()]) if len(x) > 2 else x.double()[None]
    with pytest.raises(InputError, match=r"number 1|number 0") as caught:
        framed(model, ow.SO3())(batch)
    assert "twirl" in str(caught.value) and "min_gap=0" in str(caught.value)
    assert torch.isfinite(framed(model, ow.SO3(), min_gap=0)(batch)).all()


def test_the_stated_limits_are_real():
    """Let through, a symmetric top is not equivariant; and the result jumps where moments cross."""
    model = framed(lambda x: x.sin().cumsum(-1), ow.SO3(), min_gap=0)
    top = DEGENERATE["symmetric top"]
    h = ow.SO3().sample((20,), generator=gen(), dtype=torch.float64)
    assert (model(top @ h.mT) - model(top) @ h.mT).abs().max() > 0.01

    steps = torch.tensor([1 - 1e-5, 1 + 1e-5], dtype=torch.float64)
    box = torch.tensor([[0.5, 0, 0], [0, 1, 0], [0, 0, 2.0]], dtype=torch.float64)
    crossing = torch.cat([box, -box]).repeat(2, 1, 1)
    crossing[:, :, 1] *= 2 * steps[:, None]  # the second moment passes the third
    energy = lambda x: (x[..., 0, 2] * x[..., 2, 1]).sin() + x[..., 1, 2].cos()  # noqa: E731
    a, b = framed(energy, ow.SO3(), output="invariant")(crossing)
    smooth = ow.twirl(energy, ow.SO3(), 2000, output="invariant", generator=gen())
    c, d = (
        smooth(crossing[0]),
        ow.twirl(energy, ow.SO3(), 2000, output="invariant", generator=gen())(crossing[1]),
    )
    assert (a - b).abs() > 0.1 and (c - d).abs() < 1e-3


def test_errors():
    with pytest.raises(NoClosedFormError, match="twirl"):
        framed(backbone(), ow.Permutation(5))
    with pytest.raises(InputError, match="output"):
        framed(backbone(), ow.SO3(), output="scalar")
    with pytest.raises(InputError, match="shape"):
        framed(backbone(), ow.SO3())(X[..., :2], 0.1)
    with pytest.raises(InputError, match="finite"):
        framed(backbone(), ow.SO3())(X * math.nan, 0.1)


def test_axes_are_sorted_and_principal():
    axes = principal_axes(X)
    y = X - X.mean(-2, keepdim=True)
    moments = axes.mT @ (y.mT @ y) @ axes
    diagonal = moments.diagonal(dim1=-2, dim2=-1)
    assert torch.allclose(moments, torch.diag_embed(diagonal), atol=1e-10)
    assert (diagonal.diff(dim=-1) > 0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_points_that_are_not_finite_are_refused_without_a_gap_too(bad):
    x = X.clone()
    x[..., 0, 0] = bad
    for min_gap in (0, 1e-6):
        with pytest.raises(InputError, match="finite points"):
            framed(backbone(), ow.SO3(), min_gap=min_gap)(x, 0.1)


@pytest.mark.parametrize("min_gap", [-1e-3, 1.0, math.nan])
def test_a_gap_that_is_none(min_gap):
    with pytest.raises(InputError, match="min_gap"):
        framed(backbone(), ow.SO3(), min_gap=min_gap)
