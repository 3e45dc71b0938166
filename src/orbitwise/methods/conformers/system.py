"""What `orbitwise conformers` works on: a molecule with its energy, and how much of everything is
to be done."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict
from rdkit import Chem

from orbitwise.energies.counted import Counted
from orbitwise.molecules.search.stereo import KeepStereo, Stereo
from orbitwise.molecules.search.torsion_move import TorsionMove, rotatable_bonds
from orbitwise.search.base import Kernel
from orbitwise.search.cycle import Cycle
from orbitwise.search.hmc import HMC

LEARNED_MOVES = 4  # for each trajectory of HMC: autocorrelation per energy call is least there
HOTTEST = 1000.0  # K; torsional barriers of a few kcal/mol are a few kT there


class Effort(BaseModel):
    """How much of everything: decided from the budget and the measured speed, then kept with the
    results and accepted back.

    Search: ``shards`` (independent parts, which processes share) of ``chains / shards`` columns of
    ``rungs`` replicas; ``warm_steps`` that are thrown away and ``search_steps`` in all (0: until
    the populations are precise or the budget is spent), of whose frames ``quenched`` are;
    ``particles`` that are carried to a better energy. Learner: the other fields; 0 training steps
    are planned once the search is there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    chains: int
    rungs: int
    leapfrog: int
    search_steps: int
    train_steps: int = 0
    batch_size: int = 64
    denoise_steps: int = 12
    relax_steps: int = 0
    weigh_paths: int = 500
    shards: int | None = None
    warm_steps: int | None = None
    quenched: int | None = None
    particles: int | None = None

    @property
    def warm(self) -> int:
        """Steps of the search before those that count."""
        return self.search_steps // 4 if self.warm_steps is None else self.warm_steps

    def of_search(self) -> dict:
        """What the search depends on, apart from its length."""
        names = {"chains", "rungs", "leapfrog", "shards", "warm_steps"}
        return self.model_dump(include=names, exclude_none=True) | {"warm_steps": self.warm}

    def energy_calls(self, n: int) -> int:
        """Expected evaluations of search, relaxation and weights; clustering adds some 50 a
        structure."""
        step = self.leapfrog + 1
        moves = step * (self.search_steps * self.rungs * self.chains + self.relax_steps * n)
        return moves + self.weigh_paths + 50 * (n + 6000)


@dataclass(frozen=True)
class System:
    """A molecule with its energy at one temperature, ready to be moved."""

    mol: Chem.Mol
    energy: Counted
    temperature: float
    device: torch.device
    dtype: torch.dtype

    def kernel(self, stereo: Stereo, leapfrog: int, learned: Kernel | None = None) -> Kernel:
        """HMC, torsion jumps where a bond can turn, and ``learned`` moves; all keep the stereo
        class."""
        moves: list[Kernel] = [KeepStereo(HMC(0.015, leapfrog, jitter=0.2), stereo)]
        if rotatable_bonds(self.mol):
            moves.append(KeepStereo(TorsionMove.from_mol(self.mol), stereo))
        if learned is not None:
            moves.append(KeepStereo(learned, stereo))
        repeats = (1, 1, LEARNED_MOVES)[: len(moves)]
        return Cycle(tuple(moves), repeats) if len(moves) > 1 else moves[0]

    @property
    def hottest(self) -> float:
        """The highest temperature of the search, in K."""
        return max(HOTTEST, 2 * self.temperature)

    def rungs(self) -> int:
        """Temperatures needed so that neighbours swap about every third try: energy fluctuations
        grow with the square root of the number of degrees of freedom."""
        spread = math.log(self.hottest / self.temperature)
        return 1 + math.ceil(0.5 * spread * math.sqrt(3 * self.mol.GetNumAtoms()))

    def generator(self, seed: int) -> torch.Generator:
        return torch.Generator(device=self.device).manual_seed(seed)
