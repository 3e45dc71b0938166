"""Several kernels in turn, as one kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.search.base import Info, Kernel, State


@dataclass(frozen=True)
class CycleState(State):
    """``parts``: what each kernel carries besides the common position, energy and gradient."""

    parts: tuple[State, ...]


@dataclass(frozen=True)
class CycleInfo(Info):
    """Acceptance of the kernel that owns the step size (the first where none does); ``parts``: the
    reports of all steps in order, repeats one after the other."""

    parts: tuple[Info, ...]


@dataclass(frozen=True, eq=False)
class Cycle:
    """Kernel after kernel, the k-th ``repeats[k]`` times (default once each).

    At most one of them may have a step size to adapt: ``state.step_size`` is that one's. Raises
    ``InputError`` for no kernel, for several with a step size, and for repeats that do not fit.
    """

    kernels: tuple[Kernel, ...]
    repeats: tuple[int, ...] | None = None

    def __post_init__(self):
        tuned = [k for k in self.kernels if k.target_acceptance is not None]
        if not self.kernels or len(tuned) > 1:
            raise InputError(
                f"a cycle needs kernels, at most one of them with a step size; got {len(tuned)}"
                f" with and {len(self.kernels) - len(tuned)} without"
            )
        if self.repeats is not None and (
            len(self.repeats) != len(self.kernels) or min(self.repeats) < 1
        ):
            raise InputError(
                f"{len(self.kernels)} kernels need as many repeats >= 1, got {self.repeats}"
            )

    @property
    def _owner(self) -> int:
        return next((i for i, k in enumerate(self.kernels) if k.target_acceptance is not None), 0)

    @property
    def target_acceptance(self) -> float | None:
        return self.kernels[self._owner].target_acceptance

    @property
    def step_dims(self) -> int:
        return self.kernels[self._owner].step_dims

    def init(self, x, energy: Energy) -> CycleState:
        parts = tuple(kernel.init(x, energy) for kernel in self.kernels)
        own = parts[self._owner]
        return CycleState(own.x, own.energy, own.grad, own.step_size, parts)

    def step(
        self, state: CycleState, energy: Energy, generator: torch.Generator | None
    ) -> tuple[CycleState, CycleInfo]:
        owner, parts, infos, now = self._owner, list(state.parts), [], state
        for k, (kernel, repeat) in enumerate(
            zip(self.kernels, self.repeats or (1,) * len(self.kernels), strict=True)
        ):
            part = replace(parts[k], x=now.x, energy=now.energy, grad=now.grad)
            if k == owner:
                part = replace(part, step_size=state.step_size)
                first = len(infos)
            for _ in range(repeat):
                part, info = kernel.step(part, energy, generator)
                infos.append(info)
            parts[k] = now = part
        state = replace(state, x=now.x, energy=now.energy, grad=now.grad, parts=tuple(parts))
        return state, CycleInfo(infos[first].accepted, infos[first].log_accept, tuple(infos))
