"""Rigid motions of residue frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from orbitwise.groups.base import Device, Group, Kind, turned, unrounded
from orbitwise.groups.so3 import SO3


class SE3(Group):
    """Rotations and translations of frames. Elements ``(*S, 3, 4)`` and frames ``(*B, N, 3, 4)``
    are both ``[R | T]``: a rotation matrix and an origin, as a rigid motion ``x -> R x + T``. An
    element moves a frame by ``[g R | g T + s]``; with ``kind="vector"`` it turns rows ``(*B, N,
    3)`` and does not move them.

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
        with unrounded(g):
            turn = g[..., :3]
            return rigid(turn @ h[..., :3], (turn @ h[..., 3:])[..., 0] + g[..., 3])

    def inverse(self, g: Tensor) -> Tensor:
        with unrounded(g):
            back = g[..., :3].mT
            return rigid(back, -(back @ g[..., 3:])[..., 0])

    def act(self, g: Tensor, x: Tensor, mask: Tensor | None = None, kind: Kind = "point") -> Tensor:
        if kind == "vector":
            moved = turned(x, g[..., :3])
            return moved if mask is None else torch.where(mask[..., None], moved, x)
        moved = self.compose(g[..., None, :, :], x)
        return moved if mask is None else torch.where(mask[..., None, None], moved, x)


def rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """``[R | T]: (*S, 3, 4)`` of ``(*S, 3, 3)`` and ``(*S, 3)``."""
    return torch.cat([rotation, translation[..., None]], -1)


def rotation_vector(rotation: Tensor) -> Tensor:
    """Axis times angle (0 to π, radians) of rotation matrices, ``(*S, 3, 3) -> (*S, 3)``: the
    logarithm."""
    skew = torch.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        -1,
    )
    twice_sine = torch.linalg.vector_norm(skew, dim=-1)
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
    angle = torch.atan2(twice_sine, trace - 1)
    small = twice_sine < 1e-12
    return skew * torch.where(small, 0.5, angle / twice_sine.where(~small, 1.0))[..., None]


def rotation_of(vector: Tensor) -> Tensor:
    """Rotation matrices of axis times angle, ``(*S, 3) -> (*S, 3, 3)``: the exponential
    (Rodrigues)."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    return torch.linalg.matrix_exp(cross)
