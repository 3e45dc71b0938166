"""Molecules as densities on a voxel grid, one channel per element (VoxMol, arXiv 2306.07473, eqs. 1
and 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orbitwise.data.archive import Array, read_archive
from orbitwise.data.batch import PointBatch
from orbitwise.data.physical import check_distances
from orbitwise.errors import InputError
from orbitwise.groups.base import Group

_ARRAYS = {
    "offsets": Array("i", "K+1"),
    "atomic_numbers": Array("i", "M"),
    "positions": Array("f", "M 3"),
}
_NEAREST = 1e-6  # an atom's density stays this much below 1, where its logarithm would end


@dataclass(frozen=True)
class VoxelGrid:
    """A cubic grid about the origin: ``n`` voxels of ``spacing_angstrom`` along x, y and z, one
    channel per element.

    ``radius_angstrom`` of the atoms, the same for all elements. VoxMol takes 32 voxels of 0.25 Å
    and 0.5 Å; the defaults here are small, and coarser in about the same proportion. Raises
    ``InputError`` for sizes that are not positive and elements named twice.
    """

    n: int = 16
    spacing_angstrom: float = 0.6
    radius_angstrom: float = 1.0
    elements: tuple[int, ...] = (1, 6, 7, 8, 9)

    def __post_init__(self) -> None:
        if not (self.n > 0 and self.spacing_angstrom > 0 and self.radius_angstrom > 0):
            raise InputError(f"a voxel grid needs a side, a spacing and a radius above 0: {self}")
        if not self.elements or len(set(self.elements)) < len(self.elements):
            raise InputError(
                f"a voxel grid needs elements, each named once, not {self.elements}: one channel"
                " each"
            )

    @property
    def half_angstrom(self) -> float:
        """From the middle to a face."""
        return 0.5 * self.n * self.spacing_angstrom

    @property
    def width_angstrom(self) -> float:
        """At which an atom's density is 1/e: 0.93 radii."""
        return 0.93 * self.radius_angstrom

    @property
    def atom_norm(self) -> float:
        """Root of the sum of squares that one atom alone leaves on the grid, on average over its
        place: what its strength against noise is measured by."""
        return (self.width_angstrom * math.sqrt(math.pi / 2) / self.spacing_angstrom) ** 1.5

    def voxelise(self, batch: PointBatch) -> Tensor:
        """Densities ``(B, C, n, n, n)`` in [0, 1] of positions in Å: ``1 - Π_a (1 -
        exp(-d_a²/w²))`` over the atoms of an element, ``d`` from the voxel's centre. Differentiable
        in the positions.

        Raises ``InputError`` for an element that has no channel.
        """
        x = batch.x
        channels = batch.species[..., None] == torch.tensor(
            self.elements, device=x.device
        )  # (B, N, C)
        if not (channels.any(-1) | ~batch.mask).all():
            missing = sorted(set(batch.species[batch.mask & ~channels.any(-1)].tolist()))
            raise InputError(
                f"no channel for the elements {missing}; the grid has {self.elements}: name them in"
                " elements="
            )
        line = torch.arange(self.n, device=x.device, dtype=x.dtype) - (self.n - 1) / 2
        offset = (line * self.spacing_angstrom - x[..., None]) / self.width_angstrom  # (B, N, 3, n)
        a, b, c = torch.exp(-offset.square()).unbind(-2)
        near = (
            a[..., :, None, None] * b[..., None, :, None] * c[..., None, None, :]
        )  # (B, N, n, n, n)
        free = torch.log1p(-near.clamp(max=1 - _NEAREST)).flatten(2)
        weight = (channels & batch.mask[..., None]).to(x.dtype).mT
        return -torch.expm1(weight @ free).unflatten(-1, (self.n,) * 3)

    def fits(self, batch: PointBatch) -> Tensor:
        """Which molecules stay in the grid however they are turned and placed, ``(B,)``: farthest
        atom from the centre, the largest shift of ``place`` and one radius are within half a
        side."""
        far = torch.where(batch.mask, batch.x.norm(dim=-1), 0).amax(-1)
        return (
            far + math.sqrt(3) / 2 * self.spacing_angstrom + self.radius_angstrom
            <= self.half_angstrom
        )

    def place(
        self, batch: PointBatch, group: Group | None, generator: torch.Generator | None
    ) -> PointBatch:
        """The molecules turned by random elements of ``group`` (``SO3()``, ``octahedral()``; None:
        left as they are), then shifted by up to half a voxel along each axis. Positions move, so
        nothing is interpolated."""
        x = batch.x
        if group is not None:
            g = group.sample((len(x),), generator=generator, device=x.device, dtype=x.dtype)
            x = group.act(g, x, mask=batch.mask)
        source = generator.device if generator is not None else x.device
        shift = torch.rand(len(x), 1, 3, generator=generator, device=source, dtype=x.dtype) - 0.5
        shift = shift.to(x.device) * self.spacing_angstrom
        return batch.with_x(torch.where(batch.mask[..., None], x + shift, x))


def read_geometries(path: str | Path) -> PointBatch:
    """Molecules of an ``.npz`` file, one geometry each, the mean of the positions at the origin
    (Å).

    The file holds ``offsets: (M + 1,)``, ``atomic_numbers: (atoms,)`` and ``positions: (atoms, 3)``
    in Å, molecule k being the rows ``offsets[k]:offsets[k + 1]``. Bonds are not read. Raises
    ``InputError`` for a file that is missing or made otherwise.
    """
    path = Path(path)
    arrays = read_archive(path, _ARRAYS)
    offsets, numbers, positions = (arrays[k] for k in _ARRAYS)
    sizes = np.diff(offsets.astype(np.int64))
    if len(sizes) == 0 or sizes.min() < 1 or offsets[0] != 0 or offsets[-1] != len(numbers):
        raise InputError(f"{path}: offsets must rise from 0 to the number of atoms, {len(numbers)}")
    if not ((numbers >= 1) & (numbers <= 118)).all():
        raise InputError(f"{path}: atomic_numbers must be 1 to 118")
    for k, (a, b) in enumerate(pairwise(offsets.tolist()), 1):
        try:
            check_distances(positions[a:b].astype(np.float64))
        except InputError as error:
            raise InputError(f"{path}, molecule {k}: {error}") from None
    real = torch.arange(int(sizes.max())) < torch.from_numpy(sizes)[:, None]
    x = torch.zeros(*real.shape, 3)
    species = torch.zeros(real.shape, dtype=torch.long)
    x[real] = torch.from_numpy(positions.astype(np.float32))
    species[real] = torch.from_numpy(numbers.astype(np.int64))
    centre = x.sum(1, keepdim=True) / real.sum(1)[:, None, None]
    bonds = torch.zeros(*real.shape, real.shape[1], dtype=torch.long)
    return PointBatch(torch.where(real[..., None], x - centre, 0.0), species, bonds, real)
