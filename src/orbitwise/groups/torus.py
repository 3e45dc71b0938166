"""Translations of a periodic cell, acting on fractional coordinates, and the heat kernel of that
group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.base import Device, Group, Kind

_IMAGES_UP_TO = (
    0.25  # below this σ five images of the Gaussian, above it five harmonics: both exact to 1e-16
)


def wrap(x: Tensor) -> Tensor:
    """``x`` modulo 1, in [0, 1) (``remainder`` alone returns 1 for tiny negative numbers)."""
    y = x - x.floor()
    return torch.where(y >= 1, torch.zeros_like(y), y)


def nearest_image(x: Tensor) -> Tensor:
    """``x`` modulo 1, in [-1/2, 1/2]."""
    return x - x.round()


class WrappedNormal(NamedTuple):
    """``log_density``: log Σ_m N(x + m; 0, σ²); ``score``: its derivative in x."""

    log_density: Tensor
    score: Tensor


def wrapped_normal(x: Tensor, sigma: Tensor) -> WrappedNormal:
    """The normal distribution wrapped on the circle of length 1: the circle's heat kernel at time
    σ²/2.

    ``x``: displacements, any shape and any image; ``sigma``: broadcasts against ``x``. Finite for
    every finite ``x`` and ``σ > 0``; density and score have relative errors near rounding for every
    σ.
    """
    r = nearest_image(x)
    # Images, factored by the nearest one so that no exponent is positive. With q = exp(-1/2σ²) the
    # images ±1 give q exp(∓r/σ²) = a, b and the images ±2 give q² a², q² b².
    s = sigma.clamp(max=_IMAGES_UP_TO)
    precision = s**-2
    a = ((r.abs() - 0.5) * precision).exp()
    b = ((-r.abs() - 0.5) * precision).exp()
    a2, b2 = a * a * (-precision).exp(), b * b * (-precision).exp()
    others = a + b + a2 + b2
    near = others.log1p() - 0.5 * r * r * precision - (s * math.sqrt(2 * math.pi)).log()
    winding = (a - b + 2 * (a2 - b2)) / (1 + others) * r.sign()
    near_score = (winding - r) * precision
    # Harmonics (Poisson summation): 1 + 2 Σ_k exp(-2π²σ²k²) cos(2πkx), cosines and sines by
    # recurrence.
    decay = -2 * (math.pi * sigma.clamp(min=_IMAGES_UP_TO)) ** 2
    c, d = (2 * math.pi * r).cos(), (2 * math.pi * r).sin()
    c0, d0, ck, dk = torch.ones_like(c), torch.zeros_like(d), c, d
    cosines, sines = torch.zeros_like(c), torch.zeros_like(d)
    for k in range(1, 6):
        amplitude = 2 * (decay * k * k).exp()
        cosines, sines = cosines + amplitude * ck, sines + k * amplitude * dk
        c0, d0, ck, dk = ck, dk, 2 * c * ck - c0, 2 * c * dk - d0
    far, far_score = cosines.log1p(), -2 * math.pi * sines / (1 + cosines)
    images = sigma < _IMAGES_UP_TO
    return WrappedNormal(torch.where(images, near, far), torch.where(images, near_score, far_score))


class PeriodicTranslation(Group):
    """Translations of the torus ``R^D / Z^D``: one shift for all points, modulo 1.

    Acts on fractional coordinates ``(*B, N, D)``; an element is a shift ``(*S, D)`` in [0, 1). Haar
    measure: uniform on [0, 1)^D. Vectors (scores, velocities in fractional units) are left alone.
    >>> import torch
    >>> import orbitwise as ow
    >>> group = ow.PeriodicTranslation(dim=2)
    >>> group.act(torch.tensor([0.5, 0.25]), torch.tensor([[0.75, 0.0]])).tolist()
    [[0.25, 0.25]]
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
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Uniform shifts, shape ``(*shape, D)``."""
        where = device if generator is None else generator.device
        return torch.rand((*shape, self.dim), generator=generator, device=where, dtype=dtype).to(
            device or where
        )

    def identity(
        self, shape: Sequence[int] = (), *, device: Device = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Zero shifts, shape ``(*shape, D)``."""
        return torch.zeros((*shape, self.dim), device=device, dtype=dtype)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """``g + h`` modulo 1."""
        return wrap(g + h)

    def inverse(self, g: Tensor) -> Tensor:
        """``-g`` modulo 1."""
        return wrap(-g)

    def act(self, g: Tensor, x: Tensor, mask: Tensor | None = None, kind: Kind = "point") -> Tensor:
        """``x + g`` modulo 1; ``g: (*S, D)``, ``x: (*B, N, D)``. Raises ``InputError`` if D does
        not fit."""
        if x.shape[-1] != self.dim:
            raise InputError(
                f"PeriodicTranslation({self.dim}) cannot move points with {x.shape[-1]} coordinates"
            )
        shift = g.to(x.dtype).unsqueeze(-2)
        if kind == "vector":
            return x.expand(torch.broadcast_shapes(shift.shape, x.shape))
        moved = wrap(x + shift)
        return moved if mask is None else torch.where(mask.unsqueeze(-1), moved, x)

    def __repr__(self) -> str:
        return f"PeriodicTranslation({self.dim})"
