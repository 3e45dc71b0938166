"""Levels: the samples of a cheap energy carried to a better one, with exact weights.

The two have other bond lengths and angles, so that weights alone would rest on no sample at all:
the samples go through energies between the two (sequential Monte Carlo, ``search.carry``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.methods.conformers.clock import Budget, Clock, shown
from orbitwise.methods.conformers.effort import plan_particles
from orbitwise.methods.conformers.exchange.crew import threads
from orbitwise.methods.conformers.exchange.found import Found
from orbitwise.methods.conformers.exchange.pooled import of_search
from orbitwise.methods.conformers.system import System
from orbitwise.molecules.search.stereo import Stereo
from orbitwise.runs.stages import Kept, Pipeline, Step
from orbitwise.search.carry import carry, weighted_mean

ISLANDS = 8  # carried apart: their scatter is the error
LEAPFROG = 8
MOVES = 2  # of every particle at every level
CESS = 0.9  # effective share of the particles that a step in λ keeps
STARTS = 6000  # frames of the search that stand for it
PARTS = 100  # of the progress bar


@dataclass(frozen=True)
class Levels(Kept):
    """Weighted samples of the better energy: ``x: (n, N, 3)``, its ``energy: (n,)`` [kT],
    ``log_weight: (n,)`` float64, ``island: (n,)``.

    ``free_energy``: of the better level above the cheap one [kT], with its error; ``ess``:
    effective samples by weight, ``families``: effective starts that they descend from;
    ``levels: (L,)`` the λ between the two, ``acceptance: (L,)`` of the dynamics there;
    ``complete``: False where the time limit cut the moves short.
    """

    x: Tensor
    energy: Tensor
    log_weight: Tensor
    island: Tensor
    levels: Tensor
    acceptance: Tensor
    free_energy: float
    free_energy_error: float
    ess: float
    families: float
    complete: bool
    seconds: float

    kept_as: ClassVar = {"seconds": "seconds_of_carrying"}  # a stage has its own

    def populations(self, label: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Of conformers ``label: (n,)`` in [0, count), -1 for none: ``(count,)`` each, populations
        and their standard errors over islands."""
        seen = (label[:, None] == torch.arange(count, device=label.device)).to(self.log_weight)
        return weighted_mean(seen, self.log_weight, self.island)


def carry_up(
    system_low: System,
    system_high: System,
    x: Tensor,
    log_weights: Tensor | None = None,
    *,
    particles: int = 512,
    seed: int = 0,
    seconds: float | None = None,
) -> Levels:
    """Carry samples ``x: (M, N, 3)`` of ``system_low.energy``, weighted by ``log_weights: (M,)`` or
    alike, to ``system_high.energy`` of the same molecule at the same temperature.

    Samples of one chain belong together in ``x``: its contiguous parts are carried apart, and their
    scatter is the error. ``particles`` is rounded down to a multiple of 8. ``seconds`` limits the
    time: the path is taken in fewer levels, which costs effective samples. Costs ``particles · (1 +
    18 L)`` gradients of either energy for L levels (16 L where no bond can turn), 5 to 15 levels
    from MMFF94 to AIMNet2 for a small molecule; evaluations are counted under ``levels``.

    Raises ``InputError`` for systems that do not belong together and ``EnergyError`` where no
    sample has a finite energy at the better level.
    """
    if system_low.temperature != system_high.temperature:
        raise InputError(
            f"both levels need one temperature, got {system_low.temperature:g} and"
            f" {system_high.temperature:g} K"
        )
    x = x.to(device=system_high.device, dtype=system_high.dtype)
    stereo = Stereo.from_mol(system_high.mol, x[0])
    kernel = system_high.kernel(stereo, LEAPFROG)
    low, high = system_low.energy, system_high.energy

    with shown("levels") as show, low.stage("levels"), high.stage("levels"):
        clock = Clock(show, PARTS)
        found = carry(
            low,
            high,
            kernel,
            x,
            log_weights,
            particles=particles,
            islands=ISLANDS,
            moves=MOVES,
            cess=CESS,
            seconds=seconds,
            generator=system_high.generator(seed),
            observe=lambda share: clock(int(PARTS * share)),
        )

    return Levels(
        x=found.x,
        energy=found.energy,
        log_weight=found.log_weight,
        island=found.island,
        levels=found.levels,
        acceptance=found.acceptance,
        free_energy=found.free_energy,
        free_energy_error=found.free_energy_error,
        ess=found.ess,
        families=found.families,
        complete=found.complete,
        seconds=found.seconds,
    )


@dataclass(frozen=True)
class Carry(Step[Levels]):
    """``carry_up`` as a stage, with ``wide`` threads: ``given`` particles, or as many as three
    quarters of what is left of the ``budget`` allow."""

    low: System
    high: System
    budget: Budget
    seed: int
    wide: int
    given: int | None = None

    name, makes = "levels", Levels

    @property
    def key(self) -> dict:
        how = {"particles": self.given} if self.given else {"seconds": self.budget.whole}
        return {"levels": how}

    def make(self, pipe: Pipeline) -> Levels:
        searched, seconds = of_search(pipe[Found].pooled(), STARTS), None
        with threads(self.wide):
            particles = self.given
            if particles is None:
                seconds = self.budget.left(0.75)
                particles = plan_particles(self.high, searched.x[0], 0.8 * seconds)
            return carry_up(
                self.low,
                self.high,
                searched.x,
                searched.log_weight,
                particles=particles,
                seed=self.seed,
                seconds=seconds,
            )
