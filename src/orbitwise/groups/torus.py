"""Translations of a periodic cell, acting on fractional coordinates, and the heat kernel of that group."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.base import Group, Kind

# Below this σ five images of the Gaussian, above it five harmonics: both are then exact to double rounding.
_IMAGES_UP_TO = 0.25
_TERMS = 5


def wrap(x: Tensor) -> Tensor:
    """``x`` modulo 1, in [0, 1) (``remainder`` alone returns 1 for tiny negative numbers)."""
    y = x - x.floor()
    return torch.where(y >= 1, torch.zeros_like(y), y)


def nearest_image(x: Tensor) -> Tensor:
    """``x`` modulo 1, in [-1/2, 1/2]."""
    return x - x.round()


def log_wrapped_normal(x: Tensor, sigma: Tensor) -> Tensor:
    """``log Σ_m N(x + m; 0, σ²)``, the heat kernel of the circle of length 1 at time σ²/2.

    ``x``: displacements, any shape and any image; ``sigma``: broadcasts against ``x``. Finite for every
    finite ``x`` and ``σ > 0``; the relative error of the density is near rounding for every σ.
    """
    r = nearest_image(x)
    s = sigma.clamp(max=_IMAGES_UP_TO)
    # factored by the nearest image, so every exponent below is ≤ 0
    others = sum((-(m * m + 2 * m * r) / (2 * s * s)).exp() for m in (-2, -1, 1, 2))
    near = others.log1p() - 0.5 * (r / s) ** 2 - s.log() - 0.5 * math.log(2 * math.pi)
    # Poisson summation: 1 + 2 Σ_k exp(-2π²σ²k²) cos(2πkx)
    amplitude, angle = _harmonics(r, sigma)
    far = (2 * sum(a * (k * angle).cos() for k, a in amplitude)).log1p()
    return torch.where(sigma < _IMAGES_UP_TO, near, far)


def wrapped_normal_score(x: Tensor, sigma: Tensor) -> Tensor:
    """``∂_x log_wrapped_normal(x, σ)``; shapes as there."""
    r = nearest_image(x)
    s = sigma.clamp(max=_IMAGES_UP_TO)
    total, shift = torch.ones_like(r / s), torch.zeros_like(r / s)
    for m in (-2, -1, 1, 2):
        weight = (-(m * m + 2 * m * r) / (2 * s * s)).exp()
        total, shift = total + weight, shift + m * weight
    near = -(r + shift / total) / (s * s)
    amplitude, angle = _harmonics(r, sigma)
    density = 1 + 2 * sum(a * (k * angle).cos() for k, a in amplitude)
    far = -4 * math.pi * sum(k * a * (k * angle).sin() for k, a in amplitude) / density
    return torch.where(sigma < _IMAGES_UP_TO, near, far)


def _harmonics(r: Tensor, sigma: Tensor) -> tuple[list[tuple[int, Tensor]], Tensor]:
    s = sigma.clamp(min=_IMAGES_UP_TO)
    return [(k, (-2 * (math.pi * k * s) ** 2).exp()) for k in range(1, _TERMS + 1)], 2 * math.pi * r


class PeriodicTranslation(Group):
    """Translations of the torus ``R^D / Z^D``: one shift for all points, modulo 1.

    Acts on fractional coordinates ``(*B, N, D)``; an element is a shift ``(*S, D)`` in [0, 1). Haar measure:
    uniform on [0, 1)^D. Vectors (scores, velocities in fractional units) are left alone.
    """

    element_ndim = 1
    axis = "space"

    def __init__(self, dim: int = 3):
        if dim < 1:
            raise InputError(f"PeriodicTranslation needs dim >= 1, got {dim}")
        self.dim = dim

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Uniform shifts, shape ``(*shape, D)``."""
        where = device if generator is None else generator.device
        return torch.rand((*shape, self.dim), generator=generator, device=where, dtype=dtype).to(
            device or where
        )

    def identity(self, shape: Sequence[int] = (), *, device=None, dtype=None) -> Tensor:
        """Zero shifts, shape ``(*shape, D)``."""
        return torch.zeros((*shape, self.dim), device=device, dtype=dtype)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """``g + h`` modulo 1."""
        return wrap(g + h)

    def inverse(self, g: Tensor) -> Tensor:
        """``-g`` modulo 1."""
        return wrap(-g)

    def act(self, g: Tensor, x: Tensor, mask: Tensor | None = None, kind: Kind = "point") -> Tensor:
        """``x + g`` modulo 1; ``g: (*S, D)``, ``x: (*B, N, D)``. Raises ``InputError`` if D does not fit."""
        if x.shape[-1] != self.dim:
            raise InputError(
                f"PeriodicTranslation({self.dim}) cannot move points with {x.shape[-1]} coordinates"
            )
        shift = g.unsqueeze(-2)
        if kind == "vector":
            return x.expand(torch.broadcast_shapes(shift.shape, x.shape))
        moved = wrap(x + shift)
        return moved if mask is None else torch.where(mask.unsqueeze(-1), moved, x)
