"""Columns of the replica exchange, and a task that moves some of them on.

A column is one replica at every temperature. Columns never meet, so they may live in any process;
between two rounds they are plain tensors, which travel and are kept on disk.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.molecules.search.stereo import Stereo
from orbitwise.search.run import run
from orbitwise.search.tempering import ReplicaExchange, ReplicaState, geometric_ladder
from orbitwise.search.warmup import warmup

if TYPE_CHECKING:
    from orbitwise.molecules.search.mixture_move import MixtureMove

HOT_EVERY = 4  # kept frames of the target temperature for each one of the hotter ones


@dataclass(frozen=True)
class Columns:
    """C columns of T temperatures between two rounds: ``x, grad: (T, C, N, 3)``, ``energy,
    step_size, replica, leg: (T, C)``, ``round_trips: (C,)``, ``clock: (2,)`` steps made and parity
    of the next swaps, ``random`` the state of their generator."""

    x: Tensor
    grad: Tensor
    energy: Tensor
    step_size: Tensor
    replica: Tensor
    leg: Tensor
    round_trips: Tensor
    clock: Tensor
    random: Tensor

    @staticmethod
    def of(state: ReplicaState, generator: torch.Generator) -> Columns:
        clock = torch.tensor([state.steps, state.parity])
        own = {f.name: getattr(state, f.name, None) for f in fields(Columns)}
        return Columns(**own | {"clock": clock, "random": generator.get_state()})

    def state(self, kernel: ReplicaExchange, energy: Energy) -> ReplicaState:
        """Where they left off; the energy is asked once, for what the kernels carry besides."""
        steps, parity = self.clock.tolist()
        own = {f.name: getattr(self, f.name) for f in fields(self)[:-2]}
        return replace(kernel.init(self.x, energy), steps=steps, parity=parity, **own)

    def generator(self, device: torch.device) -> torch.Generator:
        generator = torch.Generator(device=device)
        generator.set_state(self.random.cpu())
        return generator


@dataclass(frozen=True)
class Round:
    """What one round left: ``columns``; frames of the target ``x: (S, C, N, 3)``, ``energy: (S,
    C)`` and of the hotter temperatures ``hot_x: (S', T-1, C, N, 3)``, ``hot_energy``; of
    ``steps`` steps the accepted moves ``accepted: (T,)``, swaps tried and accepted ``(T-1,)``
    (means over columns), moves refused for stereochemistry; seconds of ``wall`` clock and of
    ``processor``."""

    columns: Columns
    x: Tensor
    energy: Tensor
    hot_x: Tensor
    hot_energy: Tensor
    steps: int
    accepted: Tensor
    swaps_tried: Tensor
    swaps: Tensor
    refused: int
    wall: float
    processor: float


def exchange(
    system: System, effort: Effort, like: Tensor, mixture: MixtureMove | None
) -> ReplicaExchange:
    """The replica exchange of a molecule whose stereochemistry is that of ``like: (N, 3)``."""
    betas = geometric_ladder(system.temperature, system.hottest, effort.rungs).to(system.device)
    kernel = system.kernel(Stereo.from_mol(system.mol, like), effort.leapfrog, mixture)
    return ReplicaExchange(kernel, betas)


def begin(system: System, effort: Effort, starts: Tensor, seed: int, steps: int) -> Columns:
    """Columns from ``starts: (C, N, 3)``, with step sizes tuned in ``steps`` steps."""
    generator = system.generator(seed)
    kernel = exchange(system, effort, starts[0], None)
    state = kernel.init(starts.expand(effort.rungs, *starts.shape).contiguous(), system.energy)
    if steps:
        state = warmup(kernel, state, system.energy, steps, generator=generator)
    return Columns.of(state, generator)


def advance(
    system: System,
    effort: Effort,
    columns: Columns,
    like: Tensor,
    mixture: MixtureMove | None,
    *,
    made: int,
    steps: int,
    thin: int,
) -> Round:
    """``steps`` more steps. Of the steps that count, of which ``made`` are made, every ``thin``-th
    is kept of the target and every ``HOT_EVERY * thin``-th of the hotter temperatures."""
    clocks = time.monotonic(), time.process_time()
    kernel, generator = exchange(system, effort, like, mixture), columns.generator(system.device)
    cold: list[tuple[Tensor, Tensor]] = []
    hot: list[tuple[Tensor, Tensor]] = []

    def keep(n: int, state: ReplicaState, _info) -> None:
        if (made + n) % thin == 0:
            cold.append((state.x[0].clone(), state.energy[0].clone()))
        if (made + n) % (HOT_EVERY * thin) == 0:
            hot.append((state.x[1:].clone(), state.energy[1:].clone()))

    trace = run(
        kernel,
        columns.state(kernel, system.energy),
        system.energy,
        steps,
        generator=generator,
        thin=steps + 1,
        observe=keep,
    )
    if trace.interrupted:
        raise KeyboardInterrupt
    x, energy = _stacked(cold, columns.x[0], columns.energy[0])
    hot_x, hot_energy = _stacked(hot, columns.x[1:], columns.energy[1:])
    rates = trace.rates
    return Round(
        columns=Columns.of(trace.state, generator),
        x=x,
        energy=energy,
        hot_x=hot_x,
        hot_energy=hot_energy,
        steps=steps,
        accepted=steps * rates.accepted.mean(-1),
        swaps_tried=steps * rates.swap_tried,
        swaps=steps * rates.swap_accepted.mean(-1),
        refused=trace.count("left_class"),
        wall=time.monotonic() - clocks[0],
        processor=time.process_time() - clocks[1],
    )


def _stacked(
    frames: list[tuple[Tensor, Tensor]], x: Tensor, energy: Tensor
) -> tuple[Tensor, Tensor]:
    if not frames:
        return x.new_empty(0, *x.shape), energy.new_empty(0, *energy.shape)
    return torch.stack([f[0] for f in frames]), torch.stack([f[1] for f in frames])


def thinning(steps: int, limit: int) -> int:
    """The smallest power of two that leaves at most ``limit`` of ``steps`` steps."""
    return 2 ** max(0, math.ceil(math.log2(max(1, steps) / max(1, limit))))
