"""What no crystal can be, for every format alike."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from orbitwise.crystals.crystal import Crystal
from orbitwise.crystals.files.convert import cell_from_parameters
from orbitwise.data.physical import (
    LONGEST_CELL,
    NEAREST,
    check_cell,
    check_distances,
    unit_guess,
)
from orbitwise.errors import InputError

# Nearest distance over the sum of the covalent radii: 0.61 to 1.32 in crystals of the Materials
# Project, perovskites and carbons; more in those of noble gases.
RATIOS = (0.5, 1.45)
USUAL_RATIO, USUAL_VOLUME = 0.92, 16.0  # their medians, the second in Å³ per atom
GAPS = (10.0, 25.0)  # Å without an atom: noted, refused; crystals have up to 23
FARTHEST_CELLS = 100.0
_NOBLE = {2, 10, 18, 36, 54, 86}


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


def check_fractions(frac: np.ndarray) -> None:
    """Raise ``InputError`` where one of ``frac: (N, 3)``, before it is wrapped, is no fraction."""
    if np.abs(frac).max() > FARTHEST_CELLS:
        k = int(np.abs(frac).max(-1).argmax())
        shown = ", ".join(f"{value:.4g}" for value in frac[k])
        raise InputError(f"atom {k + 1} lies at ({shown}) cells: too far away")


def checked(crystal: Crystal, notes: list[str] | None = None) -> Crystal:
    """The crystal itself; ``notes`` gets what is odd about it.

    Raises ``InputError`` where its cell cannot hold its atoms, a coordinate lies many cells away,
    two atoms, images counted, lie on one another, or where most of the cell is empty.
    """
    try:
        check_cell(crystal.lattice, len(crystal))
    except InputError as error:
        volume = abs(np.linalg.det(crystal.lattice)) / len(crystal)
        raise InputError(f"{error}{unit_guess((volume / USUAL_VOLUME) ** (1 / 3))}") from None
    check_fractions(crystal.frac)
    notes = [] if notes is None else notes
    _check_neighbours(crystal, notes)
    _check_gap(crystal, notes)
    return crystal


def _check_neighbours(crystal: Crystal, notes: list[str]) -> None:
    """The nearest pair of atoms against the sum of their covalent radii."""
    ratio, distance = _wrapped(crystal)
    heights = 1 / np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)
    if heights.min() < 2 * NEAREST:
        check_distances(crystal.frac @ crystal.lattice, cell=crystal.lattice)
    if ratio.min() > RATIOS[1]:  # wrapping may have missed the nearest images of a skew cell
        ratio, distance = _all_images(crystal)
    i, j = sorted(int(k) for k in np.unravel_index(int(ratio.argmin()), ratio.shape))
    near, least = float(distance[i, j]), float(ratio[i, j])
    names = f"atoms {i + 1} and {j + 1} ({', '.join(_symbols(crystal, i, j))})"
    if near < NEAREST or least < RATIOS[0]:
        guess = "; are the coordinates fractions of the cell, and its lengths in Å?"
        raise InputError(f"{names} lie {near:.3f} Å apart{unit_guess(least / USUAL_RATIO)}{guess}")
    bound = set(crystal.species.tolist()) - _NOBLE - {1}  # helium and solid hydrogen are loose
    if least > RATIOS[1] and bound:
        guess = unit_guess(least / USUAL_RATIO) or "; is the cell in Å?"
        notes.append(f"no two atoms lie nearer than {names}: {near:.2f} Å{guess}")


def _check_gap(crystal: Crystal, notes: list[str]) -> None:
    """The widest layer without an atom along one of the axes."""
    heights = 1 / np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)
    if heights.max() < GAPS[0]:
        return
    places = np.sort(crystal.frac % 1.0, axis=0)
    gaps = np.diff(np.concatenate([places, places[:1] + 1]), axis=0).max(0) * heights
    axis = int(gaps.argmax())
    if gaps[axis] > GAPS[0]:
        words = f"{gaps[axis]:.1f} Å along {'abc'[axis]} without an atom: a layer or a molecule?"
        if gaps[axis] > GAPS[1]:
            raise InputError(words)
        notes.append(words)


def _wrapped(crystal: Crystal) -> tuple[np.ndarray, np.ndarray]:
    """Distances over radii, and distances, ``(N, N)``; exact below half the height of the cell."""
    apart = crystal.frac[:, None] - crystal.frac[None]
    apart -= apart.round()
    distance = np.sqrt(((apart @ crystal.lattice) ** 2).sum(-1))
    np.fill_diagonal(distance, np.linalg.norm(crystal.lattice, axis=-1).min())
    return distance / _radii(crystal), distance


def _all_images(crystal: Crystal) -> tuple[np.ndarray, np.ndarray]:
    """The same over the neighbouring cells."""
    apart = crystal.frac[:, None] - crystal.frac[None]
    apart -= apart.round()
    distance = np.full(apart.shape[:2], np.inf)
    for shift in np.ndindex(3, 3, 3):
        moved = apart + np.array(shift) - 1
        length = np.sqrt(((moved @ crystal.lattice) ** 2).sum(-1))
        if shift == (1, 1, 1):
            np.fill_diagonal(length, np.inf)
        distance = np.minimum(distance, length)
    return distance / _radii(crystal), distance


def _radii(crystal: Crystal) -> np.ndarray:
    radii = covalent_radii[crystal.species]
    return radii[:, None] + radii


def _symbols(crystal: Crystal, *atoms: int) -> list[str]:
    return [chemical_symbols[crystal.species[k]] for k in atoms]
