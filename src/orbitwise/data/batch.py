"""A batch of labelled point sets: what networks and objectives read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class PointBatch:
    """Padded point sets.

    ``x: (B, N, 3)`` positions, ``species: (B, N)`` atomic numbers (0 = padding), ``bonds: (B, N,
    N)`` bond orders (0 none, 1, 2, 3, 4 = aromatic), ``mask: (B, N)`` True where a point is real.
    """

    x: Tensor
    species: Tensor
    bonds: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return self.x.shape[0]

    def __getitem__(self, index: Tensor | slice) -> PointBatch:
        return PointBatch(self.x[index], self.species[index], self.bonds[index], self.mask[index])

    def to(self, device: torch.device | str) -> PointBatch:
        return PointBatch(*(v.to(device) for v in (self.x, self.species, self.bonds, self.mask)))

    def with_x(self, x: Tensor) -> PointBatch:
        """The same labels at other positions."""
        return replace(self, x=x)
