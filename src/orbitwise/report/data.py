"""What a report shows. Plain values and arrays: nothing here knows how they were made.

Parts that are None or empty leave their section out. Angles are radians, energies kcal/mol above
the lowest minimum, positions Å, populations fractions of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class KeyFigure:
    """A number in large type at the top, with its label and a short note."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Ensembles:
    """The same quantity, one value per structure, in the ensembles that exist: the final
    ``samples``, the samples ``before`` relaxation, what the ``searcher`` visited, and an
    independent long ``reference`` run."""

    samples: np.ndarray
    before: np.ndarray | None = None
    searcher: np.ndarray | None = None
    reference: np.ndarray | None = None


@dataclass(frozen=True)
class TorsionPanel:
    """One torsion angle in radians; ``atoms`` (0-based) place its label in the drawing."""

    label: str
    angles: Ensembles
    atoms: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class FreeEnergy:
    """A free-energy difference in kcal/mol: its standard ``error``, or where there are too few
    samples for one (None) the 95 % ``interval``, infinite on the side that nothing bounds."""

    kcal: float
    error: float | None
    interval: tuple[float, float]


@dataclass(frozen=True)
class ConformerRow:
    """One distinct conformer: population and free energy with standard errors, the energy of its
    minimum, a representative geometry, its torsions (parallel to ``ReportData.torsions``; None
    where not defined).

    Population and free energy in a reference run or else those in the search are shown beside."""

    population: float
    population_error: float
    free_energy_kcal: float
    free_energy_error_kcal: float
    energy_kcal: float
    positions_angstrom: np.ndarray
    torsions: tuple[float | None, ...] = ()
    name: str = ""
    reference_population: float | None = None
    reference_population_error: float | None = None
    search_population: float | None = None
    search_population_error: float | None = None
    free_energy_interval_kcal: tuple[float, float] | None = None
    reference_free_energy: FreeEnergy | None = None
    search_free_energy: FreeEnergy | None = None

    @property
    def free_energy(self) -> FreeEnergy:
        error = self.free_energy_error_kcal if math.isfinite(self.free_energy_error_kcal) else None
        open_ended = (-math.inf, math.inf)
        return FreeEnergy(
            self.free_energy_kcal, error, self.free_energy_interval_kcal or open_ended
        )

    def free_energy_in(self, other: str) -> FreeEnergy | None:
        """That in ``"reference"`` or ``"search"``."""
        return getattr(self, f"{other}_free_energy")

    def population_in(self, other: str) -> tuple[float | None, float | None]:
        """Population and error in ``"reference"`` or ``"search"``."""
        return getattr(self, f"{other}_population"), getattr(self, f"{other}_population_error")


def beside(rows: Sequence[ConformerRow]) -> str | None:
    """What the populations can be compared with: ``"reference"``, else ``"search"``, else
    nothing."""
    return next(
        (
            o
            for o in ("reference", "search")
            if any(r.population_in(o)[0] is not None for r in rows)
        ),
        None,
    )


@dataclass(frozen=True)
class CheckRow:
    """One comparison with the reference, as text ready to read; ``good`` colours it (None: no
    judgement)."""

    what: str
    samples: str
    before: str = ""
    target: str = ""
    good: bool | None = None


@dataclass(frozen=True)
class StageRow:
    """Where time and energy evaluations went."""

    name: str
    seconds: float
    energy_calls: int = 0
    gradient_calls: int = 0
    note: str = ""


@dataclass(frozen=True)
class Citation:
    """One line of the reference list."""

    text: str
    url: str = ""


@dataclass(frozen=True)
class Picture:
    """A static figure: the bytes of a PNG, the heading it stands under, and what it shows."""

    png: bytes
    title: str
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """A table of text under its own heading, with a note below; the first column is aligned
    left."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class CellRow:
    """One crystal of the page: ``frac (N, 3)``, ``lattice (3, 3)`` rows in Å, ``numbers (N,)``;
    ``columns``: its cells of the table; ``caption`` below the view."""

    frac: np.ndarray
    lattice: np.ndarray
    numbers: np.ndarray
    columns: tuple[str, ...]
    caption: str


@dataclass(frozen=True)
class ReportData:
    """Everything on the page. ``numbers: (N,)`` atomic numbers and ``bonds`` of the structures;
    ``map_pair`` says which two torsions are drawn against each other (None: no map). ``meanings``:
    terms of the page and what they mean; ``kicker``: what kind of page this is."""

    title: str
    smiles: str
    temperature_kelvin: float
    numbers: np.ndarray
    bonds: tuple[tuple[int, int], ...]
    subtitle: str = ""
    key_figures: tuple[KeyFigure, ...] = ()
    summary: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    torsions: tuple[TorsionPanel, ...] = ()
    map_pair: tuple[int, int] | None = None
    energies_kcal: Ensembles | None = None
    conformers: tuple[ConformerRow, ...] = ()
    conformers_note: str = ""
    checks: tuple[CheckRow, ...] = ()
    stages: tuple[StageRow, ...] = ()
    method: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    seed: int | None = None
    commit: str = ""
    command: str = ""
    created: str = ""
    citations: tuple[Citation, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    meanings: tuple[tuple[str, str], ...] = ()
    kicker: str = "Conformer ensemble"
    cells: tuple[CellRow, ...] = ()
    cells_head: tuple[str, ...] = ()
    cells_note: str = ""
