"""Molecules as a person names them: a SMILES, or a file of structures or of SMILES.

One record that cannot be used never stops the rest: it is an entry with its error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rdkit import Chem
from rdkit.rdBase import BlockLogs

from orbitwise.errors import InputError
from orbitwise.molecules.files.entry import Entry
from orbitwise.molecules.files.lists import csv_entries, smiles_entries
from orbitwise.molecules.files.records import pdb_entries, sdf_entries, xyz_entries
from orbitwise.molecules.identity import identity_of
from orbitwise.molecules.molecule import parse_smiles

_LISTS = {
    ".smi": smiles_entries,
    ".smiles": smiles_entries,
    ".ism": smiles_entries,
    ".txt": smiles_entries,
    ".csv": csv_entries,
    ".tsv": csv_entries,
}
_STRUCTURES = {
    ".sdf": sdf_entries,
    ".sd": sdf_entries,
    ".mol": sdf_entries,
    ".xyz": xyz_entries,
    ".extxyz": xyz_entries,
    ".pdb": pdb_entries,
}
KINDS = ".smi, .txt or .csv of SMILES, .sdf, .mol, .xyz, .extxyz or .pdb"


@dataclass(frozen=True)
class Inputs:
    """``entries`` in the order of the file. ``file`` is None where a SMILES was given; ``listed``:
    a file that is made for many molecules, even where one stands in it. ``frames``: records left
    out because an earlier one is the same molecule, of a file of structures."""

    entries: tuple[Entry, ...]
    file: Path | None = None
    listed: bool = False
    frames: int = 0

    @property
    def single(self) -> Entry | None:
        """The only entry of what is not a list."""
        return self.entries[0] if len(self.entries) == 1 and not self.listed else None


def read_inputs(argument: str, *, charge: int | None = None) -> Inputs:
    """The molecules of a SMILES or of a file (``KINDS``), told apart by the file's existence.

    ``charge``: of the molecules of .xyz, .extxyz and .pdb files, where those do not say it.
    Stereochemistry of three-dimensional records is kept in the SMILES. Raises ``InputError`` for
    what is neither, a file that cannot be read at all, and one without a molecule; what is wrong
    with one record is in its entry.
    """
    path = _existing(argument)
    if path is None or path.is_dir():
        return _of_smiles(argument, folder=path is not None)
    suffix = path.suffix.lower()
    if suffix not in _LISTS | _STRUCTURES:
        raise InputError(f"{path}: cannot tell the format; use a name that ends in {KINDS}")
    if charge is not None and suffix in (*_LISTS, ".sdf", ".sd", ".mol"):
        raise InputError(
            f"{path}: it says the charges itself; --charge is for .xyz, .extxyz and .pdb"
        )

    if suffix in _LISTS:
        entries = tuple(_LISTS[suffix](path))
        frames = 0
    else:
        every = list(_STRUCTURES[suffix](path, charge))
        entries = _once(every)
        frames = len(every) - len(entries)
        if len(every) > 1 and all(entry.smiles is None for entry in every):
            raise InputError(
                f"{path}: none of its {len(every)} records can be used; the first: {every[0].error}"
            )
    if not entries:
        raise InputError(f"{path}: there is no molecule in it")
    return Inputs(entries, path, suffix in _LISTS, frames)


def _existing(argument: str) -> Path | None:
    """The path of this name, where there is something."""
    try:
        path = Path(argument).expanduser()
        return path if argument.strip() and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long for a name, a null byte, no such home
        return None


def _of_smiles(argument: str, folder: bool) -> Inputs:
    try:
        parse_smiles(argument)
    except InputError as error:
        if folder:
            raise InputError(
                f"{argument}: is a folder, not a file, and not a SMILES either; name a file that"
                f" ends in {KINDS}"
            ) from None
        with BlockLogs():
            known = Chem.MolFromSmiles(argument, sanitize=False) is not None
        if known or not argument.strip():
            raise  # it is one, and what is wrong with it is enough
        raise InputError(f"no file {argument!r}, and not a SMILES: {error}") from None
    return Inputs((Entry("", argument.strip(), None, 1),))


def _once(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Without later frames of the same molecule."""

    def first() -> Iterator[Entry]:
        seen = set()
        for entry in entries:
            name = None if entry.smiles is None else identity_of(entry.smiles)
            if name is None or name not in seen:
                yield entry
            seen.add(name)

    return tuple(first())
