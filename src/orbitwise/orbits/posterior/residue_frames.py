"""The posterior over the common rotation of residue frames, by quadrature over SO(3).

The density of the noise on a rotation is a function of an angle alone, so
``p(g | x_t) ∝ Π_i f_σ(angle(R_ti⁻¹ g R_i)) exp(α/σ_T² tr(g Σ_i T_i T_tiᵀ))``. Its first factor has no
closed integral (it is no exponential family), but the group has three dimensions: where the
posterior is wide a product grid integrates it, where it is narrow a grid in the tangent space at
its mode, both converging exponentially.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from orbitwise.groups.se3 import rotation_of, rotation_vector

_LEVEL = 12  # nodes of the middle Euler angle; twice as many of the others
_WIDE = 0.3  # rad: a wider posterior is integrated over the whole group
_REACH, _NODES = 6.0, 20  # standard deviations on each side; nodes of each axis
_ZOOMS, _ZOOM_NODES = 12, 9
_AT_ONCE = 1 << 21  # densities of residues


class FrameNoise(Protocol):
    """What is asked of a process on frames; ``ow.FrameProcess`` is one."""

    def log_density(
        self, frames_t: Tensor, frames: Tensor, t: Tensor, mask: Tensor | None = None
    ) -> Tensor: ...


@dataclass(frozen=True)
class FramePosterior:
    """``p(g | frames_t, frames)`` of one batch, g the rotation that all frames share.

    ``rotations: (Q, *B, 3, 3)`` with ``log_weights: (Q, *B)`` (sum of exp = 1): the nodes.
    ``log_evidence: (*B)``: log of the integral over the Haar measure. ``outside: (*B)``: the share
    of the mass that a coarse grid over the whole group finds beyond the nodes; far below 1 where
    the posterior has one mode.
    """

    rotations: Tensor
    log_weights: Tensor
    log_evidence: Tensor
    outside: Tensor
    frames_t: Tensor
    frames: Tensor

    @property
    def mean_rotation(self) -> Tensor:
        """E[g], a matrix in the hull of the rotations, ``(*B, 3, 3)``."""
        return (self.log_weights.exp()[..., None, None] * self.rotations).sum(0)

    @property
    def mean_origins(self) -> Tensor:
        """E[g T], ``(*B, N, 3)``: what a network of denoised origins regresses on."""
        return self.frames[..., 3] @ self.mean_rotation.mT

    @property
    def mean_turn(self) -> Tensor:
        """E[log(R_t⁻¹ g R)] in radians, ``(*B, N, 3)`` in the frame of each residue: the mean
        rotation vector from the noisy frame to the clean one."""
        here, clean = self.frames_t[..., :3].mT, self.frames[..., :3]
        total = torch.zeros_like(self.frames[..., 3])
        for log_weight, g in zip(self.log_weights, self.rotations, strict=True):
            turn = rotation_vector(here @ g[..., None, :, :] @ clean)
            total = total + log_weight.exp()[..., None, None] * turn
        return total

    def sample(self, K: int, generator: torch.Generator | None = None) -> Tensor:
        """``K`` of the nodes by their weights, ``(K, *B, 3, 3)``; between nodes the posterior
        changes little, 0.6 of its standard deviation where it is narrow."""
        batch = self.log_weights.shape[1:]
        weights = self.log_weights.exp().flatten(1).mT
        at = torch.multinomial(weights, K, replacement=True, generator=generator).mT
        nodes = self.rotations.flatten(1, -3)
        chosen = nodes.gather(0, at[..., None, None].expand(-1, -1, 3, 3))
        return chosen.unflatten(1, batch) if batch else chosen[:, 0]


def frame_posterior(
    process: FrameNoise, frames_t: Tensor, frames: Tensor, t: Tensor, mask: Tensor | None = None
) -> FramePosterior:
    """The exact posterior of the rotation that frames ``[R | T]: (*B, N, 3, 4)`` share, given noisy
    ones; ``t: (*B)``, ``mask: (*B, N)``. To 1e-6 and better where ``outside`` is small.

    In float64. Costs 20,000 densities of each item; no gradients.
    """
    with torch.no_grad():
        noisy, clean = frames_t.double(), frames.double()
        t = torch.as_tensor(t, dtype=torch.float64, device=noisy.device)

        def log_density(g: Tensor) -> Tensor:
            """``(Q, *B, 3, 3) -> (Q, *B)``."""
            some = max(1, _AT_ONCE // noisy[..., 0, 0].numel())
            found = [
                process.log_density(noisy, turn[..., None, :, :] @ clean, t, mask)
                for turn in g.split(some)
            ]
            return torch.cat(found)

        batch = noisy.shape[:-3]
        whole, volume = (a.to(noisy.device) for a in _whole_group())
        grid = whole.view(-1, *[1] * len(batch), 3, 3).expand(-1, *batch, 3, 3)
        coarse = log_density(grid) + volume.view(-1, *[1] * len(batch))
        centre, axes, deviation = _zoomed(log_density, grid, coarse)
        fine, step = _tangent_grid(centre, axes, deviation)
        narrow = log_density(fine) + step
        wide = deviation.amax(-1) > _WIDE

        turn = rotation_vector(centre.mT @ grid)
        local = torch.einsum("q...i,...ij->q...j", turn, axes) / deviation
        beyond = (local.abs() > _REACH).any(-1)
        outside = torch.where(beyond, coarse, -math.inf).logsumexp(0) - coarse.logsumexp(0)
        size = fine.shape[0] - grid.shape[0]
        grid = torch.cat([grid, grid[:1].expand(size, *batch, 3, 3)])
        coarse = torch.cat([coarse, coarse.new_full((size, *batch), -math.inf)])
        logs = torch.where(wide, coarse, narrow)
        evidence = logs.logsumexp(0)
        return FramePosterior(
            rotations=torch.where(wide[..., None, None], grid, fine),
            log_weights=logs - evidence,
            log_evidence=evidence,
            outside=torch.where(wide, 0.0, outside.exp()),
            frames_t=noisy,
            frames=clean,
        )


Density = Callable[[Tensor], Tensor]


def _zoomed(
    log_density: Density, grid: Tensor, coarse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, principal axes and standard deviations of the mode around the best node: ``(*B, 3,
    3)``, ``(*B, 3, 3)`` (columns), ``(*B, 3)`` in radians."""
    best = coarse.argmax(0)
    centre = grid.gather(0, best[None, ..., None, None].expand(1, *best.shape, 3, 3))[0]
    axes = torch.eye(3, dtype=grid.dtype, device=grid.device).expand_as(centre)
    reach = grid.new_full((*best.shape, 3), 0.6)
    deviation = reach / 4
    for _ in range(_ZOOMS):
        nodes, step, local = _box(centre, axes, reach, _ZOOM_NODES)
        weight = (log_density(nodes) + step).softmax(0)[..., None]
        mean = (weight * local).sum(0)
        spread = local - mean
        cov = torch.einsum("q...i,q...j->...ij", weight * spread, spread)
        centre = rotation_of(mean) @ centre
        squares, axes = torch.linalg.eigh(cov)
        deviation = squares.clamp_min(0).sqrt()
        widest = reach.amax(-1, keepdim=True)
        least = widest / 6  # nodes were too far apart to see a width below
        deviation = torch.maximum(deviation, least / 4)
        reach = (4 * deviation).clamp(max=math.pi / 3**0.5)
    return centre, axes, deviation


