"""Every network of the package, found by discovery, keeps the contract ``net(x, t, batch) -> (B, N,
3)``."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

import orbitwise.molecules
import orbitwise.networks
from discovery import classes
from orbitwise.data.batch import PointBatch
from orbitwise.groups.item_permutations import ItemPermutations
from orbitwise.molecules.batch import MoleculeBatch

# a small instance of every network; a network without one fails test_every_network_has_an_instance
INSTANCES = {
    "EGNN": {
        "hidden": 16,
        "layers": 2,
        "pair": 12,
        "vectors": 8,
        "heads": 4,
        "radial": 8,
        "times": 8,
    },
    "MoleculeNetwork": {
        "hidden": 16,
        "layers": 2,
        "pair": 12,
        "vectors": 8,
        "heads": 4,
        "radial": 8,
        "times": 8,
    },
    "PairNetwork": {"hidden": 16, "layers": 2, "pair": 8, "radial": 8, "times": 8},
    "PointTransformer": {"hidden": 16, "layers": 2, "heads": 4, "waves": 8, "times": 8},
}


def parameters(network: type[nn.Module]) -> list[str]:
    return list(inspect.signature(network.forward).parameters)[1:]


def discover() -> dict[str, type[nn.Module]]:
    parts = [c for c in classes() if not c.__module__.startswith("orbitwise.methods")]
    modules = [c for c in parts if issubclass(c, nn.Module)]
    return {c.__name__: c for c in modules if parameters(c) == ["x", "t", "batch"]}


NETWORKS = discover()


def build(name: str, dtype: torch.dtype = torch.float64, **changes) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return NETWORKS[name](**{**INSTANCES[name], **changes}).to(dtype)


def random_batch(sizes=(7, 4, 1), dtype=torch.float64, seed=0) -> PointBatch:
    g = torch.Generator().manual_seed(seed)
    b, n = len(sizes), max(sizes)
    mask = torch.arange(n) < torch.tensor(sizes)[:, None]
    upper = torch.randint(0, 12, (b, n, n), generator=g).triu(1)
    upper = torch.where(upper < 5, upper, 0) * mask[:, None] * mask[:, :, None]
    species = torch.randint(1, 18, (b, n), generator=g) * mask
    x = torch.randn(b, n, 3, generator=g, dtype=torch.float64) * mask[..., None]
    return PointBatch(x.to(dtype), species, upper + upper.mT, mask)


def labelled(batch: PointBatch) -> MoleculeBatch:
    """The same with charges, properties of pairs and handedness, for networks that read them."""
    b, n = batch.mask.shape
    g = torch.Generator().manual_seed(4)
    corners = torch.rand(b, 2, n, generator=g).argsort(-1)[..., :4]
    corners = torch.where((batch.mask.sum(-1) > 4)[:, None, None], corners, -1)
    renamings = ItemPermutations(
        torch.arange(n).expand(1, b, n), torch.ones(1, b, dtype=torch.bool)
    )
    return MoleculeBatch(
        batch.x,
        batch.species,
        batch.bonds,
        batch.mask,
        torch.randint(-1, 2, (b, n), generator=g),
        torch.randint(0, 256, (b, n, n), generator=g),
        corners,
        corners[..., 0],
        renamings,
    )


def test_every_network_has_an_instance_and_is_exported():
    assert set(NETWORKS) == set(INSTANCES)
    assert set(NETWORKS) <= {*orbitwise.networks.__all__, *orbitwise.molecules.__all__}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_shape_dtype_centre_and_padding(name, dtype):
    batch = random_batch(dtype=dtype)
    y = build(name, dtype)(batch.x, torch.tensor([0.1, 0.5, 0.9], dtype=dtype), batch)
    assert y.shape == batch.x.shape and y.dtype == dtype
    assert y[~batch.mask].abs().max() == 0
    assert y.sum(1).abs().max() < (1e-5 if dtype == torch.float32 else 1e-13)
    assert y[:2].abs().max() > 1e-3
    free = build(name, dtype, zero_com=False)(batch.x, torch.full((3,), 0.5, dtype=dtype), batch)
    assert free[~batch.mask].abs().max() == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_changes_nothing(name):
    batch, net = random_batch(), build(name)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    y = net(batch.x, t, batch)
    for i, n in enumerate(batch.mask.sum(1).tolist()):
        alone = PointBatch(
            batch.x[i : i + 1, :n],
            batch.species[i : i + 1, :n],
            batch.bonds[i : i + 1, :n, :n],
            batch.mask[i : i + 1, :n],
        )
        torch.testing.assert_close(
            net(alone.x, t[i : i + 1], alone)[0], y[i, :n], rtol=1e-10, atol=1e-12
        )
    dirty = PointBatch(
        batch.x.masked_fill(~batch.mask[..., None], float("nan")),
        batch.species.masked_fill(~batch.mask, 6),
        batch.bonds.masked_fill(~(batch.mask[:, None] & batch.mask[..., None]), 1),
        batch.mask,
    )
    torch.testing.assert_close(net(dirty.x, t, dirty), y, rtol=0, atol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_permutes_with_the_atoms(name):
    batch, net = random_batch(sizes=(6, 6)), build(name)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    moved = PointBatch(
        batch.x[:, order],
        batch.species[:, order],
        batch.bonds[:, order][:, :, order],
        batch.mask[:, order],
    )
    t = torch.tensor([0.3, 0.7], dtype=torch.float64)
    y = net(batch.x, t, batch)
    torch.testing.assert_close(net(moved.x, t, moved), y[:, order], rtol=1e-10, atol=1e-12)
    assert (y[:, order] - y).abs().max() > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_reads_every_input(name):
    batch, net = random_batch(sizes=(6,)), build(name)
    t = torch.tensor([0.5], dtype=torch.float64)
    y = net(batch.x, t, batch)
    others = [
        net(batch.x * 1.1, t, batch),
        net(batch.x, t + 0.2, batch),
        net(batch.x, t, PointBatch(batch.x, batch.species.roll(1, 1), batch.bonds, batch.mask)),
        net(
            batch.x,
            t,
            PointBatch(batch.x, batch.species, torch.zeros_like(batch.bonds), batch.mask),
        ),
    ]
    for other in others:
        assert (other - y).abs().max() > 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_finite_and_reach_every_parameter(name, dtype):
    batch = labelled(random_batch(dtype=dtype))
    x = batch.x.clone()
    x[0, 1] = x[0, 0]  # two atoms in one place
    x[1] = 0  # all of them
    x = (x * 3).requires_grad_()
    net = build(name, dtype)
    for t in (torch.zeros(3), torch.ones(3), torch.full((3,), 0.4)):
        net.zero_grad()
        net(x, t.to(dtype), batch).square().sum().backward()
        assert x.grad.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        largest = max(p.grad.abs().max() for p in net.parameters())
        for (
            key,
            p,
        ) in net.named_parameters():  # more than rounding leaves of a parameter without effect
            assert p.grad.abs().max() > 100 * torch.finfo(dtype).eps * largest, key


@pytest.mark.parametrize("name", NETWORKS)
def test_float32_follows_float64(name):
    batch = random_batch()
    t = torch.tensor([0.01, 0.5, 0.99], dtype=torch.float64)
    exact = build(name)(batch.x, t, batch)
    single = build(name, torch.float32)(batch.x.float(), t.float(), batch)
    assert (single - exact).abs().max() < 1e-4 * exact.abs().max()


@pytest.mark.parametrize("name", NETWORKS)
def test_mixed_precision_follows_float32(name):
    """bfloat16 keeps 8 bits: a few per cent are lost, no more, and the gradients stay finite."""
    batch, net = random_batch(dtype=torch.float32), build(name, torch.float32)
    t = torch.tensor([0.1, 0.5, 0.9])
    full = net(batch.x, t, batch)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(batch.x, t, batch)
        mixed.square().sum().backward()
    assert 0 < (mixed - full).norm() / full.norm() < 0.05
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_is_one_graph_for_the_compiler(name):
    batch = random_batch(dtype=torch.float32)
    net = build(name, torch.float32)
    t = torch.tensor([0.1, 0.5, 0.9])
    compiled = torch.compile(net, fullgraph=True, backend="eager")  # traces; generates no code
    torch.testing.assert_close(
        compiled(batch.x, t, batch), net(batch.x, t, batch), rtol=1e-5, atol=1e-6
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NETWORKS)
def test_same_on_cuda(name):
    batch = random_batch()
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    here, there = build(name), build(name).cuda()
    y = there(batch.x.cuda(), t.cuda(), batch.to("cuda"))
    torch.testing.assert_close(y.cpu(), here(batch.x, t, batch), rtol=1e-9, atol=1e-11)
