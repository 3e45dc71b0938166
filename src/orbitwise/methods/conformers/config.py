"""What `orbitwise conformers` is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from orbitwise.methods.conformers.system import Effort
from orbitwise.runs.config import Config, Seed
from orbitwise.runs.said import Name

# Energies whose search would take hours: by default a force field searches for them.
LEVELLED = ("aimnet2", "xtb")


class ConformersConfig(Config):
    """A molecule, what its ensemble is to be, and how much may be spent.

    ``budget`` in minutes of wall clock; the search ends before where populations are known to
    ``precision`` (their standard error). ``effort`` replaces what the budget would decide, to
    repeat a run elsewhere. ``learner``: mixtures of torsions as moves of the search, the published
    pipeline with a diffusion model beside it, or none. ``search_energy``: a cheaper energy to
    search with, whose samples are carried to ``energy``; where None, MMFF94 for AIMNet2 and xTB,
    otherwise ``energy`` itself. ``processes`` share the search (all cores where None), ``workers``
    a slow energy; neither changes what comes out.
    """

    smiles: str
    n: int = Field(1000, ge=10, le=100_000)
    temperature: float = Field(300.0, ge=50, le=2000)
    energy: Name = Name("mmff94")
    solvent: str | None = None
    search_energy: Name | None = None
    budget: float = Field(6.0, gt=0, allow_inf_nan=False)
    precision: float = Field(0.01, gt=0, lt=0.5)
    seed: Seed = 0
    out: Path | None = None
    reference: Path | None = None
    workers: int = Field(1, ge=1)
    processes: int | None = Field(None, ge=1)
    effort: Effort | None = None
    learner: Literal["torsions", "diffusion", "none"] = "torsions"

    @property
    def cheaper(self) -> ConformersConfig | None:
        """The same with the cheaper energy, in the gas phase; None where the search has the energy
        itself."""
        default = "mmff94" if self.energy in LEVELLED else self.energy
        name = self.search_energy or default
        if name == self.energy:
            return None
        return self.model_copy(update={"energy": name, "solvent": None, "workers": 1})
