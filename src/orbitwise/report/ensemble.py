"""The block of an ensemble of one molecule: its conformers, torsions and energies.

Angles are radians, energies kcal/mol above the lowest minimum, positions Å, populations fractions
of one. Parts that are None or empty leave their section out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Distributions:
    """The same quantity, one value per structure, in the ensembles that exist: the final
    ``samples``, the samples ``before`` relaxation, what the ``searcher`` visited, and an
    independent long ``reference`` run."""

    samples: np.ndarray
    before: np.ndarray | None = None
    searcher: np.ndarray | None = None
    reference: np.ndarray | None = None

    def present(self) -> list[tuple[str, np.ndarray]]:
        """Name and values of each that there is, in the order they are drawn."""
        found = [(k, getattr(self, k)) for k in ("samples", "searcher", "before", "reference")]
        return [
            (k, np.asarray(v, dtype=float).ravel()) for k, v in found if v is not None and len(v)
        ]


@dataclass(frozen=True)
class TorsionPanel:
    """One torsion angle in radians; ``atoms`` (0-based) place its label in the drawing."""

    label: str
    angles: Distributions
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
    minimum, a representative geometry, its torsions (parallel to ``Ensemble.torsions``; None where
    not defined).

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
    for other in ("reference", "search"):
        if any(r.population_in(other)[0] is not None for r in rows):
            return other
    return None


@dataclass(frozen=True)
class Ensemble:
    """Structures of one molecule at ``temperature_kelvin``. ``numbers: (N,)`` atomic numbers and
    ``bonds`` of the structures; ``map_pair`` says which two torsions are drawn against each other
    (None: no map); ``note`` stands below the table of the conformers."""

    numbers: np.ndarray
    temperature_kelvin: float
    bonds: tuple[tuple[int, int], ...] = ()
    conformers: tuple[ConformerRow, ...] = ()
    note: str = ""
    torsions: tuple[TorsionPanel, ...] = ()
    map_pair: tuple[int, int] | None = None
    energies_kcal: Distributions | None = None

    @property
    def pair(self) -> tuple[TorsionPanel, TorsionPanel] | None:
        """The two torsions of the map."""
        if self.map_pair is None:
            return None
        first, second = self.map_pair
        return self.torsions[first], self.torsions[second]

    @property
    def numbered(self) -> frozenset[int]:
        """Atoms (0-based) that the label of a torsion calls by number: a drawing has to show it."""
        return frozenset(
            atom
            for panel in self.torsions
            if any(c.isdigit() for c in panel.label)
            for atom in panel.atoms or ()
        )
