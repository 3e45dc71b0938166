"""What `orbitwise audit` is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from orbitwise.runs.config import Config, Seed


class AuditConfig(Config):
    """``run`` of a trained model, or ``model`` ("package.module:name") or ``ase`` calculator with
    ``data`` (extended XYZ); ``nodes``: group elements per item, "tetrahedral:2", "octahedral:2",
    "icosahedral:2", "all" of a finite group, or a number of random ones; ``items``: at most so many
    structures; ``levels``: those of a run to look at (noise levels t in (0, 1) of a diffusion
    model); ``budget``: seconds after which no further batch is begun; ``trust``:
    code that the run names may run."""

    run: Path | None = None
    model: str | None = None
    ase: str | None = None
    data: Path | None = None
    group: Literal["so3", "o3", "permutation"] = "so3"
    nodes: str | None = None
    items: int = Field(64, ge=1)
    levels: tuple[float, ...] | None = None
    loss: str = "squared"
    gradients: bool = False
    budget: float = Field(300.0, gt=0)
    seed: Seed = 0
    out: Path | None = None
    trust: bool = Field(False, exclude=True)
