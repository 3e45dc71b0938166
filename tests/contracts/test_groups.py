"""Every group found in orbitwise.groups, against the axioms and the promises of ``groups.base``.

A new group needs one line in ``INSTANCES``: without it the first test fails.
"""

import importlib
import inspect
import math
import pkgutil

import pytest
import torch

import orbitwise.groups
from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.automorphism import Automorphism
from orbitwise.groups.base import Group
from orbitwise.groups.finite import Finite
from orbitwise.groups.item_permutations import ItemPermutations
from orbitwise.groups.permutation import Permutation
from orbitwise.groups.product import Product
from orbitwise.groups.se3 import SE3
from orbitwise.groups.so3 import O3, SO3
from orbitwise.groups.torus import PeriodicTranslation
from orbitwise.groups.translation import Translation
from orbitwise.groups.voxels import VoxelRotations

N = 6  # points in the tests; the last one is padding where a mask is used


def quarter_turns():
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    return Finite(torch.stack([torch.linalg.matrix_power(turn, k) for k in range(4)]))


def methyl_like():
    """A star: one centre, three equal arms, two of another kind; the last point has no bond."""
    bonds = torch.zeros(N, N, dtype=torch.long)
    bonds[0, 1:5] = bonds[1:5, 0] = 1
    return Automorphism.from_graph(torch.tensor([6, 1, 1, 1, 8, 0]), bonds)


INSTANCES = {
    SO3: [SO3],
    O3: [O3],
    Translation: [Translation],
    PeriodicTranslation: [PeriodicTranslation],
    Finite: [quarter_turns],
    Permutation: [lambda: Permutation(5), lambda: Permutation(N, [0, 0, 1, 1, 1, -1])],
    ItemPermutations: [lambda: ItemPermutations.within(torch.tensor([0, 0, 1, 1, 1, -1]))],
    Automorphism: [methyl_like],
    VoxelRotations: [VoxelRotations],
    SE3: [SE3],
    Product: [
        lambda: Product(SO3(), methyl_like()),
        lambda: Product(Permutation(5), PeriodicTranslation()),
    ],
}
NO_HAAR = {Translation}  # not compact
MODULO_ONE = {PeriodicTranslation}
EVENTS = {
    VoxelRotations: (N, 2, 2, 2),
    SE3: (N, 3, 4),
}  # what the others act on is N points in space


def found():
    for info in pkgutil.walk_packages(orbitwise.groups.__path__, "orbitwise.groups."):
        for cls in vars(importlib.import_module(info.name)).values():
            if inspect.isclass(cls) and issubclass(cls, Group) and not inspect.isabstract(cls):
                yield cls


CLASSES = sorted(set(found()), key=lambda c: c.__name__)
CASES = [(cls, make) for cls in CLASSES for make in INSTANCES.get(cls, [])]
every = pytest.mark.parametrize(
    ("cls", "make"), CASES, ids=[f"{c.__name__}-{i}" for i, (c, _) in enumerate(CASES)]
)
compact = pytest.mark.parametrize(
    ("cls", "make"),
    [case for case in CASES if case[0] not in NO_HAAR],
    ids=[f"{c.__name__}-{i}" for i, (c, _) in enumerate(CASES) if c not in NO_HAAR],
)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_every_group_has_an_instance_here(cls):
    assert INSTANCES.get(cls), f"add a small instance of {cls.__name__} to INSTANCES"
    assert all(type(make()) is cls for make in INSTANCES[cls])


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def leaves(g):
    return [leaf for part in g for leaf in leaves(part)] if isinstance(g, tuple) else [g]


def mapped(change, g):
    return tuple(mapped(change, part) for part in g) if isinstance(g, tuple) else change(g)


def elements(group, shape, seed=0, dtype=torch.float64):
    """Random elements, from Haar where it exists."""
    if type(group) in NO_HAAR:
        return torch.randn((*shape, group.dim), generator=rng(seed), dtype=dtype)
    return group.sample(shape, generator=rng(seed), dtype=dtype)


def event(group):
    return EVENTS.get(type(group), (N, 3))


def points(group, *batch, seed=100, dtype=torch.float64):
    return torch.rand((*batch, *event(group)), generator=rng(seed), dtype=dtype)


def is_torus(group):
    return any(type(part) in MODULO_ONE for part in getattr(group, "factors", [group]))


def assert_same(group, a, b, tol=1e-12):
    """Equal points; modulo 1 on the torus."""
    difference = a - b
    if is_torus(group):
        difference = difference - difference.round()
    assert a.shape == b.shape and difference.abs().max() < tol


@every
def test_action_is_a_homomorphism(cls, make):
    group = make()
    x = points(group, 7)
    g, h = elements(group, (7,), 1), elements(group, (7,), 2)
    for kind in ("point", "vector"):
        once = group.act(group.compose(g, h), x, kind=kind)
        assert_same(group, once, group.act(g, group.act(h, x, kind=kind), kind=kind))


@every
def test_associativity_identity_inverse(cls, make):
    group = make()
    x = points(group, 7)
    g, h, k = (elements(group, (7,), seed) for seed in (1, 2, 3))
    left, right = group.compose(group.compose(g, h), k), group.compose(g, group.compose(h, k))
    assert_same(group, group.act(left, x), group.act(right, x))
    e = group.identity((7,), dtype=torch.float64)
    assert_same(group, group.act(e, x), x)
    for same in (group.compose(g, e), group.compose(e, g)):
        assert_same(group, group.act(same, x), group.act(g, x))
    for unit in (group.compose(g, group.inverse(g)), group.compose(group.inverse(g), g)):
        assert_same(group, group.act(unit, x), x)
    assert_same(group, group.act(group.inverse(g), group.act(g, x)), x)


