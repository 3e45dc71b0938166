"""Every network of the package, found by discovery, keeps the same promises.

A new network gives one line in ``CASES``: a small instance, the inputs of a batch by name, how it
is called with them, and what it commutes with. It inherits all tests here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module

import pytest
import torch
from torch import Tensor, nn

from orbitwise.crystals import CrystalTransformer, CSPNet
from orbitwise.crystals.crystal import CrystalBatch
from orbitwise.data.batch import PointBatch
from orbitwise.energies import Energy
from orbitwise.groups.item_permutations import ItemPermutations
from orbitwise.groups.so3 import SO3
from orbitwise.molecules import MoleculeNetwork
from orbitwise.molecules.batch import MoleculeBatch
from orbitwise.networks import EGNN, MLP, ElementwiseMLP, PairNetwork, PointTransformer, UNet3D
from orbitwise.proteins import ResidueTransformer
from orbitwise.proteins.chain import ChainBatch

Inputs = dict[str, Tensor]  # of a batch: the first axis of each are its items
Outputs = dict[str, Tensor]
Move = Callable[[Inputs], tuple[Inputs, Callable[[Outputs], Outputs]]]

SIZES = (7, 4, 1)
SMALL = {"hidden": 16, "layers": 2, "times": 8}
EQUIVARIANT = {**SMALL, "pair": 12, "vectors": 8, "heads": 4, "radial": 8}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Case:
    """``draw(sizes, seed)``: inputs in float64; ``call(net, inputs)``: outputs by name; ``moves``:
    what the network commutes with, exactly; ``points``: axes of each input that count points, which
    padding and permutations act on; ``crowded``: names of inputs that may stand all at one place;
    ``broken``: moves that it must not commute with."""

    make: Callable[..., nn.Module]
    draw: Callable[[tuple[int, ...], int], Inputs]
    call: Callable[[nn.Module, Inputs], Outputs]
    moves: dict[str, Move] = field(default_factory=dict)
    broken: dict[str, Move] = field(default_factory=dict)
    points: dict[str, tuple[int, ...]] = field(default_factory=dict)
    crowded: tuple[str, ...] = ("x",)
    per_point: tuple[str, ...] = ("x",)  # outputs
    long: tuple[int, ...] = (6,) * 4  # sizes at which every parameter is asked for


def network(case: Case, dtype: torch.dtype = torch.float64, seed: int = 1) -> nn.Module:
    """A small instance whose parameters all have moved away from their start, which may be zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = case.make()
        with torch.no_grad():
            for p in net.parameters():
                p += 0.05 * torch.randn(p.shape)
    return net.to(dtype)


def cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}


def times(count: int, seed: int) -> Tensor:
    return torch.rand(count, generator=generator(seed + 50), dtype=torch.float64)


# -- inputs ----------------------------------------------------------------------------------------


def masked(sizes: tuple[int, ...]) -> Tensor:
    return torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]


def points(sizes: tuple[int, ...], seed: int = 0) -> Inputs:
    g, mask = generator(seed), masked(sizes)
    b, n = mask.shape
    upper = torch.randint(0, 12, (b, n, n), generator=g).triu(1)
    upper = torch.where(upper < 5, upper, 0) * mask[:, None] * mask[:, :, None]
    species = torch.randint(1, 18, (b, n), generator=g) * mask
    x = torch.randn(b, n, 3, generator=g, dtype=torch.float64) * mask[..., None]
    return {
        "x": x,
        "t": times(b, seed),
        "species": species,
        "bonds": upper + upper.mT,
        "mask": mask,
    }


def labelled(sizes: tuple[int, ...], seed: int = 0) -> Inputs:
    """The same with charges, properties of pairs and handedness."""
    inputs, g = points(sizes, seed), generator(seed + 100)
    b, n = inputs["mask"].shape
    corners = torch.rand(b, 2, n, generator=g).argsort(-1)[..., :4]
    if n < 5:
        corners = torch.full((b, 2, 4), -1)
    corners = torch.where((inputs["mask"].sum(-1) == n)[:, None, None], corners, -1)
    return inputs | {
        "charge": torch.randint(-3, 4, (b, n), generator=g),
        "pairs": torch.randint(0, 256, (b, n, n), generator=g),
        "corners": corners,
        "centres": corners[..., 0],
    }


