"""Crystals to and from pymatgen structures, ASE atoms, and cell lengths and angles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from orbitwise.crystals.crystal import Crystal
from orbitwise.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core import Structure


def cell_from_parameters(lengths_angles: np.ndarray) -> np.ndarray:
    """Cell vectors ``(*B, 3, 3)`` in Å (rows) from a, b, c in Å and α, β, γ in degrees, ``(*B,
    6)``.

    The orientation is that of pymatgen's ``Lattice.from_parameters``: c along z, a in the xz plane.
    Angles that do not span a cell give a matrix with NaN in it.
    """
    values = np.asarray(lengths_angles, dtype=np.float64)
    a, b, c = np.moveaxis(values[..., :3], -1, 0)
    alpha, beta, gamma = np.moveaxis(np.radians(values[..., 3:]), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (np.cos(alpha) * np.cos(beta) - np.cos(gamma)) / (np.sin(alpha) * np.sin(beta))
        reciprocal = np.arccos(
            np.where(np.abs(cosine) < 1, cosine, np.nan)
        )  # γ* of the reciprocal cell
    zero = np.zeros_like(a) * reciprocal  # NaN where the rest is
    rows = (
        (a * np.sin(beta), zero, a * np.cos(beta)),
        (
            -b * np.sin(alpha) * np.cos(reciprocal),
            b * np.sin(alpha) * np.sin(reciprocal),
            b * np.cos(alpha),
        ),
        (zero, zero, c + zero),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)


def to_structure(crystal: Crystal) -> Structure:
    """The pymatgen ``Structure`` with the same atoms in the same order; raises
    ``MissingExtraError``."""
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice(crystal.lattice), [int(z) for z in crystal.species], crystal.frac)


def from_structure(structure: Structure, name: str = "") -> Crystal:
    """The ``Crystal`` of a pymatgen structure, fractional coordinates in [0, 1).

    Raises ``InputError`` for partial occupancy, mixed sites and species that are not elements.
    """
    if not structure.is_ordered:
        site = next(s for s in structure if not s.is_ordered)
        raise InputError(
            f"the site {site.species_string} is disordered or partly occupied; order it first"
        )
    numbers = [getattr(s.specie, "Z", None) for s in structure]
    strange = [str(s.specie) for s, z in zip(structure, numbers, strict=True) if not _is_number(z)]
    if strange:
        raise InputError(f"unknown element {strange[0]!r}")
    frac = np.asarray(structure.frac_coords, dtype=np.float64)
    species = np.array(numbers, dtype=np.int64)
    return Crystal(
        wrapped(frac), np.array(structure.lattice.matrix, dtype=np.float64), species, name
    )


def to_atoms(crystal: Crystal) -> Atoms:
    """The ASE ``Atoms`` with the same atoms in the same order, periodic along all three vectors."""
    info = {"name": crystal.name} if crystal.name else {}
    return Atoms(
        numbers=crystal.species,
        scaled_positions=crystal.frac,
        cell=crystal.lattice,
        pbc=True,
        info=info,
    )


def from_atoms(atoms: Atoms, name: str = "") -> Crystal:
    """The ``Crystal`` of ASE atoms; raises ``InputError`` where there is no cell of three
    vectors."""
    cell = np.array(atoms.cell.array, dtype=np.float64)
    if abs(np.linalg.det(cell)) < 1e-3:
        raise InputError(
            "there is no cell with a volume; give three cell vectors (Lattice=... in extxyz)"
        )
    frac = np.linalg.solve(cell.T, atoms.positions.T).T
    return Crystal(wrapped(frac), cell, np.array(atoms.numbers, dtype=np.int64), name)


def wrapped(frac: np.ndarray) -> np.ndarray:
    """Fractional coordinates in [0, 1), also where ``% 1`` rounds up to 1."""
    inside = frac % 1.0
    return np.where(inside >= 1.0, 0.0, inside)


def _is_number(z: object) -> bool:
    return isinstance(z, int | np.integer) and 1 <= z <= 118