@every
def test_shapes_broadcast_from_the_right(cls, make):
    group = make()
    x = points(group, 3, 2)
    g = elements(group, (4, 3, 2))
    out = group.act(g, x)
    assert out.shape == (4, 3, 2, *event(group))
    one = mapped(lambda part: part[2, 1, 0], g)
    assert_same(group, group.act(one, x[1, 0]), out[2, 1, 0])
    assert group.act(one, x).shape == x.shape
    assert group.act(one, x, kind="vector").shape == x.shape
    assert group.act(g, x, kind="vector").shape == out.shape
    ndims = group.element_ndim if isinstance(group.element_ndim, tuple) else (group.element_ndim,)
    assert [leaf.ndim for leaf in leaves(g)] == [3 + n for n in ndims]
    for e, part in zip(leaves(group.identity((4, 3, 2))), leaves(g), strict=True):
        assert e.shape == part.shape
    assert group.identity() is not None and group.axis in ("space", "points", "both")


@every
def test_padding_stays_untouched_and_input_unchanged(cls, make):
    group = make()
    x = points(group, 5)
    x[:, -1] = 7.25  # out of the cell: the torus must not even wrap it
    before, mask = x.clone(), torch.arange(N).expand(5, N) < N - 1
    g = elements(group, (3, 5))
    for kind in ("point", "vector"):
        out = group.act(g, x, mask=mask, kind=kind)
        moved = group.act(g, x, kind=kind)
        assert (out[:, :, -1] == 7.25).all()
        assert_same(group, out[:, :, :-1], moved[:, :, :-1])
    assert torch.equal(x, before)


@every
def test_vectors_are_differences_of_points(cls, make):
    """What distinguishes the kinds: a vector is moved as the difference of two points is."""
    group = make()
    x, dx = 0.3 + 0.01 * points(group, 5), 0.01 * points(group, 5, seed=5)
    g = elements(group, (4, 5))
    assert_same(group, group.act(g, x + dx) - group.act(g, x), group.act(g, dx, kind="vector"))


@compact
def test_haar_is_invariant_and_normalised(cls, make):
    """E f(g·x) = E f(h·g·x) = E f(g·h·x) for smooth f periodic in the cell, within 5 standard
    errors."""
    group, number = make(), 40_000
    g, h, x = elements(group, (number,), 4), elements(group, (), 5), points(group, seed=6)

    def features(y):  # degree 1 to 3 in the coordinates, of the first points and of their products
        y = y.flatten(2)[:, :5]
        y = torch.cat([(2 * math.pi * y).cos(), (2 * math.pi * y).sin()], -1).flatten(1)
        return torch.cat([y, y**2, y[:, :1] * y, y[:, 1:2] * y[:, 7:8] * y], -1)

    left = features(group.act(group.compose(h, g), x))
    right = features(group.act(group.compose(g, h), x))
    here = features(group.act(g, x))
    for moved in (left, right):
        error = (here - moved).std(0) / number**0.5
        assert ((here - moved).mean(0).abs() <= 5 * error + 1e-9).all()


@compact
def test_generators_dtype_device(cls, make):
    group = make()
    a, b = (group.sample((9,), generator=rng(3), dtype=torch.float32) for _ in range(2))
    c = group.sample((9,), generator=rng(4), dtype=torch.float32)
    assert all(torch.equal(u, v) for u, v in zip(leaves(a), leaves(b), strict=True))
    assert any(not torch.equal(u, v) for u, v in zip(leaves(a), leaves(c), strict=True))
    for dtype in (torch.float32, torch.float64):
        for g in (group.sample((2,), dtype=dtype), group.identity((2,), dtype=dtype)):
            assert all(leaf.dtype in (dtype, torch.long) for leaf in leaves(g))
        x = points(group, 2, dtype=dtype)
        assert group.act(group.sample((2,), dtype=torch.float64), x).dtype == dtype
    before = torch.random.get_rng_state()
    group.sample((3,), generator=rng(0))
    assert torch.equal(
        before, torch.random.get_rng_state()
    )  # a given generator is the only one used
    meta = group.identity((2,), device="meta")
    assert all(leaf.device.type == "meta" for leaf in leaves(meta))


@every
def test_enumeration(cls, make):
    group = make()
    x = points(group)
    if not group.finite:
        with pytest.raises(NoClosedFormError):
            group.enumerate()
        return
    table, log_weights = group.enumerate(dtype=torch.float64)
    assert abs(log_weights.exp().sum() - 1) < 1e-12
    images = group.act(table, x).flatten(1)
    distance = torch.cdist(images, images) + torch.eye(len(images))
    assert distance.min() > 1e-6  # all different
    draws = group.act(group.sample((20_000,), generator=rng(8)), x).flatten(1)
    nearest, which = torch.cdist(draws, images).min(-1)
    assert nearest.max() < 1e-5  # nothing else is drawn
    count = which.bincount(minlength=len(images)).double()
    expected = 20_000 * log_weights.exp()
    chi2 = ((count - expected) ** 2 / expected).sum()
    freedom = len(images) - 1
    assert (
        chi2 < freedom + 5 * math.sqrt(2 * freedom) + 5
    )  # and every element as often as its weight
    products = group.act(table, images.unflatten(-1, event(group))[:, None]).flatten(2)
    assert (
        torch.cdist(products, images.expand(len(images), -1, -1)).min(-1).values.max() < 1e-5
    )  # closed


@every
def test_points_that_do_not_fit_are_refused(cls, make):
    group = make()
    short = torch.rand(2, 3, 2, dtype=torch.float64)  # three points in the plane
    with pytest.raises((InputError, RuntimeError)):
        group.act(elements(group, (2,)), short)
