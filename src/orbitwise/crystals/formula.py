"""A formula, read as the atoms of one cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orbitwise.errors import InputError

LIMIT = 100  # atoms


def species_of(formula: str) -> np.ndarray:
    """Atomic numbers ``(N,)`` of the cell that a formula spells, SrTiO3: 38 22 8 8 8.

    Raises ``InputError`` for what is no formula, an unknown element, amounts that are not whole,
    and more atoms than ``LIMIT``.
    """
    from pymatgen.core import Composition
    from pymatgen.core.periodic_table import DummySpecies

    text = formula.strip()
    problem = f"{formula!r} is no chemical formula"
    if not text or not text.isascii():
        raise InputError(f"{problem}; write it as in SrTiO3 or Ca(OH)2")
    try:
        composition = Composition(text)
    except Exception as error:  # pymatgen raises many kinds here
        raise InputError(
            f"{problem} ({' '.join(str(error).split())}); write it as in SrTiO3"
        ) from error
    if not composition:
        raise InputError(f"{problem}: there are no atoms in it")
    strange = [str(e) for e in composition if isinstance(e, DummySpecies)]
    if strange:
        raise InputError(f"{problem}: unknown element {strange[0]}")
    counts = {e.Z: amount for e, amount in composition.items()}
    if any(abs(amount - round(amount)) > 1e-6 or amount < 0.5 for amount in counts.values()):
        raise InputError(f"{formula!r}: amounts must be whole numbers; multiply it until they are")
    total = round(sum(counts.values()))
    if total > LIMIT:
        raise InputError(
            f"{formula!r} has {total:,} atoms, the limit is {LIMIT}; give one formula unit or a few"
        )
    return np.repeat(list(counts), [round(amount) for amount in counts.values()]).astype(np.int64)


def letters(formula: str) -> str:
    """A formula as part of the name of a file."""
    return "".join(c for c in formula if c.isalnum())


def symbols_of(numbers: Sequence[int]) -> str:
    """Element symbols, comma between."""
    from ase.data import chemical_symbols

    return ", ".join(chemical_symbols[int(z)] for z in numbers)
