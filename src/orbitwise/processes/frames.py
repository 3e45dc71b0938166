"""Noise on residue frames: Gaussian on their origins, Brownian on their rotations (IGSO(3))."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.se3 import rigid, rotation_angle, rotation_of
from orbitwise.processes.gaussian import GaussianProcess, standard_normal
from orbitwise.processes.times import refuse_outside

_IMAGES = 4  # windings on each side; at σ = 4 what is left out is below 1e-10
_WIDEST = 4.0  # rad: uniform to 1e-6
_LEAST, _MOST = 1e-4, math.pi - 1e-6  # rad: flat beyond, where numerators and sines vanish
_ANGLES = 2048  # where the law of the angle is tabulated for draws


@dataclass(frozen=True)
class FrameProcess:
    """``T_t ~ translation`` and ``R_t = R_1 exp(ω)``, ``ω ~ IGSO(3; σ(t))`` for each residue alone
    (FrameDiff, Yim 2302.02277, prop. 2 and eq. 7: ``σ(t) = log(t e^{σ_min} + (1 − t) e^{σ_max})``
    with t = 0 noise, t = 1 data).

    ``translation``: a ``GaussianProcess`` with ``zero_com``, in the units of the data;
    ``sigma_min``, ``sigma_max`` in radians. Frames are ``[R | T]: (*B, N, 3, 4)``, ``t: (*B)``,
    ``mask: (*B, N)``; padded frames stay. Raises ``InputError`` for widths out of order or above
    4, a translation without ``zero_com``, and times outside 0 to 1.
    >>> import torch
    >>> import orbitwise as ow
    >>> process = ow.FrameProcess(ow.GaussianProcess.flow(scale=10.0, zero_com=True))
    >>> frames, t = torch.eye(3, 4).expand(2, 5, 3, 4), torch.tensor([0.0, 1.0])
    >>> [round(width, 2) for width in process.rotation_sigma(t).tolist()]
    [1.5, 0.1]
    >>> process.perturb(frames, t, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([2, 5, 3, 4])
    """

    translation: GaussianProcess
    sigma_min: float = 0.1
    sigma_max: float = 1.5

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min <= self.sigma_max <= _WIDEST:
            raise InputError(
                f"frame process: need 0 < sigma_min <= sigma_max <= {_WIDEST:g}, got"
                f" {self.sigma_min}, {self.sigma_max}"
            )
        if not self.translation.zero_com:
            raise InputError("frame process: its translation needs zero_com=True")

    def rotation_sigma(self, t: Tensor) -> Tensor:
        """Width of the rotations' noise in radians, ``(*B) -> (*B)``."""
        least, most = math.exp(self.sigma_min), math.exp(self.sigma_max)
        return (t * least + (1 - t) * most).log()

    def perturb(
        self,
        frames: Tensor,
        t: Tensor,
        *,
        generator: torch.Generator | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Frames at ``t``, shape of ``frames``."""
        refuse_outside(t)
        origin = self.translation.perturb(frames[..., 3], t, generator=generator, mask=mask)
        axis = standard_normal(origin.shape, generator, frames.device, torch.float64)
        share = standard_normal(origin.shape[:-1], generator, frames.device, torch.float64)
        uniform = 0.5 * torch.erfc(-share / math.sqrt(2))
        angle = _angle_at(uniform, self.rotation_sigma(t).double())
        turn = rotation_of(torch.nn.functional.normalize(axis, dim=-1) * angle[..., None])
        noisy = rigid(frames[..., :3] @ turn.to(frames.dtype), origin)
        return noisy if mask is None else torch.where(mask[..., None, None], noisy, frames)

    def log_density(
        self, frames_t: Tensor, frames: Tensor, t: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """``log p_t(frames_t | frames)``, rotations relative to the Haar measure; ``(*B)``."""
        refuse_outside(t)
        angle = rotation_angle((frames_t[..., :3] * frames[..., :3]).sum((-2, -1)))
        each = self.turn_log_density(angle, t)
        turns = each.sum(-1) if mask is None else torch.where(mask, each, 0.0).sum(-1)
        return turns + self.translation.log_density(frames_t[..., 3], frames[..., 3], t, mask)

    def turn_log_density(self, angle: Tensor, t: Tensor) -> Tensor:
        """Log density of turns by ``angle: (*S, *B, N)``, radians from 0 to π, relative to the Haar
        measure; same shape."""
        return log_igso3(angle, self.rotation_sigma(t)[..., None])

    def turn_slope(self, angle: Tensor, t: Tensor) -> Tensor:
        """Derivative of ``turn_log_density`` in the angle, per radian."""
        return igso3_slope(angle, self.rotation_sigma(t)[..., None])

    def turn_score(self, turn: Tensor, t: Tensor) -> Tensor:
        """Score of noisy rotations that ``turn: (*S, *B, N, 3)``, a rotation vector in their own
        frame, leads to the clean ones; per radian, same shape (FrameDiff, prop. 2)."""
        angle: Tensor = torch.linalg.vector_norm(turn, dim=-1).clamp(_LEAST, _MOST)
        return -(self.turn_slope(angle, t) / angle)[..., None] * turn


def log_igso3(angle: Tensor, sigma: Tensor) -> Tensor:
    """Log density of IGSO(3) relative to the Haar measure; ``angle`` in [0, π], ``sigma`` up to 4,
    broadcast.

    The heat kernel ``Σ_l (2l + 1) exp(-l (l + 1) σ²/2) sin((l + ½) ω) / sin(ω/2)`` (Nikolayev and
    Savyolova 1997) after Poisson's summation: ``√(2π) σ⁻³ e^{σ²/8} Σ_k (-1)^k y e^{-y²/2σ²} /
    sin(ω/2)`` with ``y = ω + 2πk``, in which four windings a side are enough and every width is
    well conditioned.
    """
    w = angle.clamp(_LEAST, _MOST)
    total = sum(weight * y for weight, y in _windings(w, sigma))
    level = sigma * sigma / 8 - 3 * sigma.log() + 0.5 * math.log(2 * math.pi)
    return level - w * w / (2 * sigma * sigma) + (total / torch.sin(w / 2)).log()


def igso3_slope(angle: Tensor, sigma: Tensor) -> Tensor:
    """Derivative of ``log_igso3`` in the angle, in (0, π)."""
    w, variance = angle.clamp(_LEAST, _MOST), sigma * sigma
    total = slope = torch.zeros_like(w)
    for weight, y in _windings(w, sigma):
        total = total + weight * y
        slope = slope + weight * (1 - y * y / variance)
    return slope / total - 0.5 / torch.tan(w / 2)


def _windings(w: Tensor, sigma: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """``(-1)^k exp((ω² - y²)/2σ²)`` and ``y = ω + 2πk``, as powers of three exponentials."""
    over, under = (torch.exp(-2 * math.pi * a / sigma**2) for a in (w, math.pi - w))
    whole = torch.exp(-2 * (math.pi / sigma) ** 2)
    yield torch.ones_like(w), w
    ahead = behind = torch.ones_like(w)
    for k in range(1, _IMAGES + 1):
        ahead, behind = -ahead * over, -behind * under
        yield ahead * whole ** (k * k), w + 2 * math.pi * k
        yield behind * whole ** (k * k - k), w - 2 * math.pi * k


def _angle_at(share: Tensor, sigma: Tensor) -> Tensor:
    """Angles below which these shares of the law lie, ``share: (*B, N)``, ``sigma: (*B)``."""
    flat, widths = share.reshape(-1, share.shape[-1]), sigma.reshape(-1, 1)
    top = torch.minimum(12 * widths, torch.full_like(widths, math.pi))
    grid = top * torch.linspace(0, 1, _ANGLES, device=share.device, dtype=share.dtype)
    law = log_igso3(grid, widths).exp() * (1 - torch.cos(grid))
    below = torch.cumulative_trapezoid(law, dim=-1)
    below = torch.nn.functional.pad(below / below[:, -1:], (1, 0))
    at = torch.searchsorted(below, flat.contiguous()).clamp(1, _ANGLES - 1)
    low, high = below.gather(1, at - 1), below.gather(1, at)
    part = ((flat - low) / (high - low).clamp_min(1e-300)).clamp(0, 1)
    left, right = grid.gather(1, at - 1), grid.gather(1, at)
    return (left + part * (right - left)).reshape(share.shape)
