"""What `orbitwise conformers` is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from orbitwise.methods.conformers.system import Effort
from orbitwise.runs.config import Config


class ConformersConfig(Config):
    """``budget`` in minutes; ``effort`` replaces what the budget would decide, to repeat a run
    elsewhere; ``workers`` share a slow energy out and do not change what it gives."""

    smiles: str
    n: int = Field(1000, ge=10, le=100_000)
    temperature: float = Field(300.0, ge=50, le=2000)
    energy: Literal["mmff94", "mmff94s", "xtb"] = "mmff94"
    budget: float = Field(6.0, gt=0)
    seed: int = Field(0, ge=0)
    out: Path | None = None
    reference: Path | None = None
    workers: int = Field(1, ge=1)
    effort: Effort | None = None
