"""Noise on residue frames: Gaussian on their origins, Brownian on their rotations (IGSO(3))."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.se3 import rigid, rotation_of, rotation_vector
from orbitwise.processes.gaussian import GaussianProcess, standard_normal
from orbitwise.processes.times import refuse_outside

_IMAGES = 3  # windings on each side; at σ = 4 what is left out is below 1e-10
_WIDEST = 4.0  # rad: uniform to 1e-6
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
        angle = torch.linalg.vector_norm(
            rotation_vector(frames_t[..., :3].mT @ frames[..., :3]), dim=-1
        )
        each = log_igso3(angle, self.rotation_sigma(t)[..., None])[0]
        turns = each.sum(-1) if mask is None else torch.where(mask, each, 0.0).sum(-1)
        return turns + self.translation.log_density(frames_t[..., 3], frames[..., 3], t, mask)


def log_igso3(angle: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Log density of IGSO(3) relative to the Haar measure, and its slope in the angle; ``angle`` in
    [0, π], ``sigma`` up to 4, broadcast.

    The heat kernel ``Σ_l (2l + 1) exp(-l (l + 1) σ²/2) sin((l + ½) ω) / sin(ω/2)`` (Nikolayev and
    Savyolova 1997) after Poisson's summation: ``√(2π) σ⁻³ e^{σ²/8} Σ_k (-1)^k y e^{-y²/2σ²} /
    sin(ω/2)`` with ``y = ω + 2πk``, in which three windings a side are enough and every width is
    well conditioned.
    """
    w = angle.clamp(1e-4, math.pi - 1e-6)
    k = torch.arange(-_IMAGES, _IMAGES + 1, device=w.device, dtype=w.dtype)
    y, s = w[..., None] + 2 * math.pi * k, (sigma * sigma)[..., None]
    bell = (1 - 2 * (k % 2).abs()) * torch.exp((w[..., None] ** 2 - y * y) / (2 * s))
    total = (bell * y).sum(-1)
    slope = (bell * (1 - y * y / s)).sum(-1) / total - 0.5 / torch.tan(w / 2)
    log = (
        total.log()
        - w * w / (2 * s[..., 0])
        - torch.sin(w / 2).log()
        - 3 * sigma.log()
        + sigma * sigma / 8
        + 0.5 * math.log(2 * math.pi)
    )
    return log, slope


def _angle_at(share: Tensor, sigma: Tensor) -> Tensor:
    """Angles below which these shares of the law lie, ``share: (*B, N)``, ``sigma: (*B)``."""
    flat, widths = share.reshape(-1, share.shape[-1]), sigma.reshape(-1, 1)
    top = torch.minimum(12 * widths, torch.full_like(widths, math.pi))
    grid = top * torch.linspace(0, 1, _ANGLES, device=share.device, dtype=share.dtype)
    law = log_igso3(grid, widths)[0].exp() * (1 - torch.cos(grid))
    below = torch.cumulative_trapezoid(law, dim=-1)
    below = torch.nn.functional.pad(below / below[:, -1:], (1, 0))
    at = torch.searchsorted(below, flat.contiguous()).clamp(1, _ANGLES - 1)
    low, high = below.gather(1, at - 1), below.gather(1, at)
    part = ((flat - low) / (high - low).clamp_min(1e-300)).clamp(0, 1)
    left, right = grid.gather(1, at - 1), grid.gather(1, at)
    return (left + part * (right - left)).reshape(share.shape)
