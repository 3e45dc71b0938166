"""Energies of rotatable bonds as functions of their torsion, from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from orbitwise.data.archive import Array, read_archive
from orbitwise.errors import InputError
from orbitwise.molecules.identity import identity_of
from orbitwise.molecules.torsion_graph import TorsionData
from orbitwise.units import KCAL_PER_MOL_K

SPLITS = {"train": 0, "val": 1, "test": 2}
_ARRAYS = {
    "smiles": Array("U", "R"),
    "atoms": Array("i", "R 4"),
    "energy_kcal": Array("f", "R G"),
    "angle_degree": Array("f", "G"),
    "split": Array("i", "R", optional=True),
}


@dataclass(frozen=True, eq=False)
class TorsionProfiles:
    """R rotors: ``smiles`` of each, ``atoms: (R, 4)`` in the order of the SMILES (hydrogens after
    all others), ``energy_kcal: (R, G)`` at G even angles from -180° on."""

    smiles: tuple[str, ...]
    atoms: np.ndarray
    energy_kcal: np.ndarray

    def __len__(self) -> int:
        return len(self.smiles)

    def shares(self, temperature: float) -> Tensor:
        """Boltzmann shares of the angles, ``(R, G)`` float64; temperature in K."""
        energy = torch.from_numpy(self.energy_kcal).double()
        return (-energy / (KCAL_PER_MOL_K * temperature)).softmax(-1)

    def data(self, temperature: float) -> TorsionData:
        """What a network reads, one graph for each different SMILES."""
        unique = list(dict.fromkeys(self.smiles))
        molecules = [Chem.AddHs(Chem.MolFromSmiles(s)) for s in unique]
        number = {s: k for k, s in enumerate(unique)}
        rotors = [(number[s], a) for s, a in zip(self.smiles, self.atoms, strict=True)]
        return TorsionData.of(molecules, rotors, self.shares(temperature))


def read_torsion_profiles(path: str | Path, splits: Sequence[str] = ()) -> TorsionProfiles:
    """The rotors of an ``.npz`` archive: ``smiles (R,)``, ``atoms (R, 4)``, ``energy_kcal (R, G)``,
    ``angle_degree (G,)`` even from -180 on, and ``split (R,)`` (0 train, 1 validation, 2 test; all
    are train without). A molecule, with its stereoisomers and isotopologues, belongs to one split.

    ``splits``: only those of these, all when empty. Raises ``InputError`` with the file, the array
    or the row, and what to do.
    """
    arrays = read_archive(path, _ARRAYS)
    smiles, atoms, energy = arrays["smiles"], arrays["atoms"], arrays["energy_kcal"]
    rows, grid = len(smiles), arrays["angle_degree"]
    outside = np.flatnonzero((atoms < 0).any(1))
    if len(outside):
        raise InputError(f"{path}: atoms of row {outside[0]} are {atoms[outside[0]].tolist()}")
    even = -180 + 360 / max(len(grid), 1) * np.arange(len(grid))
    if len(grid) < 8 or not np.allclose(grid, even, atol=0.01):
        raise InputError(
            f"{path}: angle_degree must be at least 8 even angles -180, ..., below 180; bring the"
            " profiles onto such a grid"
        )
    if bad := np.flatnonzero(~np.isfinite(energy).all(1)).tolist():
        raise InputError(f"{path}: energy_kcal of row {bad[0]} is not finite; leave the row out")
    split = arrays.get("split", np.zeros(rows, dtype=int))
    _check_split(path, smiles, split)
    wanted = [SPLITS[name] for name in splits] or list(SPLITS.values())
    keep = np.flatnonzero(np.isin(split, wanted))
    for row in keep:
        if Chem.MolFromSmiles(str(smiles[row])) is None:
            raise InputError(f"{path}: row {row}: RDKit cannot read the SMILES {smiles[row]!r}")
    if not len(keep):
        raise InputError(f"{path}: there is no rotor of {', '.join(splits) or 'any split'}")
    return TorsionProfiles(
        tuple(str(smiles[row]) for row in keep), atoms[keep].astype(int), energy[keep]
    )


def _check_split(path: str | Path, smiles: np.ndarray, split: np.ndarray) -> None:
    """Raise ``InputError`` for a molecule that is trained on and held out, however written."""
    if len(set(split.tolist())) < 2:
        return
    names = {text: identity_of(text, exact=False) for text in set(map(str, smiles))}
    first: dict[str, int] = {}
    for row, text in enumerate(map(str, smiles)):
        one = first.setdefault(names[text], row)
        if split[one] != split[row]:
            raise InputError(
                f"{path}: rows {one} ({smiles[one]}) and {row} ({text}) are one molecule in two"
                " splits; give both the same"
            )
