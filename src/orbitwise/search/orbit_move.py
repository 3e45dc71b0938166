"""Moves along the orbit of a symmetry group."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import EnergyError
from orbitwise.groups.base import Group, Kind
from orbitwise.search.base import Info, State, start
from orbitwise.search.metropolis import initial_step, metropolis


def _move(group: Group, g, x: Tensor, energy: Energy, kind: Kind) -> Tensor:
    """``g·x`` for points ``(*B, N, D)``; an event ``(D,)`` is one point."""
    if len(energy.event_shape) == 1:
        return group.act(g, x.unsqueeze(-2), kind=kind).squeeze(-2)
    return group.act(g, x, kind=kind)


def _draw(group: Group, shape: torch.Size, x: Tensor, generator: torch.Generator | None):
    device = x.device if generator is None else generator.device
    g = group.sample(shape, generator=generator, device=device, dtype=x.dtype)
    return tuple(f.to(x.device) for f in g) if isinstance(g, tuple) else g.to(x.device)


@dataclass(frozen=True, eq=False)
class OrbitMove:
    """``x' = g·x`` with g from Haar measure, for a symmetry of the energy: always accepted, no
    evaluation.

    The gradient moves along as a vector. ``init`` tries four elements per chain and raises
    ``EnergyError`` if the energy changes by more than ``tolerance`` (kT, plus the same share of
    |U|); then use ``ApproximateOrbitMove``.
    """

    group: Group
    tolerance: float = 1e-3
    target_acceptance: ClassVar[float | None] = None
    step_dims: ClassVar[int] = 0

    def init(self, x: Tensor, energy: Energy) -> State:
        value, grad = start(x, energy)
        probe = _draw(
            self.group, (4, *value.shape), x, torch.Generator(device=x.device).manual_seed(0)
        )
        there, slope = energy.value_and_grad(_move(self.group, probe, x, energy, "point"))
        change = (there - value).abs()
        # A gradient that does not turn along shows a group that is not orthogonal.
        expected = _move(self.group, probe, grad, energy, "vector")
        turned = (slope - expected).abs().flatten(change.ndim).amax(-1)
        allowed = self.tolerance * (1 + value.abs())
        allowed_turn = 10 * self.tolerance * (1 + grad.abs().flatten(value.ndim).amax(-1))
        if (change > allowed).any() or (turned > allowed_turn).any():
            raise EnergyError(
                f"{type(self.group).__name__} is no symmetry of {type(energy).__name__}: U changes"
                f" by up to {change.max().item():.3g} kT, its gradient by"
                f" {turned.max().item():.3g}; use ApproximateOrbitMove"
            )
        return State(x, value, grad, initial_step(1.0, value))

    def step(
        self, state: State, energy: Energy, generator: torch.Generator | None
    ) -> tuple[State, Info]:
        g = _draw(self.group, state.energy.shape, state.x, generator)
        state = replace(
            state,
            x=_move(self.group, g, state.x, energy, "point"),
            grad=_move(self.group, g, state.grad, energy, "vector"),
        )
        sure = torch.zeros_like(state.energy)
        return state, Info(torch.ones_like(sure, dtype=torch.bool), sure)


@dataclass(frozen=True, eq=False)
class ApproximateOrbitMove:
    """``x' = g·x`` with g from Haar measure and a Metropolis test: one evaluation per step.

    For groups that the energy respects only approximately. Haar measure of a compact group makes
    the proposal symmetric; the action must preserve volume, as those of all groups of this package
    on points do.
    """

    group: Group
    target_acceptance: ClassVar[float | None] = None
    step_dims: ClassVar[int] = 0

    def init(self, x: Tensor, energy: Energy) -> State:
        value, grad = start(x, energy)
        return State(x, value, grad, initial_step(1.0, value))

    def step(
        self, state: State, energy: Energy, generator: torch.Generator | None
    ) -> tuple[State, Info]:
        x = _move(
            self.group,
            _draw(self.group, state.energy.shape, state.x, generator),
            state.x,
            energy,
            "point",
        )
        value, grad = energy.value_and_grad(x)
        return metropolis(state, x, value, grad, state.energy - value, generator)