def chains(atoms: int) -> Callable[[tuple[int, ...], int], Inputs]:
    def draw(sizes: tuple[int, ...], seed: int = 0) -> Inputs:
        mask = masked(sizes).repeat_interleave(atoms, 1)
        x = torch.randn(*mask.shape, 3, generator=generator(seed), dtype=torch.float64)
        return {"x": x * mask[..., None], "t": times(len(sizes), seed), "mask": mask}

    return draw


def crystals(sizes: tuple[int, ...], seed: int = 0) -> Inputs:
    g, mask = generator(seed), masked(sizes)
    b, n = mask.shape
    real = mask[..., None]
    return {
        "frac": torch.rand(b, n, 3, generator=g, dtype=torch.float64) * real,
        "cell": torch.randn(b, 6, generator=g, dtype=torch.float64),
        "t": times(b, seed),
        "species": torch.randint(1, 90, (b, n), generator=g) * mask,
        "text": torch.randn(b, 4, generator=g, dtype=torch.float64),
        "detail": torch.randn(b, n, 4, generator=g, dtype=torch.float64) * real,
        "mask": mask,
    }


def vectors(*event: int) -> Callable[[tuple[int, ...], int], Inputs]:
    def draw(sizes: tuple[int, ...], seed: int = 0) -> Inputs:
        x = torch.randn(len(sizes), *event, generator=generator(seed), dtype=torch.float64)
        return {"x": x, "t": times(len(sizes), seed)}

    return draw


# -- calls -----------------------------------------------------------------------------------------


def on_points(net: nn.Module, i: Inputs) -> Outputs:
    batch = PointBatch(i["x"], i["species"], i["bonds"], i["mask"])
    return {"x": net(i["x"], i["t"], batch)}


def on_molecules(net: nn.Module, i: Inputs) -> Outputs:
    b, n = i["mask"].shape
    same = ItemPermutations(torch.arange(n).expand(1, b, n), torch.ones(1, b, dtype=torch.bool))
    names = ("x", "species", "bonds", "mask", "charge", "pairs", "corners", "centres")
    return {"x": net(i["x"], i["t"], MoleculeBatch(*(i[name] for name in names), same))}


def on_chains(net: ResidueTransformer, i: Inputs) -> Outputs:
    return {"x": net(i["x"], i["t"], ChainBatch(i["x"], i["mask"], net.atoms))}


def on_crystals(net: nn.Module, i: Inputs) -> Outputs:
    prompt = torch.cat([i["text"][:, None], i["detail"]], 1)
    lattice = torch.eye(3).expand(len(prompt), 3, 3)
    out = net(
        i["frac"],
        i["cell"],
        i["t"],
        CrystalBatch(i["frac"], lattice, i["species"], i["mask"], prompt),
    )
    return {"frac": out.frac, "cell": out.cell}


def on_vectors(net: nn.Module, i: Inputs) -> Outputs:
    return {"x": net(i["x"], i["t"])}


# -- moves -----------------------------------------------------------------------------------------


def along(axes: dict[str, tuple[int, ...]], outputs: tuple[str, ...]) -> Move:
    """Another order of the points."""

    def move(inputs: Inputs) -> tuple[Inputs, Callable[[Outputs], Outputs]]:
        moved, n = dict(inputs), inputs[next(iter(axes))].shape[1]
        order = torch.randperm(n, generator=generator(3))
        for name, where in axes.items():
            for axis in where:
                moved[name] = moved[name].index_select(axis, order)
        for name in {"corners", "centres"} & set(inputs):  # they hold numbers of points
            moved[name] = torch.where(inputs[name] < 0, -1, order.argsort()[inputs[name]])
        return moved, lambda y: {k: v[:, order] if k in outputs else v for k, v in y.items()}

    return move


def turned(inputs: Inputs) -> tuple[Inputs, Callable[[Outputs], Outputs]]:
    rotation = SO3().sample((), generator=generator(4), dtype=torch.float64)
    return inputs | {"x": inputs["x"] @ rotation.mT}, lambda y: {"x": y["x"] @ rotation.mT}


def shifted(name: str) -> Move:
    by = torch.tensor([0.13, 0.4, -0.21], dtype=torch.float64)
    return lambda inputs: (inputs | {name: inputs[name] + by}, lambda y: y)


def by_whole_cells(inputs: Inputs) -> tuple[Inputs, Callable[[Outputs], Outputs]]:
    by = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    return inputs | {"frac": inputs["frac"] + by}, lambda y: y


