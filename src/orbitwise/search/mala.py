"""Metropolis-adjusted Langevin algorithm (Roberts and Tweedie, Bernoulli 2, 341, 1996)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.search.base import Info, State, start
from orbitwise.search.metropolis import initial_step, metropolis, normal_like, over_event, per_chain


@dataclass(frozen=True)
class MALA:
    """``x' = x - ½h²∇U(x) + h ξ`` with a Metropolis test: one gradient per step.

    ``step_size`` h in units of x. With ``energy.zero_com`` the noise is projected, so the centroid
    stays and the chain lives in 3(N-1) dimensions. Optimal acceptance 0.574 (Roberts and Rosenthal
    1998).
    """

    step_size: float = 0.1
    target_acceptance: ClassVar[float | None] = 0.574
    step_dims: ClassVar[int] = 0

    def init(self, x: Tensor, energy: Energy) -> State:
        value, grad = start(x, energy)
        return State(x, value, grad, initial_step(self.step_size, value))

    def step(
        self, state: State, energy: Energy, generator: torch.Generator | None
    ) -> tuple[State, Info]:
        h = per_chain(state.step_size, state.x)
        noise = normal_like(state.x, generator)
        if energy.zero_com:
            noise = noise - noise.mean(-2, keepdim=True)
        x = state.x + h * (noise - 0.5 * h * state.grad)
        value, grad = energy.value_and_grad(x)
        # The noise that leads back: x = x' - ½h²∇U(x') + h ξ' gives ξ' = ½h(∇U + ∇U') - ξ.
        back = 0.5 * h * (state.grad + grad) - noise
        log_ratio = state.energy - value + 0.5 * over_event(value, noise.square() - back.square())
        return metropolis(state, x, value, grad, log_ratio, generator)
