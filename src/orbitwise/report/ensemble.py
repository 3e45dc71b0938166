"""The block of an ensemble of one molecule: its conformers, torsions and energies.

Angles are radians, energies kcal/mol above the lowest minimum, positions Å, populations fractions
of one. Parts that are None or empty leave their section out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Distributions:
    """The same quantity, one value per structure, in the ensembles that exist: the final
    ``samples``, those of a ``learned`` model beside them, and an independent long ``reference``
    run."""

    samples: np.ndarray
    learned: np.ndarray | None = None
    reference: np.ndarray | None = None

    def present(self) -> list[tuple[str, np.ndarray]]:
        """Name and values of each that there is, in the order they are drawn."""
        found = [(k, getattr(self, k)) for k in ("samples", "learned", "reference")]
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
class Beside:
    """What another ensemble says of the same conformer: its population and the standard error
    (None where it has none), and its free-energy difference."""

    population: float | None
    error: float | None = None
    free_energy: FreeEnergy | None = None


@dataclass(frozen=True)
class ConformerRow:
    """One distinct conformer: population and free energy with standard errors, the energy of its
    minimum, a representative geometry, its torsions (parallel to ``Ensemble.torsions``; None where
    not defined), and in how many ways its equal atoms can be labelled (``degeneracy``).

    ``beside``: the same conformer in other ensembles, by their names."""

    population: float
    population_error: float
    free_energy_kcal: float
    free_energy_error_kcal: float
    energy_kcal: float
    positions_angstrom: np.ndarray
    torsions: tuple[float | None, ...] = ()
    name: str = ""
    free_energy_interval_kcal: tuple[float, float] | None = None
    degeneracy: int | None = None
    beside: Mapping[str, Beside] = field(default_factory=dict)

    @property
    def free_energy(self) -> FreeEnergy:
        error = self.free_energy_error_kcal if math.isfinite(self.free_energy_error_kcal) else None
        open_ended = (-math.inf, math.inf)
        return FreeEnergy(
            self.free_energy_kcal, error, self.free_energy_interval_kcal or open_ended
        )

    def population_in(self, other: str) -> tuple[float | None, float | None]:
        """Population and error in another ensemble."""
        found = self.beside.get(other, Beside(None))
        return found.population, found.error


def others(rows: Sequence[ConformerRow]) -> list[str]:
    """The ensembles that stand beside, in the order of the rows."""
    return list(dict.fromkeys(name for row in rows for name in row.beside))


@dataclass(frozen=True)
class Ensemble:
    """Structures of one molecule at ``temperature_kelvin``. ``numbers: (N,)`` atomic numbers and
    ``bonds`` of the structures; ``map_pair`` says which two torsions are drawn against each other
    (None: no map); ``head`` names the population of the rows themselves where others stand beside
    it, ``note`` stands below the table of the conformers."""

    numbers: np.ndarray
    temperature_kelvin: float
    bonds: tuple[tuple[int, int], ...] = ()
    conformers: tuple[ConformerRow, ...] = ()
    head: str = "Samples"
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
