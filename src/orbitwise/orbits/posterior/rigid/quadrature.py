"""Nodes and Haar volumes on SO(3): over the whole group, and over a box around a mode."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from orbitwise.groups.se3 import rotation_of

_LEVEL = 12  # nodes of the middle Euler angle; twice as many of the others
_START, _ROUNDS, _LINE = 0.6, 14, 5  # rad; rounds of the search for a mode; its nodes on each axis
_REACH, _NODES = 6.0, 16  # of a box: standard deviations on each side, nodes on each axis
_SWING = math.pi / 2**0.5  # rad, each of the two axes: no rotation is met twice

LogDensity = Callable[[Tensor], Tensor]  # (Q, *S, 3, 3) -> (Q, *S)


@lru_cache(maxsize=1)
def whole_group() -> tuple[Tensor, Tensor]:
    """Nodes ``(Q, 3, 3)`` and log weights ``(Q,)`` of a product grid of Euler angles (z, y, z),
    exact for Wigner matrices up to the degree ``2 _LEVEL - 1``."""
    cosines, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(_LEVEL))
    around = torch.arange(2 * _LEVEL, dtype=torch.float64) * (math.pi / _LEVEL)
    tilt, zero = cosines.arccos(), torch.zeros_like
    z = rotation_of(torch.stack([zero(around), zero(around), around], -1))
    y = rotation_of(torch.stack([zero(tilt), tilt, zero(tilt)], -1))
    nodes = z[:, None, None] @ y[:, None] @ z
    log = (weights / 2 / (2 * _LEVEL) ** 2).log()
    return nodes.flatten(0, 2), log[None, :, None].expand(nodes.shape[:3]).flatten()


@dataclass(frozen=True)
class Modes:
    """Places where a density on SO(3) has its mass.

    ``centre, axes: (*S, 3, 3)``, ``deviation: (*S, 3)`` in radians along the columns of ``axes``,
    the last one the widest. Around a centre c rotations are ``A swing(x, y) twist(z) Aᵀ c``: a turn
    about the widest axis, which may go all the way round, and then a tilt of that axis.
    """

    centre: Tensor
    axes: Tensor
    deviation: Tensor

    @classmethod
    def near(cls, centre: Tensor, log_density: LogDensity) -> Modes:
        """From nodes of ``whole_group``, by moments in a box that closes in on the mode."""
        axes = torch.eye(3, dtype=centre.dtype, device=centre.device).expand_as(centre)
        found = cls(centre, axes, torch.full_like(centre[..., 0], _START / 3))
        for _ in range(_ROUNDS):
            found = found._closer(log_density)
        return found

    def _closer(self, log_density: LogDensity) -> Modes:
        nodes, volume, local = self.box(reach=3.0, n=_LINE)
        weight = (log_density(nodes) + volume).softmax(0)[..., None]
        mean = (weight * local).sum(0)
        spread = local - mean
        cov = torch.einsum("q...i,q...j->...ij", weight * spread, spread)
        # a box of half a width below 0.2 of the last one could lose what lies between its nodes
        blur = (0.1 * self._reaches(3.0)).square()
        squares, axes = torch.linalg.eigh(cov + torch.diag_embed(blur))
        axes = self.axes @ axes
        axes = torch.cat(
            [axes[..., :1] * torch.linalg.det(axes)[..., None, None], axes[..., 1:]], -1
        )
        return Modes(self.moved(mean), axes, squares.sqrt())

    def _reaches(self, reach: float) -> Tensor:
        most = self.deviation.new_tensor([_SWING, _SWING, math.pi])
        return torch.minimum(reach * self.deviation, most)

    def moved(self, local: Tensor) -> Tensor:
        """Rotations at ``(x, y, z): (Q, *S, 3)``; orthogonal to rounding whatever the axes are."""
        along = self.axes * local[..., None, :]
        swing = rotation_of(along[..., 0] + along[..., 1])
        return swing @ rotation_of(along[..., 2]) @ self.centre

    def box(self, *, reach: float = _REACH, n: int = _NODES) -> tuple[Tensor, Tensor, Tensor]:
        """``n³`` nodes ``(Q, *S, 3, 3)`` at the middles of equal cells, their log Haar volumes
        ``sin(b)/(8 π² b) dx dy dz`` with ``b² = x² + y²``, and ``(x, y, z): (Q, *S, 3)``."""
        half = self._reaches(reach)
        line = (torch.arange(n, dtype=half.dtype, device=half.device) + 0.5) * (2 / n) - 1
        unit = torch.cartesian_prod(line, line, line).view(n**3, *[1] * (half.ndim - 1), 3)
        local = unit * half
        tilt = torch.linalg.vector_norm(local[..., :2], dim=-1)
        volume = torch.sinc(tilt / math.pi).log() + (2 * half / n).log().sum(-1)
        return self.moved(local), volume - math.log(8 * math.pi**2), local

    def nearness(self, g: Tensor) -> Tensor:
        """How far rotations ``(Q, B, 3, 3)`` are from the centres ``(M, B, 3, 3)``, as a log
        density with these standard deviations: 0 there, ``-k²/2`` at k of them; ``(Q, M, B)``."""
        precise = self.deviation**-2
        stretch = 0.5 * precise.sum(-1, keepdim=True) - precise  # tr(D R) falls by these precisions
        pull = self.axes @ (stretch[..., None] * self.axes.mT) @ self.centre
        rise = torch.einsum("qbx,mbx->qmb", g.flatten(-2), pull.flatten(-2))
        return rise - stretch.sum(-1)


def peaks(height: Tensor, count: int, apart: float) -> Tensor:
    """The highest nodes of ``whole_group`` that no neighbour exceeds and that are ``apart``
    (radians) from one another: ``height: (Q, B) -> (count, B, 3, 3)``, or as many as the item with
    most has; any node where there are fewer."""
    grid = whole_group()[0].to(height.device)
    around = 2 * _LEVEL
    table = height.mT.unflatten(-1, (around, _LEVEL, around))
    edged = torch.nn.functional.pad(table[:, None], (1, 1, 0, 0, 1, 1), mode="circular")
    highest = torch.nn.functional.max_pool3d(edged, 3, stride=1, padding=(0, 1, 0))[:, 0]
    left = table.masked_fill(table < highest, -math.inf).flatten(1).mT
    found = []
    for _ in range(count):
        found.append(grid[left.argmax(0)])
        cosine = 0.5 * (torch.einsum("qij,bij->qb", grid, found[-1]) - 1)
        left = left.masked_fill(cosine > math.cos(apart), -math.inf)
        if not left.isfinite().any():
            break
    return torch.stack(found)
