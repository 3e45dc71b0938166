"""Underdamped Langevin dynamics by symmetric splittings (B kick, A drift, O Ornstein-Uhlenbeck).

Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34 (arXiv 1203.5428).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.search.base import Info, State, start
from orbitwise.search.dynamics import Mass, leapfrog
from orbitwise.search.metropolis import (
    choose,
    initial_step,
    keep_centre,
    metropolis,
    over_event,
    per_chain,
)


@dataclass(frozen=True)
class MomentumState(State):
    """A state with ``momentum``, the shape of ``x``."""

    momentum: Tensor


def _start(x: Tensor, energy: Energy, step_size: float) -> MomentumState:
    value, grad = start(x, energy)
    return MomentumState(x, value, grad, initial_step(step_size, value), torch.zeros_like(x))


def _refresh(
    p: Tensor, x: Tensor, time: Tensor, friction: float, mass: Mass, energy: Energy, generator
) -> Tensor:
    """The exact Ornstein-Uhlenbeck step over ``time`` (broadcasts against p); leaves N(0, M)
    invariant."""
    keep = torch.exp(-friction * time)
    return keep * p + (1 - keep * keep).sqrt() * mass.momentum(x, energy, generator)


@dataclass(frozen=True, eq=False)
class Langevin:
    """BAOAB: one gradient per step, no rejection. Chains start at rest.

    Positions carry a bias of order h² in general and none for a quadratic energy. ``log_accept`` is
    what a Metropolis test of the deterministic parts would give, the natural measure of that bias,
    so ``warmup`` can tune h to it. A step that ends at a point that is not finite is undone and its
    momentum reversed. ``friction`` in 1/time, ``mass`` as in ``HMC``. For an exact sampler use
    ``AdjustedLangevin``.
    """

    step_size: float = 0.05
    friction: float = 1.0
    mass: Tensor | None = None
    target_acceptance: ClassVar[float | None] = 0.98
    step_dims: ClassVar[int] = 0

    def init(self, x: Tensor, energy: Energy) -> MomentumState:
        return _start(x, energy, self.step_size)

    def step(
        self, state: MomentumState, energy: Energy, generator: torch.Generator | None
    ) -> tuple[MomentumState, Info]:
        mass = Mass(self.mass)
        h = per_chain(state.step_size, state.x)
        half_drift = 0.5 * mass.velocity(h)
        kicked = state.momentum - 0.5 * h * state.grad
        x = state.x + half_drift * kicked
        thermal = _refresh(
            kicked, x, time=h, friction=self.friction, mass=mass, energy=energy, generator=generator
        )
        x = x + half_drift * thermal
        if energy.zero_com:
            x = keep_centre(x, state.x)
        value, grad = energy.value_and_grad(x)
        p = thermal - 0.5 * h * grad
        # Energy error of everything but the O part.
        before = state.energy + mass.kinetic(state.momentum, value) + mass.kinetic(thermal, value)
        error = value + mass.kinetic(p, value) + mass.kinetic(kicked, value) - before
        finite = torch.isfinite(error) & torch.isfinite(over_event(value, grad))
        state = replace(
            state,
            x=choose(finite, x, state.x),
            energy=torch.where(finite, value, state.energy),
            grad=choose(finite, grad, state.grad),
            momentum=choose(finite, p, -state.momentum),
        )
        return state, Info(finite, torch.where(finite, (-error).clamp_max(0.0), -torch.inf))


@dataclass(frozen=True, eq=False)
class AdjustedLangevin:
    """OBABO with a Metropolis test of BAB and reversal of the momentum on rejection (Horowitz,
    Phys. Lett. B 268, 247, 1991): exact at any step size, one gradient per step. Chains start at
    rest.

    ``friction`` in 1/time, ``mass`` as in ``HMC``. Rejections turn chains back, so tune to a high
    acceptance.
    """

    step_size: float = 0.05
    friction: float = 1.0
    mass: Tensor | None = None
    target_acceptance: ClassVar[float | None] = 0.95
    step_dims: ClassVar[int] = 0

    def init(self, x: Tensor, energy: Energy) -> MomentumState:
        return _start(x, energy, self.step_size)

    def step(
        self, state: MomentumState, energy: Energy, generator: torch.Generator | None
    ) -> tuple[MomentumState, Info]:
        mass = Mass(self.mass)
        h = per_chain(state.step_size, state.x)
        p0 = _refresh(
            state.momentum,
            state.x,
            time=0.5 * h,
            friction=self.friction,
            mass=mass,
            energy=energy,
            generator=generator,
        )
        x, p, value, grad = leapfrog(
            state.x, p0, grad=state.grad, h=h, steps=1, mass=mass, energy=energy
        )
        log_ratio = state.energy - value + mass.kinetic(p0, value) - mass.kinetic(p, value)
        state, info = metropolis(state, x, value, grad, log_ratio, generator)
        p = choose(info.accepted, p, -p0)
        return replace(
            state,
            momentum=_refresh(
                p,
                state.x,
                time=0.5 * h,
                friction=self.friction,
                mass=mass,
                energy=energy,
                generator=generator,
            ),
        ), info
