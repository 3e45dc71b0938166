"""Rigid motions of residue frames."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.base import Device, Group, Kind, turned
from orbitwise.groups.so3 import SO3


class SE3(Group):
    """Rotations and translations of frames. Elements ``(*S, 3, 4)`` and frames ``(*B, N, 3, 4)``
    are both ``[R | T]``: a rotation matrix and an origin, as a rigid motion ``x -> R x + T``. An
    element moves a frame by ``[g R | g T + s]``; with ``kind="vector"``, velocities of frames, it
    turns the columns and does not move them. Raises ``InputError`` for other shapes.

    The translations have no normalised Haar measure: ``sample`` draws Haar rotations about the
    origin. Frames whose origins have zero mean need no more.
    >>> import torch
    >>> import orbitwise as ow
    >>> group = ow.SE3()
    >>> frames = torch.cat([torch.eye(3), torch.tensor([[1.0], [2.0], [3.0]])], -1)[None]
    >>> g = group.sample((), generator=torch.Generator().manual_seed(0))
    >>> torch.allclose(group.act(group.inverse(g), group.act(g, frames)), frames, atol=1e-6)
    True
    """

    element_ndim = 2
    axis = "space"
    event_ndim = 3

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        rotation = SO3().sample(shape, generator=generator, device=device, dtype=dtype)
        return rigid(rotation, rotation.new_zeros(*shape, 3))

    def identity(
        self, shape: Sequence[int] = (), *, device: Device = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        return torch.eye(3, 4, device=device, dtype=dtype).expand(*shape, 3, 4)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        moved = _turned_columns(g, h)
        return rigid(moved[..., :3], moved[..., 3] + g[..., 3].to(h.dtype))

    def inverse(self, g: Tensor) -> Tensor:
        back = g[..., :3].mT
        return rigid(back, -_turned_columns(back, g[..., 3:])[..., 0])

    def act(self, g: Tensor, x: Tensor, mask: Tensor | None = None, kind: Kind = "point") -> Tensor:
        if x.shape[-2:] != (3, 4):
            raise InputError(f"frames are [R | T] of shape (*B, N, 3, 4), not {tuple(x.shape)}")
        each = g[..., None, :, :]
        moved = _turned_columns(each, x) if kind == "vector" else self.compose(each, x)
        return moved if mask is None else torch.where(mask[..., None, None], moved, x)


def _turned_columns(g: Tensor, columns: Tensor) -> Tensor:
    return turned(columns.mT, g[..., :3]).mT


def rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """``[R | T]: (*S, 3, 4)`` of ``(*S, 3, 3)`` and ``(*S, 3)``."""
    return torch.cat([rotation, translation[..., None]], -1)


def rotation_angle(trace: Tensor) -> Tensor:
    """Angles from 0 to π of rotation matrices by their trace, to 1e-8; shape of ``trace``."""
    return 2 * torch.atan2((3 - trace).clamp_min(0).sqrt(), (1 + trace).clamp_min(0).sqrt())


def rotation_vector(rotation: Tensor) -> Tensor:
    """Axis times angle (0 to π, radians) of rotation matrices, ``(*S, 3, 3) -> (*S, 3)``: the
    logarithm. Of a half turn either axis."""
    across, along = rotation - rotation.mT, rotation.diagonal(dim1=-2, dim2=-1)
    x, y, z = along.unbind(-1)
    skew = torch.stack([across[..., 2, 1], across[..., 0, 2], across[..., 1, 0]], -1)

    # each row is 4 q_k q for one component q_k of the quaternion q = (x, y, z, w)
    diagonal = torch.stack([1 + x - y - z, 1 - x + y - z, 1 - x - y + z], -1)
    both = rotation + rotation.mT
    off = both - torch.diag_embed(both.diagonal(dim1=-2, dim2=-1))
    rows = torch.cat([torch.diag_embed(diagonal) + off, skew[..., None]], -1)
    last = torch.cat([skew, (1 + x + y + z)[..., None]], -1)
    rows = torch.cat([rows, last[..., None, :]], -2)
    best = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
    q = rows.gather(-2, best.expand(*best.shape[:-1], 4))[..., 0, :]
    q = torch.nn.functional.normalize(torch.where(q[..., 3:] < 0, -q, q), dim=-1)

    sine = torch.linalg.vector_norm(q[..., :3], dim=-1, keepdim=True)
    half = torch.atan2(sine, q[..., 3:])
    return 2 * q[..., :3] * torch.where(sine > 0, half / sine.clamp_min(1e-30), 1.0)


def rotation_of(vector: Tensor) -> Tensor:
    """Rotation matrices of axis times angle, ``(*S, 3) -> (*S, 3, 3)``: the exponential
    (Rodrigues)."""
    angle = torch.linalg.vector_norm(vector, dim=-1)[..., None, None]
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1)
    cross = rows.view(*rows.shape[:-1], 3, 3)
    one = torch.eye(3, dtype=vector.dtype, device=vector.device)
    first, half = torch.sinc(angle / math.pi), torch.sinc(angle / (2 * math.pi))
    return one + first * cross + 0.5 * half.square() * (cross @ cross)
