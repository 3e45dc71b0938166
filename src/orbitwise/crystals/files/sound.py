"""What no crystal can be, for every format alike."""

from __future__ import annotations

import numpy as np

from orbitwise.crystals.crystal import Crystal
from orbitwise.crystals.files.convert import cell_from_parameters
from orbitwise.data.physical import LONGEST_CELL, NEAREST, check_cell, check_distances
from orbitwise.errors import InputError


def check_parameters(values: np.ndarray) -> None:
    """Raise ``InputError`` where a, b, c in Å and α, β, γ in degrees, ``(6,)``, are no cell's."""
    lengths, angles = values[:3], values[3:]
    shown = f"the cell {lengths.tolist()} Å, {angles.tolist()}°"
    if not np.isfinite(values).all():
        raise InputError(f"{shown} has a number that is not finite")
    if lengths.min() <= 0 or angles.min() <= 0 or angles.max() >= 180:
        raise InputError(f"{shown} is none")
    if lengths.max() > LONGEST_CELL or lengths.min() < NEAREST:
        raise InputError(f"{shown} is none; are the lengths in Å?")
    if angles.max() < np.pi:
        raise InputError(f"{shown} is none; are the angles in degrees, not radians?")
    if not np.isfinite(cell_from_parameters(values)).all():
        raise InputError(f"{shown}: these angles span no cell")


def checked(crystal: Crystal) -> Crystal:
    """The crystal itself. Raises ``InputError`` where its cell cannot hold its atoms or two of
    them, images counted, lie on one another."""
    check_cell(crystal.lattice, len(crystal.species))
    try:
        check_distances(crystal.frac @ crystal.lattice, cell=crystal.lattice)
    except InputError as error:
        text = str(error).removesuffix("; are the coordinates in Å?")
        raise InputError(
            f"{text}; are the coordinates fractions of the cell, and its lengths in Å?"
        ) from None
    return crystal
