"""Hamiltonian Monte Carlo (Duane et al., Phys. Lett. B 195, 216, 1987; Neal 2011, arXiv
1206.1901)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.search.base import Info, State, start
from orbitwise.search.dynamics import Mass, leapfrog
from orbitwise.search.metropolis import initial_step, metropolis, per_chain, uniform


@dataclass(frozen=True, eq=False)
class HMC:
    """Fresh momenta, ``leapfrog_steps`` steps of the leapfrog, Metropolis test: that many gradients
    per step.

    ``mass``: None (1) or a tensor that broadcasts against the event, ``(N, 1)`` for atoms.
    ``jitter``: each trajectory of each chain has its own step size, uniform within ±jitter·h, which
    breaks periodic orbits. With ``energy.zero_com`` the centroid stays and the momenta have 3(N-1)
    dimensions. Raises ``InputError`` for fewer than one leapfrog step.
    """

    step_size: float = 0.1
    leapfrog_steps: int = 10
    mass: Tensor | None = None
    jitter: float = 0.1
    target_acceptance: ClassVar[float | None] = 0.8
    step_dims: ClassVar[int] = 0

    def __post_init__(self):
        if self.leapfrog_steps < 1:
            raise InputError(f"HMC needs at least one leapfrog step, got {self.leapfrog_steps}")

    def init(self, x: Tensor, energy: Energy) -> State:
        value, grad = start(x, energy)
        return State(x, value, grad, initial_step(self.step_size, value))

    def step(
        self, state: State, energy: Energy, generator: torch.Generator | None
    ) -> tuple[State, Info]:
        mass = Mass(self.mass)
        h = state.step_size
        if self.jitter:
            h = h * (1 + self.jitter * (2 * uniform(h.shape, h, generator).to(h.dtype) - 1))
        h = per_chain(h, state.x)
        p0 = mass.momentum(state.x, energy, generator)
        x, p, value, grad = leapfrog(
            state.x, p0, grad=state.grad, h=h, steps=self.leapfrog_steps, mass=mass, energy=energy
        )
        log_ratio = state.energy - value + mass.kinetic(p0, state.energy) - mass.kinetic(p, value)
        return metropolis(state, x, value, grad, log_ratio, generator)
