"""What a record says of charge, bonds and geometry, believed only where it can be true."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from rdkit import Chem

from orbitwise.data.extxyz import is_number
from orbitwise.errors import InputError

_CHARGES = ("charge", "total_charge", "totalcharge", "net_charge", "netcharge")
_UNITS = {0.529: "bohr", 10.0: "nm", 0.01: "pm"}  # Å of one unit
NEAREST, LONGEST = 0.5, 1.7  # Å; and times the sum of covalent radii
FARTHEST = 1e5  # Å from the origin


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
    if not np.isfinite(positions).all():
        raise InputError("a coordinate is not a finite number")
    if np.abs(positions).max() > FARTHEST:
        k = int(np.abs(positions).max(-1).argmax())
        raise InputError(f"atom {k + 1} lies at {positions[k].tolist()} Å: too far away")
    table = Chem.GetPeriodicTable()
    radii = np.array([table.GetRcovalent(a.GetAtomicNum()) for a in mol.GetAtoms()])
    ends = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()])
    if len(ends):
        i, j = ends.T
        length = np.linalg.norm(positions[i] - positions[j], axis=-1)
        ratio = length / (radii[i] + radii[j])
        typical = float(np.median(ratio))
        unit = next((u for size, u in _UNITS.items() if abs(typical * size - 1) < 0.15), None)
        guess = f"; are the coordinates in {unit}? They have to be in Å" if unit else ""
        if (worst := int(ratio.argmax())) >= 0 and ratio[worst] > LONGEST:
            raise InputError(
                f"the bond {i[worst] + 1}-{j[worst] + 1} is {length[worst]:.4g} Å long{guess}"
            )

    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    distance[np.diag_indices(len(positions))] = np.inf
    if distance.min() < NEAREST:
        a, b = np.unravel_index(distance.argmin(), distance.shape)
        hint = "; are the coordinates in Å?" if np.median(distance.min(0)) < NEAREST else ""
        raise InputError(f"atoms {a + 1} and {b + 1} lie {distance.min():.3f} Å apart{hint}")


def check_orders(mol: Chem.Mol) -> None:
    """Raise ``InputError`` where a bond is one of a query, or its order is not told."""
    kinds = (Chem.BondType.UNSPECIFIED, Chem.BondType.ZERO, Chem.BondType.OTHER)
    for bond in mol.GetBonds():
        if bond.GetBondType() in kinds or bond.HasQuery():
            ends = f"{bond.GetBeginAtomIdx() + 1}-{bond.GetEndAtomIdx() + 1}"
            raise InputError(f"the bond {ends} has no definite order; give single, double, triple")
