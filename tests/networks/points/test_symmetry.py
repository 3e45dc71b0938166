"""Which symmetries the networks have, and which they must not have."""

from __future__ import annotations

import pytest
import roma
import torch
from scipy.sparse.csgraph import shortest_path

from orbitwise.data.batch import PointBatch
from orbitwise.networks import EGNN, PointTransformer
from orbitwise.networks.embedding import RadialBasis, TimeFeatures, bonds_within


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return build()


def ring(dtype, b=6, n=8) -> PointBatch:
    """Random points bonded into a ring with a tail, last atom padded in half of the batch."""
    g = torch.Generator().manual_seed(4)
    bonds = torch.zeros(b, n, n, dtype=torch.long)
    for i in range(n - 1):
        bonds[:, i, i + 1] = bonds[:, i + 1, i] = 1 + i % 4
    mask = torch.ones(b, n, dtype=torch.bool)
    mask[b // 2 :, -1] = False
    x = torch.randn(b, n, 3, generator=g, dtype=torch.float64)
    return PointBatch(x.to(dtype), torch.randint(1, 9, (b, n), generator=g), bonds, mask)


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("chiral", [True, False])
def test_egnn_turns_with_the_input_and_ignores_its_place(chiral, dtype, tolerance):
    batch, net = ring(dtype), seeded(lambda: EGNN(chiral=chiral)).to(dtype)
    t = torch.linspace(0.05, 0.95, 6, dtype=dtype)
    rotation = roma.unitquat_to_rotmat(
        torch.nn.functional.normalize(
            torch.randn(6, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64),
            dim=-1,
        )
    ).to(dtype)
    y = net(batch.x, t, batch)
    assert relative(net(batch.x @ rotation.mT, t, batch), y @ rotation.mT) < tolerance
    shift = torch.tensor([3.0, -2.0, 1.0], dtype=dtype)
    assert relative(net(batch.x + shift, t, batch), y) < tolerance
    assert relative(y @ rotation.mT, y) > 0.1  # the rotation is not a trivial one


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_reflections(dtype, tolerance):
    batch = ring(dtype)
    t = torch.linspace(0.05, 0.95, 6, dtype=dtype)
    mirror = torch.tensor([1.0, 1.0, -1.0], dtype=dtype)
    plain = seeded(lambda: EGNN(chiral=False)).to(dtype)
    assert (
        relative(plain(batch.x * mirror, t, batch), plain(batch.x, t, batch) * mirror) < tolerance
    )
    handed = seeded(lambda: EGNN(chiral=True)).to(dtype)
    assert relative(handed(batch.x * mirror, t, batch), handed(batch.x, t, batch) * mirror) > 1e-2


def test_points_of_a_plane_turn_and_reflect_in_it():
    batch, net = ring(torch.float64), seeded(lambda: EGNN(chiral=False)).to(torch.float64)
    x, t = batch.x[..., :2].contiguous(), torch.linspace(0.05, 0.95, 6, dtype=torch.float64)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    y = net(x, t, batch)
    assert y.shape == x.shape
    for g in (turn, turn * torch.tensor([1.0, -1.0])):
        assert relative(net(x @ g.mT, t, batch), y @ g.mT) < 1e-12
        assert relative(y @ g.mT, y) > 0.1


def test_chiral_network_learns_a_hand_that_the_other_cannot():
    """Regress x·sign(triple product of three bonds), which is +x for one hand and -x for the other.

    An O(3)-equivariant network must answer a mirror image with the mirror image, so with hands in
    equal parts its best answer is 0 and its relative loss 1.
    """
    g = torch.Generator().manual_seed(0)
    x = torch.randn(256, 5, 3, generator=g)
    x = x - x.mean(1, keepdim=True)
    arms = x[:, 1:4] - x[:, :1]
    hand = torch.linalg.det(arms).sign()
    bonds = torch.zeros(256, 5, 5, dtype=torch.long)
    bonds[:, 0, 1:] = bonds[:, 1:, 0] = 1
    batch = PointBatch(
        x,
        torch.tensor([6, 1, 8, 9, 17]).expand(256, 5),
        bonds,
        torch.ones(256, 5, dtype=torch.bool),
    )
    target, t = hand[:, None, None] * x, torch.full((256,), 0.5)
    losses = {}
    for chiral in (True, False):
        net = seeded(lambda c=chiral: EGNN(hidden=32, layers=2, pair=16, vectors=16, chiral=c))
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(60):
            loss = (net(x, t, batch) - target).square().mean() / target.square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[chiral] = loss.item()
    assert losses[False] > 0.85
    assert losses[True] < 0.6


def test_transformer_has_no_rotation_symmetry_of_its_own():
    batch, net = ring(torch.float64), seeded(PointTransformer).double()
    t = torch.full((6,), 0.5, dtype=torch.float64)
    quarter = torch.tensor(
        [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64
    )
    y = net(batch.x, t, batch)
    assert relative(net(batch.x @ quarter.T, t, batch), y @ quarter.T) > 0.05


def test_the_two_defaults_are_of_equal_size():
    sizes = [sum(p.numel() for p in net.parameters()) for net in (EGNN(), PointTransformer())]
    assert max(sizes) / min(sizes) < 1.1
    assert 150_000 < min(sizes) < 400_000


def test_bonds_within_against_shortest_paths():
    g = torch.Generator().manual_seed(6)
    upper = (torch.rand(5, 12, 12, generator=g) < 0.14).long().triu(1)
    bonds = upper + upper.mT
    shells = bonds_within(bonds, 4, torch.float32)
    for one, shell in zip(bonds, shells, strict=True):
        steps = torch.as_tensor(shortest_path(one.numpy(), unweighted=True))
        for k in range(4):
            assert torch.equal(shell[k].bool(), steps == k + 1)
    assert (shells.sum((0, 2, 3)) > 0).all()


def test_features_are_finite_everywhere_and_tell_times_and_distances_apart():
    radial = RadialBasis(32)
    d = torch.tensor([0.0, 0.5, 0.55, 1.0, 3.0, 1e4])
    assert radial(d).isfinite().all()
    assert (radial(d[1:2]) - radial(d[2:3])).abs().max() > 0.1
    time = seeded(lambda: TimeFeatures(16))
    t = torch.tensor([0.0, 1e-3, 0.5, 0.999, 1.0])
    features = time(t)
    assert features.isfinite().all()
    assert torch.cdist(features, features).fill_diagonal_(1).min() > 0.02