def blocks(inputs: Inputs) -> tuple[Inputs, Callable[[Outputs], Outputs]]:
    """Another order of the four blocks of two coordinates."""
    order = torch.tensor([2, 3, 6, 7, 0, 1, 4, 5])
    return inputs | {"x": inputs["x"][:, order]}, lambda y: {"x": y["x"][:, order]}


POINTS = {"x": (1,), "species": (1,), "bonds": (1, 2), "mask": (1,)}
LABELLED = POINTS | {"charge": (1,), "pairs": (1, 2)}
CRYSTAL = {"frac": (1,), "species": (1,), "detail": (1,), "mask": (1,)}
permuted = along(POINTS, ("x",))
of_crystals = {"permuted": along(CRYSTAL, ("frac",)), "whole cells": by_whole_cells}
CRYSTALS = {"draw": crystals, "call": on_crystals, "points": CRYSTAL} | {
    "crowded": ("frac",),
    "per_point": ("frac",),
}

CASES = {
    "EGNN": Case(
        lambda **o: EGNN(**EQUIVARIANT, **o),
        points,
        on_points,
        {"permuted": permuted, "turned": turned, "shifted": shifted("x")},
        points=POINTS,
    ),
    "MoleculeNetwork": Case(
        lambda **o: MoleculeNetwork(**EQUIVARIANT, **o),
        labelled,
        on_molecules,
        {"permuted": along(LABELLED, ("x",)), "turned": turned, "shifted": shifted("x")},
        points=LABELLED,
    ),
    "PairNetwork": Case(
        lambda **o: PairNetwork(**SMALL, pair=8, radial=8, **o),
        points,
        on_points,
        {"permuted": permuted, "shifted": shifted("x")},
        {"turned": turned},
        points=POINTS,
    ),
    "PointTransformer": Case(
        lambda **o: PointTransformer(**SMALL, heads=4, waves=8, **o),
        points,
        on_points,
        {"permuted": permuted},
        {"turned": turned, "shifted": shifted("x")},
        points=POINTS,
    ),
    **{
        f"ResidueTransformer-{atoms}": Case(
            lambda atoms=atoms, **o: ResidueTransformer(
                atoms, **SMALL, heads=4, waves=8, radial=8, **o
            ),
            chains(atoms),
            on_chains,
            {},
            {"turned": turned, "permuted": along({"x": (1,)}, ("x",))},
            points={"x": (1,), "mask": (1,)},
            long=(36, 35),  # farther apart than the places in a chain that look alike
        )
        for atoms in (1, 3)
    },
    "CSPNet": Case(
        lambda **o: CSPNet(**SMALL, prompt=4, **o),
        moves=of_crystals | {"shifted": shifted("frac")},
        **CRYSTALS,
    ),
    "CrystalTransformer": Case(
        lambda **o: CrystalTransformer(**SMALL, prompt=4, heads=4, **o),
        moves=of_crystals,
        broken={"shifted": shifted("frac")},
        **CRYSTALS,
    ),
    "MLP": Case(
        lambda: MLP((4, 2), hidden=16, blocks=2, times=8), vectors(4, 2), on_vectors, crowded=()
    ),
    "ElementwiseMLP": Case(
        lambda: ElementwiseMLP(2, hidden=16, blocks=2, times=8),
        vectors(8),
        on_vectors,
        {"blocks": blocks},
    ),
    "UNet3D": Case(
        lambda: UNet3D(channels=2, width=4, times=8), vectors(2, 8, 8, 8), on_vectors, crowded=()
    ),
}
EVERY = pytest.mark.parametrize("name", CASES)
PADDED = pytest.mark.parametrize("name", [n for n, c in CASES.items() if "mask" in c.points])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def close(a: Outputs, b: Outputs, **tolerance: float) -> None:
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], **tolerance)


def loss(out: Outputs, seed: int = 5) -> Tensor:
    """A sum with random weights, which no symmetry of the outputs cancels."""
    g = generator(seed)
    return sum(
        (v * torch.randn(v.shape, generator=g, dtype=torch.float64).to(v)).sum()
        for v in out.values()
    )


def test_every_network_has_a_case():
    """All modules in the tables of the packages that are no energies and wrap no other network."""
    tables = [
        import_module(f"orbitwise.{p}") for p in ("networks", "molecules", "crystals", "proteins")
    ]
    found = {
        name
        for table in tables
        for name in table.__all__
        if inspect.isclass(cls := getattr(table, name))
        and issubclass(cls, nn.Module)
        and not issubclass(cls, Energy)
        and "network" not in inspect.signature(cls).parameters
    }
    assert found == {name.split("-")[0] for name in CASES}


