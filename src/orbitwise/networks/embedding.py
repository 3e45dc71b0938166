"""What every network reads besides coordinates: time, atom types, bonds, and distances as smooth
features."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

SPECIES = 119  # atomic numbers 1..118; 0 is padding
BOND_ORDERS = 4  # single, double, triple, aromatic


class Labels(Protocol):
    """The part of a batch that networks read: everything but the positions."""

    species: Tensor  # (B, N) long, atomic numbers
    bonds: Tensor  # (B, N, N) long, 0 none, 1, 2, 3, 4 = aromatic
    mask: Tensor  # (B, N) bool, True = real atom


class TimeFeatures(nn.Module):
    """Smooth features of a time in [0, 1], resolved finely at both ends, where noise levels change
    fastest.

    ``t: (B,)`` -> ``(B, features)``.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.waves = nn.Buffer(math.pi * torch.arange(1, 7), persistent=False)
        self.embed = nn.Sequential(
            nn.Linear(15, features), nn.SiLU(), nn.Linear(features, features)
        )

    def forward(self, t: Tensor) -> Tensor:
        t = t.to(self.embed[0].weight.dtype)[..., None]
        ends = torch.cat(
            [t, torch.log(t.clamp(min=0) + 1e-3), torch.log((1 - t).clamp(min=0) + 1e-3)], -1
        )
        phase = t * self.waves.to(t.dtype)
        return self.embed(torch.cat([ends, phase.sin(), phase.cos()], -1))


class RadialBasis(nn.Module):
    """Gaussians in ``exp(-d)``: dense at bonding distances, sparse far away.

    PhysNet (arXiv 1902.08408), eq. 7. ``distance: (...)`` -> ``(..., count)``, in units where a
    bond is of order one.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.centres = nn.Buffer(torch.linspace(0.0, 1.0, count), persistent=False)
        self.sharpness = (count - 1) ** 2 / 2.0  # neighbouring Gaussians meet at exp(-1/8)

    def forward(self, distance: Tensor) -> Tensor:
        offset = torch.exp(-distance)[..., None] - self.centres.to(distance.dtype)
        return torch.exp(-self.sharpness * offset.square())


def bonds_within(bonds: Tensor, longest: int, dtype: torch.dtype) -> Tensor:
    """Which pairs are exactly 1..longest bonds apart: ``(B, N, N)`` -> ``(B, longest, N, N)`` of 0
    and 1."""
    adjacent = (bonds > 0).to(dtype)
    seen = torch.eye(bonds.shape[-1], dtype=dtype, device=bonds.device).expand_as(adjacent)
    front, shells = adjacent, []
    for _ in range(longest):
        front = ((front > 0) & (seen == 0)).to(dtype)
        shells.append(front)
        seen = seen + front
        front = front @ adjacent
    return torch.stack(shells, -3)


class GraphFeatures(nn.Module):
    """Atom and pair features of the molecular graph, computed once per call.

    Padded atoms are left out, whatever their labels say. Returns ``nodes (B, N, features)``: the
    atom's element with the elements found 1..longest bonds away, and ``pairs (B, N, N,
    pair_features)``: bond order and distance along bonds, one-hot, without parameters.
    """

    def __init__(self, features: int, longest: int = 4, width: int = 32) -> None:
        super().__init__()
        self.longest = longest
        self.pair_features = BOND_ORDERS + longest
        self.species = nn.Embedding(SPECIES, width)
        inputs = width * (1 + longest) + BOND_ORDERS
        self.embed = nn.Sequential(
            nn.Linear(inputs, features), nn.SiLU(), nn.Linear(features, features)
        )

    def forward(self, batch: Labels) -> tuple[Tensor, Tensor]:
        atoms = self.species(batch.species) * batch.mask[..., None]
        bonds = batch.bonds * (batch.mask[:, None] & batch.mask[..., None])
        orders = torch.arange(1, BOND_ORDERS + 1, device=bonds.device)
        order = (bonds[..., None] == orders).to(atoms.dtype)
        shells = bonds_within(bonds, self.longest, atoms.dtype)
        around = (shells @ atoms[:, None]).movedim(1, 2).flatten(2)
        nodes = self.embed(torch.cat([atoms, around, order.sum(-2)], -1))
        return nodes, torch.cat([order, shells.movedim(1, -1)], -1)

    def near(self, pairs: Tensor, square: Tensor) -> Tensor:
        """How close two atoms are, ``(B, N, N, 1)``: 1 if bonded, one half if two bonds apart."""
        return (
            pairs[..., BOND_ORDERS : BOND_ORDERS + 1]
            + 0.5 * pairs[..., BOND_ORDERS + 1 : BOND_ORDERS + 2]
        )


class IdenticalParticles(nn.Module):
    """The same, for particles that differ in nothing but their positions."""

    pair_features = 0

    def __init__(self, features: int) -> None:
        super().__init__()
        self.node = nn.Parameter(torch.randn(features))

    def forward(self, batch: Labels) -> tuple[Tensor, Tensor]:
        mask = batch.mask
        return self.node * mask[..., None], self.node.new_zeros(*mask.shape, mask.shape[-1], 0)

    def near(self, pairs: Tensor, square: Tensor) -> Tensor:
        """Smooth in the squared distance ``square: (B, N, N, 1)``."""
        return torch.exp(-square)


def remove_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Zero the centre of mass of the real atoms (equal weights) and every padded row. ``x: (B, N,
    3)``."""
    weight = mask[..., None].to(x.dtype)
    mean = (x * weight).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True).clamp(min=1)
    return (x - mean) * weight
