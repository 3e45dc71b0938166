"""Rotations of voxel grids: the 24 that carry a cubic grid onto itself, exactly; all others by
interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from orbitwise.errors import InputError
from orbitwise.groups.base import Device, Group, Kind
from orbitwise.groups.finite import Finite
from orbitwise.groups.polyhedral import octahedral


class VoxelRotations(Group):
    """The 24 rotations of the cube acting on scalar fields on a cubic grid: ``(g·f)(r) = f(R⁻¹
    r)``.

    Grids are ``(*B, C, n, n, n)``: C fields, and the axes x, y, z of space in this order, centred
    on the grid's middle. The action renames voxels, so it is exact. An element is the index of its
    matrix in ``groups.polyhedral.octahedral()``, a ``long`` tensor ``(*S)``; ``matrices(g)`` are
    the rotations ``(*S, 3, 3)`` that act on positions as ``x -> x @ R.mT``, such that fields made
    from turned positions are turned fields.
    >>> import torch
    >>> import orbitwise as ow
    >>> group = ow.VoxelRotations()
    >>> grid = torch.arange(8.0).reshape(1, 2, 2, 2)
    >>> g, log_haar = group.enumerate()
    >>> turned = group.act(g, grid)
    >>> turned.shape, turned.sum((1, 2, 3, 4)).unique().item()
    (torch.Size([24, 1, 2, 2, 2]), 28.0)
    """

    element_ndim = 0
    axis = "space"
    event_ndim = 4

    @property
    def finite(self) -> bool:
        return True

    def matrices(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The rotations ``(*S, 3, 3)`` of elements ``(*S)``."""
        return _rotations().matrices.to(g.device, dtype or torch.get_default_dtype())[g]

    def enumerate(
        self, *, device: Device = None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """The 24 indices and the log Haar weights ``-log 24``."""
        return _rotations().enumerate(device=device, dtype=dtype)

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Uniform elements: indices ``(*shape)``; ``dtype`` is not used."""
        return _rotations().sample(shape, generator=generator, device=device)

    def identity(
        self, shape: Sequence[int] = (), *, device: Device = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        return _rotations().identity(shape, device=device)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return _rotations().compose(g, h)

    def inverse(self, g: Tensor) -> Tensor:
        return _rotations().inverse(g)

    def act(self, g: Tensor, x: Tensor, mask: Tensor | None = None, kind: Kind = "point") -> Tensor:
        """``g·x``. ``x: (*B, C, n, n, n)``; ``mask: (*B, C)``, True = real channel, the others stay
        as they are. Scalar fields turn alike, whatever ``kind`` says. Raises ``InputError`` for
        another shape."""
        n = _side(x)
        batch = torch.broadcast_shapes(g.shape, x.shape[:-4])
        source = _sources(n, x.device)[g][..., None, :].expand(*batch, x.shape[-4], n**3)
        field = x.expand(*batch, *x.shape[-4:])
        moved = field.flatten(-3).gather(-1, source).unflatten(-1, (n, n, n))
        return moved if mask is None else torch.where(mask[..., None, None, None], moved, field)

    def __repr__(self) -> str:
        return "VoxelRotations()"


def rotate_grid(rotation: Tensor, x: Tensor) -> Tensor:
    """Grids turned by any rotation: ``f(R⁻¹ r)`` at every voxel, interpolated trilinearly, 0
    outside of the grid.

    ``rotation: (*S, 3, 3)``, ``x: (*B, C, n, n, n)`` -> ``(*S ∨ *B, C, n, n, n)``, broadcast from
    the right as by ``Group.act``. This is no group action: turning and turning back smooths, and it
    takes noise from noise (70 % of the variance of white noise). Exact for the 24 rotations of
    ``VoxelRotations``. Raises ``InputError`` for shapes that do not fit.
    """
    n = _side(x)
    if rotation.shape[-2:] != (3, 3):
        raise InputError(f"rotation matrices have shape (*S, 3, 3), not {tuple(rotation.shape)}")
    batch = torch.broadcast_shapes(rotation.shape[:-2], x.shape[:-4])
    line = (
        2 * torch.arange(n, device=x.device, dtype=x.dtype) + 1
    ) / n - 1  # voxel centres, edges at ±1
    r = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
    source = r @ rotation.to(x)  # rows times R: R⁻¹ r
    source = source.flip(-1).reshape(
        *rotation.shape[:-2], n, n, n, 3
    )  # grid_sample counts the last axis first
    source = source.expand(*batch, n, n, n, 3).reshape(-1, n, n, n, 3)
    field = x.expand(*batch, *x.shape[-4:]).reshape(-1, *x.shape[-4:])
    moved = grid_sample(field, source, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved.reshape(*batch, *x.shape[-4:])


def _side(x: Tensor) -> int:
    if x.ndim < 4 or len(set(x.shape[-3:])) > 1:
        raise InputError(f"grids have shape (*B, C, n, n, n), not {tuple(x.shape)}")
    return x.shape[-1]


@cache
def _rotations() -> Finite:
    return octahedral()


@cache
def _sources(n: int, device: torch.device) -> Tensor:
    """From which voxel each voxel takes its value, ``(24, n³)``: voxel r of g·f is voxel R⁻¹ r of
    f."""
    line = 2 * torch.arange(n) - (n - 1)  # twice the coordinates, from the middle: whole numbers
    r = torch.cartesian_prod(line, line, line)
    index = (r @ _rotations().matrices.round().long() + n - 1) // 2  # rows times R: R⁻¹ r
    return (index @ torch.tensor([n * n, n, 1])).to(device)