@DTYPES
@EVERY
def test_shapes_and_dtype(name, dtype):
    case = CASES[name]
    inputs = cast(case.draw(SIZES, 0), dtype)
    for key, value in case.call(network(case, dtype), inputs).items():
        assert value.shape == inputs[key].shape and value.dtype == dtype
        assert value.isfinite().all() and value[:2].abs().max() > 1e-3


@EVERY
def test_items_do_not_mix(name):
    case = CASES[name]
    net, inputs = network(case), case.draw(SIZES, 0)
    whole = case.call(net, inputs)
    alone = case.call(net, {k: v[1:2] for k, v in inputs.items()})
    close(alone, {k: v[1:2] for k, v in whole.items()}, rtol=1e-9, atol=1e-11)


@PADDED
def test_padding_is_zero_and_changes_nothing(name):
    case = CASES[name]
    net, inputs = network(case), case.draw(SIZES, 0)
    mask = inputs["mask"]
    out = case.call(net, inputs)
    for key in case.per_point:
        assert out[key][~mask].abs().max() == 0
    for i, n in enumerate(mask.sum(1).tolist()):
        one = {k: v[i : i + 1] for k, v in inputs.items()}
        for key, axes in case.points.items():
            for axis in axes:
                one[key] = one[key].narrow(axis, 0, n)
        cut = {k: v[i : i + 1, :n] if k in case.per_point else v[i : i + 1] for k, v in out.items()}
        close(case.call(net, one), cut, rtol=1e-9, atol=1e-11)
    g, dirty = generator(8), dict(inputs)  # whatever stands in padded places
    for key, axes in case.points.items():
        free = ~mask if len(axes) == 1 else ~(mask[:, None] & mask[..., None])
        if key != "mask":
            junk = torch.randint(0, 4, inputs[key].shape, generator=g).to(inputs[key])
            dirty[key] = torch.where(
                free.view(*free.shape, *[1] * (junk.ndim - free.ndim)), junk, inputs[key]
            )
    close(case.call(net, dirty), out, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["EGNN", "PairNetwork", "PointTransformer", "MoleculeNetwork"])
def test_padded_points_may_be_nan_and_the_mean_is_removed_where_it_is_said(name):
    case = CASES[name]
    net, inputs = network(case), case.draw(SIZES, 0)
    out = case.call(net, inputs)["x"]
    nan = inputs | {"x": inputs["x"].masked_fill(~inputs["mask"][..., None], torch.nan)}
    torch.testing.assert_close(case.call(net, nan)["x"], out, rtol=0, atol=0)
    assert out.sum(1).abs().max() < 1e-12 * out.abs().max()
    free = case.call(case.make(zero_com=False).double(), inputs)["x"]
    assert free[~inputs["mask"]].abs().max() == 0 and free[0].sum(0).abs().max() > 1e-4


@pytest.mark.parametrize(("name", "move"), [(n, m) for n, c in CASES.items() for m in c.moves])
def test_commutes_with_its_symmetries(name, move):
    case = CASES[name]
    net, inputs = network(case), case.draw((6, 6), 2)
    moved, carried = case.moves[move](inputs)
    y = case.call(net, inputs)
    close(case.call(net, moved), carried(y), rtol=1e-9, atol=1e-11)
    if move not in ("shifted", "whole cells"):  # the answer is seen to move
        assert any((carried(y)[k] - y[k]).abs().max() > 1e-3 for k in y)


@pytest.mark.parametrize(("name", "move"), [(n, m) for n, c in CASES.items() for m in c.broken])
def test_has_no_symmetry_beyond_those(name, move):
    case = CASES[name]
    net, inputs = network(case), case.draw((6, 6), 2)
    moved, carried = case.broken[move](inputs)
    y, z = carried(case.call(net, inputs)), case.call(net, moved)
    assert max((y[k] - z[k]).abs().max() for k in y) > 1e-4


