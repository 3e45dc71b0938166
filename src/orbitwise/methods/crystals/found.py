"""What `orbitwise crystals` is asked for, and what it found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from orbitwise.crystals.domain import Domain
from orbitwise.crystals.matching.rank import Candidate
from orbitwise.runs.config import Config, Seed

BONDS = "how well bonds fit charges (global instability index)"
COUNT = "how often it was drawn"


class CrystalsConfig(Config):
    """``run``: folder of a trained run or a packaged model (default: the shipped one); ``n``
    structures are drawn; ``prompt``: a text, for a model that was trained with texts; ``relax``
    with CHGNet before ranking; ``trust``: code that the model names may run."""

    formula: str
    run: Path | None = None
    n: int = Field(20, ge=1, le=10_000)
    prompt: str | None = None
    relax: bool = False
    seed: Seed = 0
    out: Path | None = None
    trust: bool = Field(False, exclude=True)


@dataclass(frozen=True)
class Found:
    """What the report needs: the candidates, in order, and where they came from; of the structures
    ``drawn`` so many were ``valid``; ``settings`` of the command, as the report prints them."""

    formula: str
    candidates: list[Candidate]
    drawn: int
    valid: int
    settings: dict[str, Any]
    evaluations: int
    domain: Domain
    energies: str | None
    energy_calls: int
    gradient_calls: int
    warnings: tuple[str, ...]
    seconds: dict[str, float]

    @property
    def by_bonds(self) -> bool:
        """Whether the candidates are ranked by their instability indices."""
        return any(rounded(c.instability) is not None for c in self.candidates)

    @property
    def order(self) -> str:
        """What the candidates are ranked by, in words."""
        if self.energies:
            return f"energy per atom ({self.energies})"
        return BONDS if self.by_bonds else COUNT


def rounded(value: float | None) -> float | None:
    """To five decimals; None for what is not finite."""
    return None if value is None or not np.isfinite(value) else round(value, 5)