def _tangent_grid(centre: Tensor, axes: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes ``(Q, *B, 3, 3)`` and log Haar volumes ``(Q, *B)`` of a box around the mode."""
    reach = (_REACH * deviation).clamp(max=math.pi / 3**0.5)
    nodes, volume, _ = _box(centre, axes, reach, _NODES)
    return nodes, volume


def _box(
    centre: Tensor, axes: Tensor, reach: Tensor, n: int
) -> tuple[Tensor, Tensor, Tensor]:
    """``n³`` nodes ``exp(v) centre`` at the middles of equal cells of a box in the tangent space,
    their log Haar volumes ``(1 - cos|v|) / (4 π² |v|²) dv``, and ``v: (Q, *B, 3)``."""
    line = (torch.arange(n, dtype=reach.dtype, device=reach.device) + 0.5) * (2 / n) - 1
    unit = torch.cartesian_prod(line, line, line).view(n**3, *[1] * (reach.ndim - 1), 3)
    v = torch.einsum("...ij,q...j->q...i", axes, unit * reach)
    size = torch.linalg.vector_norm(v, dim=-1).clamp_min(1e-4)
    cell = (2 * reach / n).log().sum(-1)
    volume = (2 * torch.sin(size / 2) ** 2 / (4 * math.pi**2 * size**2)).log() + cell
    return rotation_of(v) @ centre, volume, v


@lru_cache(maxsize=1)
def _whole_group() -> tuple[Tensor, Tensor]:
    """Nodes ``(Q, 3, 3)`` and log weights ``(Q,)`` of a product grid of Euler angles (z, y, z),
    exact for Wigner matrices up to the degree ``2 _LEVEL - 1``."""
    cosines, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(_LEVEL))
    around = torch.arange(2 * _LEVEL, dtype=torch.float64) * (math.pi / _LEVEL)
    zero = torch.zeros_like
    z = rotation_of(torch.stack([zero(around), zero(around), around], -1))
    tilt = cosines.arccos()
    y = rotation_of(torch.stack([zero(tilt), tilt, zero(tilt)], -1))
    nodes = z[:, None, None] @ y[:, None] @ z
    log = (weights / 2 / (2 * _LEVEL) ** 2).log()
    return nodes.flatten(0, 2), log[None, :, None].expand(nodes.shape[:3]).flatten()
