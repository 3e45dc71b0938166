"""What `orbitwise conformers` leaves in a folder, as arrays and in the types of RDKit and ASE.

``orbitwise`` exports this: what costs time to import is imported where it is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from orbitwise.errors import InputError
from orbitwise.units import EV_PER_K, KCAL_PER_MOL_K

if TYPE_CHECKING:
    from ase import Atoms
    from rdkit import Chem


@dataclass(frozen=True)
class Average:
    """A mean over an ensemble and its standard error, each of the shape of what was averaged.
    ``error`` is None where nothing honest can be said: a search that has not converged."""

    value: np.ndarray | float
    error: np.ndarray | float | None


@dataclass(frozen=True, eq=False)
class ConformerEnsemble:
    """A Boltzmann ensemble of one molecule: n thermal samples of k conformers.

    ``mol``: RDKit molecule with its N atoms, hydrogens included, in the order of all arrays;
    ``smiles`` of the isomer; ``temperature`` in K. Samples: ``positions (n, N, 3)`` in Å,
    ``weights (n,)`` that add up to one, ``energies (n,)`` in kcal/mol above the lowest minimum,
    ``labels (n,)``: to which conformer each belongs, from 0 (-1: to none that is listed).
    Conformers, most populated first where the search says so: ``populations (k,)`` and
    ``population_errors (k,)``, ``free_energies (k,)`` and ``free_energy_errors (k,)`` in kcal/mol
    relative to the first (NaN where the run gives none), ``minima (k, N, 3)`` in Å with
    ``minimum_energies (k,)`` in kcal/mol, ``degeneracies (k,)``. All errors are one standard error.

    ``converged``: whether the run trusts its populations; ``warnings`` say what to know before
    using it. ``effective_samples``: of the search, independent ones. ``folder`` of the run, None
    where it was a temporary one; ``summary``: its summary.json.

    >>> import numpy as np
    >>> import orbitwise as ow
    >>> methanol = ow.sample_conformers("CO", minutes=0.05, n=50, processes=1)
    >>> bond = methanol.average(lambda x: np.linalg.norm(x[0] - x[1]))
    >>> round(float(bond.value), 1)
    1.4
    """

    mol: Chem.Mol
    smiles: str
    temperature: float
    positions: np.ndarray
    weights: np.ndarray
    energies: np.ndarray
    labels: np.ndarray
    populations: np.ndarray
    population_errors: np.ndarray
    free_energies: np.ndarray
    free_energy_errors: np.ndarray
    minima: np.ndarray
    minimum_energies: np.ndarray
    degeneracies: np.ndarray
    converged: bool
    effective_samples: float | None = None
    warnings: tuple[str, ...] = ()
    folder: Path | None = None
    summary: dict = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        state = "converged" if self.converged else "not converged"
        return (
            f"ConformerEnsemble({self.smiles!r}, {len(self)} samples of"
            f" {len(self.populations)} conformers at {self.temperature:g} K, {state})"
        )

    @classmethod
    def load(cls, folder: str | Path) -> ConformerEnsemble:
        """From the folder of a finished run. Raises ``InputError`` naming the file for one that is
        missing or does not fit the others."""
        from orbitwise.data.extxyz import extxyz_frames

        folder = Path(folder)
        told = _summary(folder / "summary.json")
        mol, minima, rows = _conformers(folder / "conformers.sdf")
        numbers = {int(row["conformer"]): k for k, row in enumerate(rows)}
        path = folder / "ensemble.extxyz"
        frames = extxyz_frames(path)
        species = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
        if any(not np.array_equal(frame.species, species) for frame in frames):
            raise InputError(f"{path}: its atoms are not those of conformers.sdf")
        try:
            weights = np.array([float(frame.info["weight"]) for frame in frames])
            energies = np.array([float(frame.info["energy_kcal_mol"]) for frame in frames])
            labels = np.array([numbers.get(int(frame.info["conformer"]), -1) for frame in frames])
        except KeyError as error:
            raise InputError(
                f"{path}: a frame says no {error.args[0]}; run `orbitwise report {folder}`"
            ) from None

        def column(name: str) -> np.ndarray:
            return np.array([row.get(name, math.nan) for row in rows])

        return cls(
            mol=mol,
            smiles=told["isomer"],
            temperature=float(told["temperature_kelvin"]),
            positions=np.array([frame.positions for frame in frames]),
            weights=weights / weights.sum(),
            energies=energies,
            labels=labels,
            populations=column("population"),
            population_errors=column("population_error"),
            free_energies=column("delta_G_kcal_mol"),
            free_energy_errors=column("delta_G_error_kcal_mol"),
            minima=minima,
            minimum_energies=column("delta_E_kcal_mol"),
            degeneracies=column("degeneracy"),
            converged=bool(told.get("delivered", {}).get("converged", False)),
            effective_samples=told["search"].get("effective_samples"),
            warnings=tuple(told["warnings"]),
            folder=folder,
            summary=told,
        )

    def to_rdkit(self) -> Chem.Mol:
        """One molecule with every sample as a conformer, which has the properties ``weight``,
        ``energy_kcal_mol`` and ``conformer``."""
        from orbitwise.molecules.molecule import with_conformers

        mol = with_conformers(self.mol, self.positions)
        rows = zip(mol.GetConformers(), self.weights, self.energies, self.labels, strict=True)
        for conformer, weight, energy, label in rows:
            conformer.SetDoubleProp("weight", float(weight))
            conformer.SetDoubleProp("energy_kcal_mol", float(energy))
            conformer.SetIntProp("conformer", int(label))
        return mol

    def to_ase(self) -> list[Atoms]:
        """Every sample as ASE atoms, energies in eV above the lowest minimum
        (``get_potential_energy()``), ``weight`` and ``conformer`` in ``info``."""
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator

        numbers = [atom.GetAtomicNum() for atom in self.mol.GetAtoms()]
        every = []
        for x, weight, energy, label in zip(
            self.positions, self.weights, self.energies, self.labels, strict=True
        ):
            info = {"weight": float(weight), "conformer": int(label)}
            atoms = Atoms(numbers=numbers, positions=x, info=info)
            ev = float(energy) * EV_PER_K / KCAL_PER_MOL_K
            atoms.calc = SinglePointCalculator(atoms, energy=ev)
            every.append(atoms)
        return every

    def average(self, function: Callable[[np.ndarray], np.ndarray | float]) -> Average:
        """The thermal mean of ``function(x)``, ``x (N, 3)`` in Å, over the samples.

        The error has two parts: that of the populations as the run states it, and the spread
        inside each conformer over the effective number of samples, which is the smaller one of the
        search's and of the weights' (Kish). With multinomial populations it is that of independent
        samples exactly. What one conformer that the search has not seen would change is in no
        error.
        """
        values = np.array([function(x) for x in self.positions], dtype=np.float64)
        if len(values) != len(self) or not np.isfinite(values).all():
            raise InputError("the function is not finite for every sample")
        mean = np.tensordot(self.weights, values, 1)
        error = self._error(values, mean) if self.converged and self.effective_samples else None
        return Average(mean[()], None if error is None else error[()])

    def _error(self, values: np.ndarray, mean: np.ndarray) -> np.ndarray:
        effective = min(float(self.effective_samples), 1 / float((self.weights**2).sum()))
        variance = np.zeros_like(mean)
        for k in np.unique(self.labels):
            here = self.labels == k
            share = self.weights[here].sum()
            inner = self.weights[here] / share
            centre = np.tensordot(inner, values[here], 1)
            spread = np.tensordot(inner, (values[here] - centre) ** 2, 1)
            # the mean of squares about their own mean is short of the variance by this factor
            spread = spread / max(1 - float((inner**2).sum()), 1 / here.sum(), 1e-12)
            variance = variance + share * spread / effective
            if share < 1:
                known = self.population_errors[k] if k >= 0 else math.nan
                sigma = known if np.isfinite(known) else math.sqrt(share * (1 - share) / effective)
                variance = variance + (centre - mean) ** 2 * sigma**2 / (1 - share)
        return np.sqrt(variance)


def _summary(path: Path) -> dict:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path.parent}: no finished run of conformers (there is no {path.name} in it)"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    needed = {"isomer", "temperature_kelvin", "search", "warnings"}
    if not isinstance(told, dict) or not needed <= told.keys():
        raise InputError(f"{path}: this is no summary of a run of conformers")
    return told


def _conformers(path: Path) -> tuple[Chem.Mol, np.ndarray, list[dict[str, float]]]:
    """The molecule without conformers, its minima, and the numbers of each."""
    from rdkit import Chem

    if not path.is_file():
        raise InputError(f"{path}: no such file; run `orbitwise report {path.parent}`")
    mols = list(Chem.SDMolSupplier(str(path), removeHs=False))
    if not mols or any(mol is None or not mol.HasProp("conformer") for mol in mols):
        raise InputError(f"{path}: not written by orbitwise, or damaged")
    minima = np.array([mol.GetConformer().GetPositions() for mol in mols])
    rows = [{name: _number(mol.GetProp(name)) for name in mol.GetPropNames()} for mol in mols]
    bare = Chem.Mol(mols[0])
    bare.RemoveAllConformers()
    for name in list(bare.GetPropNames()):
        bare.ClearProp(name)
    return bare, minima, rows


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
