"""A network over many molecules: the equivariant layers of ``EGNN`` with a graph encoder and given
handedness.

Nature draws both hands alike, so with the handedness of every centre *given*, the right answer is
equivariant under reflections too, if the given signs flip with the points. The network is built so:
the layers know no cross products, and handedness enters through the signed volume of the neighbours
of each centre, ordered so that it is positive in the molecule that is wanted, and through the
gradient of that volume, the direction in which each neighbour has to move. Both are even under a
reflection that also swaps two neighbours in the list. The sides of double bonds are even anyway and
enter as features of pairs.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from orbitwise.networks.embedding import (
    BOND_ORDERS,
    SPECIES,
    Labels,
    RadialBasis,
    TimeFeatures,
    bonds_within,
    remove_mean,
)
from orbitwise.networks.points.egnn import SOFTENING, EquivariantLayer

CHARGES = 7  # -3 … +3


class MoleculeLabels(Labels, Protocol):
    """What this network reads of a batch beside species, bonds and mask; each may be missing and
    counts as none."""

    charge: Tensor  # (B, N) long
    pairs: Tensor  # (B, N, N) long, one bit for each property
    corners: Tensor  # (B, C, 4) long, -1 where there is none
    centres: Tensor  # (B, C) long


def _label(batch: Labels, name: str, *shape: int, fill: int = 0) -> Tensor:
    found = getattr(batch, name, None)
    return batch.species.new_full((len(batch.species), *shape), fill) if found is None else found


class GraphEncoder(nn.Module):
    """Atoms and pairs of the molecular graph, without coordinates: ``rounds`` of sums over bonded
    neighbours.

    Returns ``nodes (B, N, features)`` and ``pairs (B, N, N, pair_features)``: bond order, distance
    along bonds up to ``longest``, and the given properties of pairs.
    """

    def __init__(self, features: int, marks: int, rounds: int = 3, longest: int = 4) -> None:
        super().__init__()
        self.longest, self.marks = longest, marks
        self.pair_features = BOND_ORDERS + longest + marks
        self.species = nn.Embedding(SPECIES, features)
        self.charge = nn.Embedding(CHARGES, features)
        self.counts = nn.Linear(BOND_ORDERS + marks, features, bias=False)
        self.rounds = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(3 * features),
                nn.Linear(3 * features, features),
                nn.SiLU(),
                nn.Linear(features, features),
            )
            for _ in range(rounds)
        )
        self.bond = nn.ModuleList(
            nn.Linear(BOND_ORDERS, features, bias=False) for _ in range(rounds)
        )

    def forward(self, batch: MoleculeLabels) -> tuple[Tensor, Tensor]:
        real = batch.mask[:, None] & batch.mask[..., None]
        dtype, n = self.counts.weight.dtype, batch.mask.shape[1]
        charge, pairs = _label(batch, "charge", n), _label(batch, "pairs", n, n)
        orders = torch.arange(1, BOND_ORDERS + 1, device=real.device)
        order = ((batch.bonds * real)[..., None] == orders).to(dtype)
        bits = torch.arange(self.marks, device=real.device)
        marks = ((pairs * real)[..., None] >> bits & 1).to(dtype)
        shells = bonds_within(batch.bonds * real, self.longest, dtype)
        own = torch.cat([order.sum(-2), marks.amax(-2)], -1)
        h = self.species(batch.species) + self.charge(charge.clamp(-3, 3) + 3) + self.counts(own)
        h = h * batch.mask[..., None]
        second = shells[:, 1]
        for bond, update in zip(self.bond, self.rounds, strict=True):
            near = torch.einsum("bijo,bjo...->bi...", order, h[:, :, None] * bond.weight.T)
            h = h + update(torch.cat([h, near, second @ h], -1)) * batch.mask[..., None]
        return h, torch.cat([order, shells.movedim(1, -1), marks], -1)


def handed_volumes(x: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """Signed volumes of four corners and their gradients, both made dimensionless.

    ``x: (B, N, 3)``, ``corners: (B, C, 4)`` (-1: none) -> ``(B, C)`` in [-1, 1] and ``(B, N, 3)``,
    for each atom the sum over the corners it is of ``∇ det(x_0 - x_3, x_1 - x_3, x_2 - x_3)`` over
    the squared size.
    """
    there = corners >= 0
    at = corners.clamp(min=0).flatten(1)[..., None].expand(-1, -1, 3)
    p = x.gather(1, at).unflatten(1, corners.shape[1:])  # (B, C, 4, 3)
    a, b, c = (p[:, :, k] - p[:, :, 3] for k in range(3))
    slopes = [torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)]
    size = (p - p.mean(2, keepdim=True)).square().sum((-2, -1))[..., None] * (
        2 / 3
    ) + SOFTENING  # of all four alike
    volume = (a * slopes[0]).sum(-1) * size[..., 0] ** -1.5 * there[..., 0]
    slopes = torch.stack([*slopes, -sum(slopes)], 2) / size[:, :, None] * there[..., None]
    return volume, torch.zeros_like(x).scatter_add(1, at, slopes.flatten(1, 2).to(x.dtype))


class MoleculeNetwork(nn.Module):
    """``net(x, t, batch) -> (B, N, 3)`` for a batch of different molecules
    (``data.molecule_batch.MoleculeBatch``).

    Arguments as of ``EGNN``; ``marks``: number of properties of pairs; ``unit``: what ``x`` is
    multiplied by first, so that a bond is of order one. Turns with ``x``, permutes with the atoms,
    is zero at padded atoms, and is reflected with ``x`` when the handedness in the batch is
    reversed too. ``zero_com=True`` also removes the mean.
    """

    def __init__(
        self,
        hidden: int = 64,
        layers: int = 4,
        pair: int = 16,
        vectors: int = 16,
        heads: int = 8,
        radial: int = 16,
        times: int = 32,
        marks: int = 8,
        unit: float = 1.0,
        zero_com: bool = True,
    ) -> None:
        super().__init__()
        if hidden % heads or vectors % heads:
            raise ValueError(
                f"hidden ({hidden}) and vectors ({vectors}) must be multiples of heads ({heads})"
            )
        self.zero_com, self.unit = zero_com, unit
        self.graph = GraphEncoder(hidden, marks)
        self.radial = RadialBasis(radial)
        self.time = TimeFeatures(times)
        self.start = nn.Parameter(torch.randn(2, vectors))
        self.hand = nn.Sequential(nn.Linear(2, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        inputs = radial + self.graph.pair_features
        self.layers = nn.ModuleList(
            EquivariantLayer(
                hidden=hidden,
                pair=pair,
                pair_inputs=inputs,
                vectors=vectors,
                heads=heads,
                times=times,
                chiral=False,
            )
            for _ in range(layers)
        )
        self.gate = nn.Linear(hidden, vectors)
        self.readout = nn.Linear(vectors, 1, bias=False)

    def forward(self, x: Tensor, t: Tensor, batch: MoleculeLabels) -> Tensor:
        x = self.unit * x.masked_fill(~batch.mask[..., None], 0)
        h, bonds = self.graph(batch)
        difference = x[:, None] - x[:, :, None]  # from i to j
        square = difference.square().sum(-1, keepdim=True)
        pairs = torch.cat([self.radial((square + 1e-6).sqrt()[..., 0]), bonds], -1)
        eye = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        others = (batch.mask[:, None] & batch.mask[..., None] & ~eye).to(x.dtype)[..., None]
        # two ways to weigh the others: all alike, and those one or two bonds away
        near = bonds[..., BOND_ORDERS, None] + 0.5 * bonds[..., BOND_ORDERS + 1, None]
        every = others / batch.mask.sum(-1).clamp(min=1)[:, None, None, None].to(x.dtype).sqrt()
        weights = torch.cat([every, others * near], -1)[..., None, :]
        unit = (difference * torch.rsqrt(square + SOFTENING))[..., None]
        directions = torch.cat([weights, unit * weights], -2).flatten(-2).transpose(-1, -2)
        volume, slopes = handed_volumes(x, _label(batch, "corners", 1, 4, fill=-1))
        h = h + self._handed(volume, _label(batch, "centres", 1, fill=-1), h)
        v = (
            remove_mean(x, batch.mask)[..., None] * self.start[0]
            + slopes[..., None] * self.start[1]
        )
        time = self.time(t)
        for layer in self.layers:
            h, v = layer(h, v, pairs, directions, time)
        out = self.readout(v * self.gate(h)[:, :, None])[..., 0]
        return remove_mean(out, batch.mask) if self.zero_com else out * batch.mask[..., None]

    def _handed(self, volume: Tensor, centres: Tensor, h: Tensor) -> Tensor:
        """What each centre knows of its volume, put beside its other features, ``(B, N,
        hidden)``."""
        there = centres >= 0
        known = self.hand(torch.stack([volume, there.to(volume.dtype)], -1)) * there[..., None]
        at = centres.clamp(min=0)[..., None].expand_as(known)
        return torch.zeros_like(h).scatter_add(1, at, known.to(h.dtype))
