"""The network over many molecules: symmetry with the handedness in the batch, and what it tells
apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from orbitwise.groups.so3 import SO3
from orbitwise.molecules.batch import Graph, Graphs, MoleculeBatch
from orbitwise.molecules.molecule import choose_isomer, embed, parse_smiles
from orbitwise.molecules.network import MoleculeNetwork, handed_volumes


def network(seed: int = 0) -> MoleculeNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MoleculeNetwork(
            hidden=16, layers=2, pair=8, vectors=8, heads=4, radial=8, times=8
        ).double()


@pytest.fixture(scope="module")
def batch() -> MoleculeBatch:
    graphs, frames = [], []
    for smiles in ("C[C@H](F)Cl", "C/C=C/CO", "CS(=O)CC"):
        mol = choose_isomer(parse_smiles(smiles))
        x = embed(mol, 1, 0)[0]
        graphs.append(Graph.of(mol, x))
        frames.append(x - x.mean(0))
    x = torch.zeros(3, max(map(len, frames)), 3, dtype=torch.float64)
    for k, frame in enumerate(frames):
        x[k, : len(frame)] = torch.from_numpy(frame)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = Graphs.of(graphs).batch(torch.arange(3), x)
    return batch.with_x((batch.x + 0.3 * noise) * batch.mask[..., None])


def opposite(batch: MoleculeBatch) -> MoleculeBatch:
    """The labels of the mirror images."""
    return replace(batch, corners=batch.corners[..., [1, 0, 2, 3]])


TIME = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)


def test_turns_with_the_points(batch):
    net, y = network(), network()(batch.x, TIME, batch)
    r = SO3().sample((3,), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(net(batch.x @ r.mT, TIME, batch), y @ r.mT, rtol=1e-10, atol=1e-12)


def test_is_reflected_when_the_handedness_is_reversed_too_and_not_otherwise(batch):
    net, y = network(), network()(batch.x, TIME, batch)
    torch.testing.assert_close(net(-batch.x, TIME, opposite(batch)), -y, rtol=1e-10, atol=1e-12)
    assert ((net(-batch.x, TIME, batch) + y).abs().amax((1, 2)) > 1e-3).all()
    assert ((net(batch.x, TIME, opposite(batch)) - y).abs().amax((1, 2)) > 1e-3).all()


def test_automorphisms_permute_the_answer(batch):
    net, y = network(), network()(batch.x, TIME, batch)
    g = batch.renamings.tables[-1]
    move = lambda v: v.gather(1, g[..., None].expand_as(v))  # noqa: E731
    assert (g != torch.arange(g.shape[-1])).any()
    torch.testing.assert_close(net(move(batch.x), TIME, batch), move(y), rtol=1e-10, atol=1e-12)


def test_charge_and_properties_of_pairs_are_read(batch):
    net, y = network(), network()(batch.x, TIME, batch)
    for other in (
        replace(batch, charge=batch.charge + 1),
        replace(batch, pairs=batch.pairs ^ 0b11000000),
    ):
        assert (net(batch.x, TIME, other) - y).abs().max() > 1e-4


def test_padding_changes_nothing(batch):
    net, y = network(), network()(batch.x, TIME, batch)
    for k in range(3):
        n = int(batch.mask[k].sum())
        c = int((batch.centres[k] >= 0).sum())
        alone = batch[k : k + 1].cut(n, c)
        torch.testing.assert_close(
            net(alone.x, TIME[k : k + 1], alone)[0], y[k, :n], rtol=1e-10, atol=1e-12
        )


def test_gradients_of_volumes_point_uphill(batch):
    x = batch.x.clone().requires_grad_()
    volume, slopes = handed_volumes(x, batch.corners)
    assert (volume[batch.centres >= 0] > 0).all() and volume.abs().max() <= 1
    p = x[0][batch.corners[0]]
    plain = torch.linalg.det(p[:, :3] - p[:, 3:])
    (up,) = torch.autograd.grad(plain[:1].sum(), x)
    first = torch.full_like(batch.corners, -1)
    first[0, 0] = batch.corners[0, 0]
    alone = handed_volumes(x, first)[1].detach()
    cosine = (alone * up).sum() / (alone.norm() * up.norm())
    assert float(cosine) == pytest.approx(1, abs=1e-9)
    assert (slopes[1, int(batch.mask[1].sum()) :] == 0).all()
    assert np.isfinite(slopes.detach().numpy()).all()
