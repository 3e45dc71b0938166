"""A file of conformers made ready for learning: one labelling, training and held-out frames."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rdkit import Chem

from orbitwise.errors import InputError
from orbitwise.molecules.files.structures import read_molecule
from orbitwise.molecules.handedness import relabel
from orbitwise.molecules.molecule import parse_smiles

_FEWEST = 10


@dataclass(frozen=True)
class Ensemble:
    """``training: (F, N, 3)`` and ``held_out: (H, N, 3)`` in Å, centred, with one labelled
    handedness, of the molecule ``mol``; ``bond_source`` as in ``Frames``; ``digest`` of the
    file."""

    mol: Chem.Mol
    training: np.ndarray
    held_out: np.ndarray
    bond_source: str
    digest: str


def read_ensemble(
    path: str | Path, *, smiles: str | None = None, held_out: float = 0.2, seed: int = 0
) -> Ensemble:
    """Read conformers of one molecule and set a random share of them aside.

    ``smiles`` gives the bonds of a file that has none. Raises ``InputError`` as ``read_molecule``
    does, for fewer than 10 frames, and for frames of another stereoisomer than the first.
    """
    template = None if smiles is None else parse_smiles(smiles)
    frames = read_molecule(path, smiles_mol=template)
    if len(frames) < _FEWEST:
        raise InputError(
            f"{path}: {len(frames)} frames; learning an ensemble needs {_FEWEST} at the least"
        )
    result = relabel(frames.mol, frames.positions_angstrom)
    other = np.flatnonzero(~result.same_isomer)
    if len(other):
        raise InputError(
            f"{frames.where[other[0]]}: another stereoisomer than the first frame ({len(other)} of "
            f"{len(frames)} frames are); give the frames of one isomer"
        )
    x = result.positions - result.positions.mean(1, keepdims=True)
    order = np.random.default_rng(seed).permutation(len(x))
    apart = min(max(1, round(held_out * len(x))), len(x) - 1)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return Ensemble(
        frames.mol, x[np.sort(order[apart:])], x[np.sort(order[:apart])], frames.bond_source, digest
    )
