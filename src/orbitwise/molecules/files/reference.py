"""A long reference run of a molecule in one small file, to judge an ensemble by."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from orbitwise.data.folder import replacing
from orbitwise.errors import InputError


@dataclass(frozen=True)
class Reference:
    """What is kept of a long run at one temperature.

    ``torsions: (M, D)`` radians, the torsions of ``metrics.torsions.find_torsions`` in its order;
    ``energy: (M,)`` kT; ``bond_mean: (bonds,)`` Å in RDKit's bond order; conformers as ``minima:
    (C, N, 3)`` Å with ``population: (C,)`` and its standard ``population_error``; ``meta``: smiles,
    energy, temperature, evaluations, seed, command ...
    """

    torsions: np.ndarray
    energy: np.ndarray
    bond_mean: np.ndarray
    minima: np.ndarray
    population: np.ndarray
    population_error: np.ndarray
    meta: dict = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        arrays = {
            "torsions": self.torsions.astype(np.float16),  # a tenth of a degree: far below any bin
            "energy": self.energy.astype(np.float32),
            "bond_mean": self.bond_mean,
            "minima": self.minima.astype(np.float32),
            "population": self.population,
            "population_error": self.population_error,
        }
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, meta=np.array(json.dumps(self.meta)), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Reference:
        """Raises ``InputError`` for a file that is missing or is not a reference."""
        try:
            with np.load(path, allow_pickle=False) as file:
                names = (
                    "torsions",
                    "energy",
                    "bond_mean",
                    "minima",
                    "population",
                    "population_error",
                )
                arrays = [file[name].astype(np.float64) for name in names]
                return cls(*arrays, meta=json.loads(str(file["meta"])))
        except FileNotFoundError:
            raise InputError(f"there is no reference file {path}") from None
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise InputError(
                f"{path} is not a reference file ({error}); make one with"
                " python -m benchmarks.references.reference_ensembles"
            ) from None
