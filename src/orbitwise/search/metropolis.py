"""The Metropolis test and the small tensor operations that all kernels share."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from orbitwise.search.base import Info, State

S = TypeVar("S", bound=State)


def per_chain(value: Tensor, x: Tensor) -> Tensor:
    """Give ``value: (*B)`` trailing ones, so that it broadcasts against ``x: (*B, *event)``."""
    return value.view(*value.shape, *[1] * (x.ndim - value.ndim))


def over_event(value: Tensor, x: Tensor) -> Tensor:
    """Sum ``x: (*B, *event)`` over the event; ``value: (*B)`` tells where the batch ends."""
    return x.flatten(value.ndim).sum(-1)


def normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers of the shape of ``x``, drawn on the generator's device."""
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)


def uniform(shape: torch.Size, x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers in [0, 1), float64 (a float32 zero would accept anything once in 10⁷
    draws)."""
    device = x.device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=device, dtype=torch.float64).to(x.device)


def keep_centre(moved: Tensor, x: Tensor) -> Tensor:
    """Shift ``moved: (*B, N, D)`` so that its centroid is that of ``x``."""
    return moved - (moved - x).mean(-2, keepdim=True)


def choose(accepted: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """``new`` where ``accepted: (*B)``, else ``old``; what is not chosen may be NaN."""
    return torch.where(per_chain(accepted, new), new, old)


def metropolis(
    state: S,
    x: Tensor,
    energy: Tensor,
    grad: Tensor,
    log_ratio: Tensor,
    generator: torch.Generator | None,
) -> tuple[S, Info]:
    """Accept the proposal ``x`` with probability ``min(1, exp(log_ratio))``.

    A proposal with an energy, gradient or ratio that is not finite is rejected and has ``log_accept
    = -inf``.
    """
    # inf and NaN both survive a sum, so one number tests the ratio, the energy and every gradient.
    finite = torch.isfinite(log_ratio + energy + over_event(energy, grad))
    log_accept = torch.where(finite, log_ratio.clamp_max(0.0), -torch.inf)
    accepted = uniform(log_accept.shape, log_accept, generator).log() < log_accept
    state = replace(
        state,
        x=choose(accepted, x, state.x),
        energy=torch.where(accepted, energy, state.energy),
        grad=choose(accepted, grad, state.grad),
    )
    return state, Info(accepted, log_accept)


def initial_step(step_size: float, energy: Tensor) -> Tensor:
    """The same step size for every chain, ``(*B)``."""
    return torch.full_like(energy, step_size)
