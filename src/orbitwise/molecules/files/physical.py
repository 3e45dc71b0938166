"""What a record says of charge, bonds and geometry, believed only where it can be true."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from rdkit import Chem

from orbitwise.data.extxyz import is_number
from orbitwise.data.physical import (
    check_coordinates,
    check_distances,
    unit_guess,
)
from orbitwise.errors import InputError
from orbitwise.molecules.bonds import ALL_ONE, perceive_bonds

_CHARGES = ("charge", "total_charge", "totalcharge", "net_charge", "netcharge")
LONGEST = 1.7  # times the sum of covalent radii
# What RDKit's valence model knows well enough: where it finds no orders, something is wrong.
_ORGANIC = frozenset((1, 5, 6, 7, 8, 9, 15, 16, 17, 35, 53))
_GUESSES = (1, -1, 2, -2)  # charges tried for a hint


def charge_of(info: Mapping[str, object]) -> int | None:
    """Total charge of an extended XYZ comment, None where it says none: ``charge=``,
    ``total_charge=`` and the like in any case; as 1, +1, 1+, 0.9999999, or one value for each atom.
    ``InputError`` for what is no whole number."""
    given = {str(key).lower(): value for key, value in info.items()}
    key = next((name for name in _CHARGES if name in given), None)
    if key is None:
        return None
    value = given[key]
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+)([+-])|([+-])(\d+)", value)):
        number, sign = match.group(1) or match.group(4), match.group(2) or match.group(3)
        value = int(f"{sign}{number}")
    elif isinstance(value, (list, tuple, np.ndarray)) and np.asarray(value).dtype.kind in "if":
        value = float(np.sum(value))
    if not is_number(value) or not abs(value) < 1e3 or not abs(value - round(value)) < 1e-3:
        raise InputError(f"{key}={value} is no charge; write a whole number")
    return round(value)


def check_geometry(mol: Chem.Mol, positions: np.ndarray) -> None:
    """Raise ``InputError`` where atoms of ``positions: (N, 3)`` in Å are too near each other or a
    bond is too long to be one; a unit is guessed."""
    if len(positions) < 2:
        return
    check_coordinates(positions)
    species = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    ends = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()])
    if len(ends):
        i, j = ends.T
        table = Chem.GetPeriodicTable()
        radii = np.array([table.GetRcovalent(int(z)) for z in species])
        length = np.linalg.norm(positions[i] - positions[j], axis=-1)
        ratio = length / (radii[i] + radii[j])
        if ratio[worst := int(ratio.argmax())] > LONGEST:
            raise InputError(
                f"the bond {i[worst] + 1}-{j[worst] + 1} is {length[worst]:.4g} Å"
                f" long{unit_guess(float(np.median(ratio)))}"
            )
    check_distances(positions, species=species)


def is_organic(mol: Chem.Mol) -> bool:
    """Whether every element is one whose bond orders and open shells RDKit tells surely."""
    return all(atom.GetAtomicNum() in _ORGANIC for atom in mol.GetAtoms())


def check_closed_shell(mol: Chem.Mol) -> None:
    """Raise ``InputError`` where an atom of an organic molecule has an unpaired electron."""
    odd = [a.GetIdx() + 1 for a in mol.GetAtoms() if a.GetNumRadicalElectrons()]
    if odd and is_organic(mol):
        raise InputError(
            f"atom {odd[0]} is a radical; conformers need every atom and closed shells"
        )


def charge_that_fits(species: np.ndarray, positions: np.ndarray) -> int | None:
    """The smallest charge other than 0 for which bond orders of ``positions: (N, 3)`` are found."""
    for charge in _GUESSES:
        if perceive_bonds(species, positions[None], charge=charge).source != ALL_ONE:
            return charge
    return None


def check_orders(mol: Chem.Mol) -> None:
    """Raise ``InputError`` where a bond is one of a query, or its order is not told."""
    kinds = (Chem.BondType.UNSPECIFIED, Chem.BondType.ZERO, Chem.BondType.OTHER)
    for bond in mol.GetBonds():
        if bond.GetBondType() in kinds or bond.HasQuery():
            ends = f"{bond.GetBeginAtomIdx() + 1}-{bond.GetEndAtomIdx() + 1}"
            raise InputError(f"the bond {ends} has no definite order; give single, double, triple")
