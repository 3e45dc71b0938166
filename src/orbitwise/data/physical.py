"""What cannot be a structure of matter: one check of coordinates, cells and forces for all readers.

Each raises ``InputError`` with the atom or the value; a reader adds the file and the record. Where
all lengths are off by one factor the message guesses the unit.
"""

from __future__ import annotations

import numpy as np
from ase.cell import Cell
from ase.data import covalent_radii
from ase.neighborlist import primitive_neighbor_list
from scipy.spatial import cKDTree

from orbitwise.errors import InputError

NEAREST = 0.5  # Å: no two nuclei of matter lie nearer (H2: 0.74)
FARTHEST = 1e5  # Å from the origin
LONGEST_CELL = 1e3  # Å
VOLUMES = (1.5, 2000.0)  # Å³ per atom; hydrogen at high pressure, a molecule in a large box
LARGEST_FORCE = 1e4  # eV/Å
_UNITS = {"bohr": 0.529177, "nm": 10.0, "pm": 0.01}  # Å of one unit


def unit_guess(ratio: float) -> str:
    """Half a sentence that names a unit, where lengths that are ``ratio`` times what they should be
    (in Å) would be right in it; empty where none fits."""
    near = (unit for unit, angstrom in _UNITS.items() if abs(ratio * angstrom - 1) < 0.15)
    unit = next(near, None)
    return f"; are the coordinates in {unit}? They have to be in Å" if unit else ""


def likely_unit(species: np.ndarray, positions: np.ndarray) -> str:
    """``unit_guess`` of ``positions: (N, 3)`` by their nearest neighbours, each taken for bonded;
    ``species: (N,)`` are atomic numbers."""
    if len(positions) < 2:
        return ""
    distance, near = cKDTree(positions).query(positions, k=2)
    near = np.where(near[:, 0] == np.arange(len(near)), near[:, 1], near[:, 0])
    radii = covalent_radii[np.clip(species, 0, len(covalent_radii) - 1)]
    return unit_guess(float(np.median(distance[:, 1] / (radii + radii[near]))))


def check_coordinates(positions: np.ndarray) -> None:
    """Raise ``InputError`` where one of ``positions: (N, 3)`` in Å is not finite, or lies farther
    from the origin than anything here."""
    wrong = ~(np.abs(positions) <= FARTHEST)
    if wrong.any():
        k, axis = (int(i) for i in np.argwhere(wrong)[0])
        value = float(positions[k, axis])
        what = "too far away" if np.isfinite(value) else "not a finite number"
        raise InputError(f"coordinate {'xyz'[axis]} of atom {k + 1} is {value:g}: {what}")


def check_distances(
    positions: np.ndarray,
    *,
    cell: np.ndarray | None = None,
    nearest: float = NEAREST,
    species: np.ndarray | None = None,
) -> None:
    """Raise ``InputError`` where two of ``positions: (N, 3)`` in Å lie nearer than ``nearest``;
    with ``cell: (3, 3)`` (rows are its vectors) periodic images count, an atom's own as well. With
    ``species: (N,)`` (atomic numbers) the message names the unit that would explain it."""
    check_coordinates(positions)
    i, j, distance = _nearest_pair(positions, cell, nearest)
    if distance < nearest:
        pair = f"atoms {i + 1} and {j + 1} lie" if i != j else f"images of atom {i + 1} lie"
        hint = "" if species is None else likely_unit(species, positions)
        raise InputError(f"{pair} {distance:.3f} Å apart{hint or '; are the coordinates in Å?'}")


def check_cell(cell: np.ndarray, n: int) -> None:
    """Raise ``InputError`` where ``cell: (3, 3)`` in Å (rows are its vectors) cannot hold ``n``
    atoms: not finite, too long, flat, or with too little or too much room for each."""
    if not np.isfinite(cell).all():
        raise InputError("the cell has a length or an angle that is not a finite number")
    lengths = np.linalg.norm(cell, axis=-1)
    if lengths.max() > LONGEST_CELL or lengths.min() < NEAREST:
        shown = ", ".join(f"{length:.4g}" for length in lengths)
        raise InputError(f"the cell's lengths are {shown} Å; are they in Å?")
    volume = float(abs(np.linalg.det(cell))) / n
    if not VOLUMES[0] <= volume <= VOLUMES[1]:
        few = "; are the angles in degrees and the lengths in Å?" if volume < VOLUMES[0] else ""
        raise InputError(f"the cell has {volume:.3g} Å³ per atom{few}")


def check_forces(forces: np.ndarray) -> None:
    """Raise ``InputError`` where one of ``forces: (N, 3)`` in eV/Å is not finite or larger than a
    simulation of matter gives."""
    wrong = ~(np.abs(forces) <= LARGEST_FORCE)
    if wrong.any():
        k, axis = (int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"force {'xyz'[axis]} of atom {k + 1} is {float(forces[k, axis]):g} eV/Å: no force of"
            " a structure that one could train on"
        )


def _is_roomy(cell: np.ndarray, cutoff: float) -> bool:
    """Whether the faces of a cell lie more than twice ``cutoff`` apart."""
    return bool(np.linalg.norm(np.linalg.inv(cell), axis=0).max() * 2 * cutoff < 1)


def _nearest_pair(
    positions: np.ndarray, cell: np.ndarray | None, cutoff: float
) -> tuple[int, int, float]:
    """Two atoms and their distance, the nearest below ``cutoff``; infinite where there are none."""
    if cell is not None and _is_roomy(cell, cutoff) and len(positions) <= 200:
        # nearer than half a height the wrapped difference is the nearest image; no own image is
        apart = np.linalg.solve(cell.T, positions.T).T
        apart = apart[:, None] - apart[None]
        apart -= apart.round()
        distances = np.sqrt(((apart @ cell) ** 2).sum(-1))
        np.fill_diagonal(distances, np.inf)
        i, j = np.unravel_index(int(distances.argmin()), distances.shape)
        near = float(distances[i, j])
        return (int(i), int(j), near) if near < cutoff else (0, 0, np.inf)
    if cell is not None:
        i, j, d = primitive_neighbor_list("ijd", [True] * 3, Cell(cell), positions, cutoff)
        k = int(d.argmin()) if len(d) else -1
        return (int(i[k]), int(j[k]), float(d[k])) if len(d) else (0, 0, np.inf)
    if len(positions) < 2:
        return 0, 0, np.inf
    distance, other = cKDTree(positions).query(positions, k=2)
    k = int(distance[:, 1].argmin())
    near = int(other[k, 0] if other[k, 0] != k else other[k, 1])
    return min(k, near), max(k, near), float(distance[k, 1])
