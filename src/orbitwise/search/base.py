"""What an MCMC kernel is: ``init`` makes a state, ``step`` moves it. Everything is batched over
chains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import EnergyError


@dataclass(frozen=True)
class State:
    """Positions ``x: (*B, *event)`` with cached ``energy: (*B)`` [kT] and ``grad`` (shape of x),
    and the per-chain ``step_size: (*B)``. Kernels that carry more (a momentum) subclass it."""

    x: Tensor
    energy: Tensor
    grad: Tensor
    step_size: Tensor


@dataclass(frozen=True)
class Info:
    """What one step did: ``accepted: (*B)`` bool, ``log_accept: (*B)`` (log acceptance probability,
    ≤ 0; -inf where the proposal was not finite)."""

    accepted: Tensor
    log_accept: Tensor


class Kernel(Protocol):
    """A Markov kernel that leaves exp(-U) invariant.

    ``target_acceptance``: what ``warmup`` tunes ``state.step_size`` to, None where there is no step
    size. ``step_dims``: how many leading batch dimensions have step sizes of their own (0: all
    chains share one). Whoever calls ``step`` may replace ``x, energy, grad, step_size`` of the
    state beforehand: they are the truth, and a kernel that wraps another hands them down.
    """

    target_acceptance: float | None
    step_dims: int

    def init(self, x: Tensor, energy: Energy) -> State: ...

    def step(
        self, state: State, energy: Energy, generator: torch.Generator | None
    ) -> tuple[State, Info]: ...


def start(x: Tensor, energy: Energy) -> tuple[Tensor, Tensor]:
    """Value and gradient at the starting points; a start that is not finite is an error, not a
    silent chain."""
    value, grad = energy.value_and_grad(x)
    bad = ~(torch.isfinite(value) & torch.isfinite(grad).flatten(value.ndim).all(-1))
    if bad.any():
        raise EnergyError(
            f"{int(bad.sum())} of {bad.numel()} starting points have an energy or gradient that is"
            " not finite; check the geometry (overlapping atoms?) and the energy's parameters"
        )
    return value, grad
