"""The many-well target: independent two-dimensional double wells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError

# The first coordinate of a well has practically no mass outside (exp(-460) of its maximum).
_EDGE = 5.5
_NODES = 20001


def _rugged(x: Tensor) -> Tensor:
    return x * (x * (x.square() - 6.0) - 0.5)


@cache
def _table() -> tuple[float, Tensor, Tensor]:
    """``(log ∫ exp(-u), nodes, cumulative distribution)`` of the rugged coordinate, float64."""
    nodes = torch.linspace(-_EDGE, _EDGE, _NODES, dtype=torch.float64)
    density = torch.exp(-_rugged(nodes))
    # The trapezoid sum of a function that vanishes with its derivatives at both ends is exact to
    # rounding.
    cumulative = torch.cumulative_trapezoid(density, nodes)
    cumulative = torch.cat([cumulative.new_zeros(1), cumulative])
    return math.log(cumulative[-1].item()), nodes, cumulative / cumulative[-1]


class ManyWell(Energy):
    """``U(x) = Σ_pairs (a⁴ - 6a² - a/2 + b²/2)`` with ``(a, b) = (x_2i, x_2i+1)``; x: ``(*B,
    dim)``.

    2^(dim/2) modes (Noé et al. 2019; in this form Midgley et al. 2023, arXiv 2208.01893). ``log_z``
    by quadrature: 164.696, 329.391, 658.783 for dim 32, 64, 128. ``minor_mass``: the probability of
    a < 0 in one well, 0.1557. Raises ``InputError`` for an odd ``dim``.
    """

    def __init__(self, dim: int = 32):
        super().__init__()
        if dim < 2 or dim % 2:
            raise InputError(f"a many-well needs an even dimension of at least 2, got {dim}")
        self.event_shape = (dim,)
        self.minor_mass = float(_table()[2][_NODES // 2])  # the middle node is a = 0
        self.log_z = dim / 2 * (_table()[0] + 0.5 * math.log(2 * math.pi))
        self.register_buffer("device_marker", torch.empty(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x[..., 0::2], x[..., 1::2]
        return (_rugged(a) + 0.5 * b * b).sum(-1)

    @torch.no_grad()
    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x[..., 0::2], x[..., 1::2]
        slope = a * (4.0 * a * a - 12.0) - 0.5
        return self(x), torch.stack([slope, b], -1).flatten(-2)

    @torch.no_grad()
    def sample(self, shape: Sequence[int], *, generator: torch.Generator | None = None) -> Tensor:
        """Exact samples ``(*shape, dim)``: inverse of the tabulated distribution function for ``a``
        (spacing 5.5e-4, linear in between), a normal number for ``b``."""
        target = self.device_marker
        device = generator.device if generator is not None else target.device
        size = (*shape, self.event_shape[0] // 2)
        _, nodes, cumulative = (t.to(device) if isinstance(t, Tensor) else t for t in _table())
        u = torch.rand(size, generator=generator, device=device, dtype=torch.float64)
        right = torch.searchsorted(cumulative, u).clamp(1, _NODES - 1)
        low, high = cumulative[right - 1], cumulative[right]
        share = (u - low) / (high - low).clamp_min(1e-300)
        a = nodes[right - 1] + share * (nodes[right] - nodes[right - 1])
        b = torch.randn(size, generator=generator, device=device, dtype=torch.float64)
        return torch.stack([a, b], -1).flatten(-2).to(target)
