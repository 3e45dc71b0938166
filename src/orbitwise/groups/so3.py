"""Rotations of space, without and with reflections."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from orbitwise.groups.base import Device, Group, Kind, turned, unrounded


def from_quaternion(q: Tensor) -> Tensor:
    """Rotation matrices ``(*S, 3, 3)`` of unit quaternions ``(*S, 4)``, in the order x, y, z, w."""
    x, y, z, w = q.unbind(-1)
    rows = [
        [x * x - y * y - z * z + w * w, 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), -x * x + y * y - z * z + w * w, 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), -x * x - y * y + z * z + w * w],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def uniform_quaternion(
    shape: Sequence[int],
    *,
    generator: torch.Generator | None = None,
    device: Device = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Uniform unit quaternions ``(*shape, 4)``, drawn where the generator lives: two angles, and
    how much of the whole each of their planes has (Shoemake, Uniform Random Rotations, in Graphics
    Gems III, 1992)."""
    where = device if generator is None else generator.device
    share, a, b = (
        torch.rand(tuple(shape), generator=generator, device=where, dtype=dtype) for _ in range(3)
    )
    first, second = (1 - share).sqrt(), share.sqrt()
    a, b = 2 * math.pi * a, 2 * math.pi * b
    q = torch.stack([first * a.sin(), first * a.cos(), second * b.sin(), second * b.cos()], -1)
    return q.to(device or q.device)


class SO3(Group):
    """Rotations about the origin. Elements are matrices ``(*S, 3, 3)`` acting as ``x -> x @ R.mT``
    (rows are points). Points and vectors turn alike.

    >>> import torch
    >>> import orbitwise as ow
    >>> rotation = ow.SO3().sample((), generator=torch.Generator().manual_seed(0))
    >>> x = torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]])
    >>> turned = ow.SO3().act(rotation, x)
    >>> round(torch.dist(*turned).item(), 4)  # distances stay
    5.0
    """

    element_ndim = 2
    axis = "space"

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Haar-distributed rotations ``(*shape, 3, 3)``, by ``uniform_quaternion``."""
        return from_quaternion(
            uniform_quaternion(shape, generator=generator, device=device, dtype=dtype)
        )

    def identity(
        self, shape: Sequence[int] = (), *, device: Device = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        return torch.eye(3, device=device, dtype=dtype).expand(*shape, 3, 3)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        with unrounded(g):
            return g @ h

    def inverse(self, g: Tensor) -> Tensor:
        return g.mT

    def act(self, g: Tensor, x: Tensor, mask: Tensor | None = None, kind: Kind = "point") -> Tensor:
        moved = turned(x, g)
        return moved if mask is None else torch.where(mask[..., None], moved, x)


class O3(SO3):
    """Rotations and rotoreflections about the origin: SO(3) and its coset ``-SO(3)``, half the
    measure each. Elements and action as for ``SO3``; vectors here are polar (velocities, forces,
    scores).

    >>> import torch
    >>> import orbitwise as ow
    >>> g = ow.O3().sample((6,), generator=torch.Generator().manual_seed(0))
    >>> torch.linalg.det(g).round().int().tolist()
    [1, -1, 1, -1, -1, 1]
    """

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Haar-distributed orthogonal matrices ``(*shape, 3, 3)``."""
        rotation = super().sample(shape, generator=generator, device=device, dtype=dtype)
        source = generator.device if generator is not None else rotation.device
        flip = torch.randint(0, 2, (*shape, 1, 1), generator=generator, device=source)
        return rotation * (1 - 2 * flip).to(rotation)
