"""One molecule of a file, or what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

from orbitwise.errors import InputError
from orbitwise.molecules.molecule import parse_smiles


@dataclass(frozen=True)
class Entry:
    """``name`` as the file has it, empty where it has none; ``smiles``, or else ``error`` in
    words; ``number`` of the line or record, from 1."""

    name: str
    smiles: str | None
    error: str | None
    number: int

    @classmethod
    def of(cls, name: str, smiles: str, number: int) -> Entry:
        """From a SMILES as written, which may be none."""
        try:
            parse_smiles(smiles)
        except InputError as error:
            return cls(name, None, str(error), number)
        return cls(name, smiles.strip(), None, number)
