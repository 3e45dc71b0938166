"""A long reference run of a molecule in one small file, to judge an ensemble by."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from orbitwise.data.archive import Array, read_archive
from orbitwise.data.folder import replacing
from orbitwise.data.physical import check_distances
from orbitwise.errors import InputError

_SCHEMA = {
    "torsions": Array("f", "M D", finite=True),
    "energy": Array("f", "M", finite=True),
    "bond_mean": Array("f", "bonds", finite=True),
    "minima": Array("f", "C N 3", finite=True),
    "population": Array("f", "C", finite=True),
    "population_error": Array("f", "C"),
    "meta": Array("U", ""),
}


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
        """Raises ``InputError`` for a file that is missing or is not a reference, and for numbers
        that no ensemble has."""
        try:
            found = read_archive(path, _SCHEMA)
            meta = json.loads(str(found.pop("meta")))
            if not isinstance(meta, dict):
                raise InputError(f"{path}: meta is no table")
        except (InputError, ValueError, RecursionError) as error:
            raise InputError(
                f"{path} is not a reference file ({str(error).removeprefix(f'{path}: ')}); make one"
                " with python -m benchmarks.references.reference_ensembles"
            ) from None
        arrays = {name: array.astype(np.float64) for name, array in found.items()}
        total = arrays["population"].sum()
        if arrays["population"].min(initial=0) < 0 or total > 1.5:
            raise InputError(f"{path}: its populations are none, they add up to {total:.3g}")
        for k, minimum in enumerate(arrays["minima"], 1):
            try:
                check_distances(minimum)
            except InputError as error:
                raise InputError(f"{path}, conformer {k}: {error}") from None
        return cls(**arrays, meta=meta)