@EVERY
def test_reads_every_input(name):
    """Each changed by itself in the first item changes the answer for that item."""
    case = CASES[name]
    net, inputs = network(case), case.draw((6, 6), 2)
    y = case.call(net, inputs)
    for key, value in inputs.items():
        other = value.clone()
        if key == "mask":
            other[0, -3:] = False  # a residue of three atoms
        elif key in ("corners", "centres"):
            other[0] = -1
        elif value.is_floating_point():
            other[0] = 0.9 * value[0] + 0.05 * torch.linspace(0, 1, value[0].numel()).view_as(
                value[0]
            )
        else:
            other[0] = value[0].roll(1, 0) if key != "bonds" else 0
        z = case.call(net, inputs | {key: other})
        assert max((z[k][0] - y[k][0]).abs().max() for k in y) > 1e-6, key


@DTYPES
@EVERY
def test_gradients_are_finite_where_points_coincide(name, dtype):
    case = CASES[name]
    net, inputs = network(case, dtype), cast(case.draw(SIZES, 0), dtype)
    for key in case.crowded:
        if inputs[key].ndim > 2:
            inputs[key][0, 1] = inputs[key][0, 0]  # two points in one place
        inputs[key][1] = 0  # all of them
    leaves = [k for k, v in inputs.items() if v.is_floating_point() and k != "t"]
    for t in (0.0, 1.0, 0.4):
        given = inputs | {k: inputs[k].clone().requires_grad_() for k in leaves}
        net.zero_grad()
        loss(case.call(net, given | {"t": torch.full_like(inputs["t"], t)})).backward()
        assert all(given[k].grad.isfinite().all() for k in leaves)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@EVERY
def test_no_element_of_a_parameter_is_without_effect(name):
    """Over several inputs every single number gets a gradient above rounding: a bias before a mean
    that is removed, or one of the keys of an attention, would not. Left out are rows of embeddings
    that were never looked up."""
    case, net = CASES[name], network(CASES[name])
    seen = {
        m: torch.zeros(len(m.weight), dtype=torch.bool)
        for m in net.modules()
        if isinstance(m, nn.Embedding)
    }

    def look_up(module: nn.Embedding, args: tuple[Tensor]) -> None:
        seen[module][args[0].flatten()] = True

    hooks = [m.register_forward_pre_hook(look_up) for m in seen]
    largest = {key: torch.zeros_like(p) for key, p in net.named_parameters()}
    for seed in range(6):
        net.zero_grad()
        loss(case.call(net, case.draw(case.long, 10 + seed)), seed).backward()
        for key, p in net.named_parameters():
            largest[key] = torch.maximum(largest[key], p.grad.abs())
    for hook in hooks:
        hook.remove()
    limit = 1e-9 * max(g.max() for g in largest.values())
    rows = {id(m.weight): met for m, met in seen.items()}
    for key, p in net.named_parameters():
        found = largest[key][rows[id(p)]] if id(p) in rows else largest[key]
        assert found.numel() and found.min() > limit, (
            key,
            (largest[key] <= limit).nonzero().tolist(),
        )


@EVERY
def test_float32_follows_float64(name):
    case = CASES[name]
    inputs = case.draw(SIZES, 0)
    exact = case.call(network(case), inputs)
    single = case.call(network(case, torch.float32), cast(inputs, torch.float32))
    for key, value in exact.items():
        assert (single[key] - value).abs().max() < 1e-4 * value.abs().max()


@EVERY
def test_mixed_precision_follows_float32(name):
    """bfloat16 keeps 8 bits: a few per cent are lost, no more, and the gradients stay finite."""
    case = CASES[name]
    net, inputs = network(case, torch.float32), cast(case.draw(SIZES, 0), torch.float32)
    full = case.call(net, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = case.call(net, inputs)
        loss({k: v.float() for k, v in mixed.items()}).backward()
    for key in full:
        assert 0 < (mixed[key] - full[key]).norm() / full[key].norm() < 0.05
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", [n for n in CASES if n != "ResidueTransformer-3"])
def test_is_one_graph_for_the_compiler(name):
    case = CASES[name]
    net, inputs = network(case, torch.float32), cast(case.draw(SIZES, 0), torch.float32)
    whole = torch.compile(net, fullgraph=True, backend="eager")  # traces; generates no code
    if isinstance(net, ResidueTransformer):
        whole.atoms = net.atoms
    close(case.call(whole, inputs), case.call(net, inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@EVERY
def test_same_on_cuda(name):
    case = CASES[name]
    inputs = case.draw(SIZES, 0)
    there = case.call(network(case).cuda(), {k: v.cuda() for k, v in inputs.items()})
    here = case.call(network(case), inputs)
    close({k: v.cpu() for k, v in there.items()}, here, rtol=1e-8, atol=1e-10)
