"""What MMFF94 needs to know about one molecule, read from RDKit's typing: terms, atoms and force
constants.

Functional form: T. A. Halgren, J. Comput. Chem. 17, 490-519 (1996); variant "s": ibid. 20, 720-729
(1999).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdForceFieldHelpers, rdmolops

from orbitwise.errors import EnergyError, InputError

# MMFF94 atom types whose angles are bent about 180 degrees: =C= and C of a triple bond, the central
# N of an azide and its like, the N of an isonitrile or a diazonium (column "lin" of MMFFPROP.PAR).
LINEAR_TYPES = frozenset({4, 53, 61})
# Atomic numbers with MMFF94 atom types (the metals only as bare ions).
ELEMENTS = frozenset({1, 3, 6, 7, 8, 9, 11, 12, 14, 15, 16, 17, 19, 20, 26, 29, 30, 35, 53})
ONE_FOUR_ELECTROSTATICS = 0.75


@dataclass(frozen=True)
class MMFFParameters:
    """All terms of one molecule of N atoms, in kcal/mol, Å, degrees and electron charges.

    The bonded terms are functions of bond lengths, of the cosine of each angle and of its unit
    normal. With the unit vectors u of two bonds ``(a, b) = angle_bonds[row]``, the cosine is
    ``angle_sign (u_a·u_b)`` and the normal n is u_a × u_b normalised; a torsion has cos φ =
    ``torsion_sign`` (n_first·n_second) with the normals of its two angles. Angles come in the
    order: three for each out-of-plane centre, other bent ones, linear ones.
    """

    n_atoms: int
    bonds: np.ndarray  # (nb, 2) atoms; the bond vector runs from the first to the second
    bond_k: np.ndarray  # (nb,) md/Å
    bond_r0: np.ndarray  # (nb,) Å
    angles: np.ndarray  # (na, 3) atoms i, j, k with j in the middle
    angle_bonds: np.ndarray  # (na, 2) rows of ``bonds``: j-i and j-k
    angle_sign: np.ndarray  # (na,) ±1
    angle_k: np.ndarray  # (na,) md Å/rad²
    angle_theta0: np.ndarray  # (na,) degrees
    stretch_bend: (
        np.ndarray
    )  # (na, 2) md/rad for the bonds j-i and j-k; 0 where there is no such term
    n_linear: int  # so many angles, the last ones, are linear
    oop_k: np.ndarray  # (nc,) md Å/rad²; centre c owns the angles c, nc + c, 2 nc + c
    torsions: np.ndarray  # (nt, 4) atoms i, j, k, l
    torsion_v: np.ndarray  # (nt, 3) kcal/mol
    torsion_angles: np.ndarray  # (nt, 2) rows of ``angles``: i-j-k and j-k-l
    torsion_sign: np.ndarray  # (nt,) ±1
    nonbonded: np.ndarray  # (np, 2) atoms at least three bonds apart, or in different fragments
    vdw_r: np.ndarray  # (np,) Å, R*_ij with the donor-acceptor scaling applied
    vdw_epsilon: np.ndarray  # (np,) kcal/mol
    charge_product: np.ndarray  # (np,) e², times 0.75 where the atoms are exactly three bonds apart


def _array(rows: list, width: int | None, dtype: type) -> np.ndarray:
    """An array that keeps its width when a molecule has no such term."""
    return np.array(rows, dtype=dtype).reshape(
        (len(rows),) if width is None else (len(rows), width)
    )


def _typing(mol: Chem.Mol, variant: str) -> tuple[Chem.Mol, object]:
    """The molecule with MMFF's aromaticity and RDKit's typing of it, or an error that names the
    atoms in the way.

    RDKit types a molecule in place, and differently the second time where its own idea of
    aromaticity is not MMFF's (dibenzothiepine, say). The copy made here is sanitised for MMFF
    first, as in its ``MMFFOptimize...`` functions, so that the caller's molecule stays as it is and
    the answer does not depend on its history.
    """
    if variant not in ("MMFF94", "MMFF94s"):
        raise InputError(f"unknown MMFF variant {variant!r}; use 'MMFF94' or 'MMFF94s'")
    if not isinstance(mol, Chem.Mol) or mol.GetNumAtoms() == 0:
        raise InputError(f"MMFF94 needs an RDKit molecule with atoms, got {type(mol).__name__}")
    with rdBase.BlockLogs():  # RDKit's complaint becomes our error
        name = Chem.MolToSmiles(Chem.RemoveHs(mol))
        sanitised = Chem.Mol(mol)
        rdForceFieldHelpers.MMFFSanitizeMolecule(sanitised)
        properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(sanitised, mmffVariant=variant)

    bare = [f"{a.GetSymbol()}{a.GetIdx() + 1}" for a in mol.GetAtoms() if a.GetTotalNumHs() > 0]
    if bare:
        raise InputError(
            f"{name}: hydrogens are implicit on {len(bare)} atoms ({', '.join(bare[:5])}"
            f"{', ...' if len(bare) > 5 else ''}); add them first: mol = rdkit.Chem.AddHs(mol)"
        )

    if properties is None:
        label = {a.GetIdx(): f"{a.GetSymbol()}{a.GetIdx() + 1}" for a in mol.GetAtoms()}
        number = {a.GetIdx(): a.GetAtomicNum() for a in mol.GetAtoms()}
        unknown = [label[i] for i in label if number[i] not in ELEMENTS]
        # Carbon and hydrogen rarely lack a type: the suspects are the others, if any.
        odd = [label[i] for i in label if number[i] not in (1, 6)] or list(label.values())
        what = (
            f"parameters for {', '.join(unknown)}"
            if unknown
            else f"atom type for one of {', '.join(odd)}"
        )
        raise EnergyError(f"{name}: MMFF94 has no {what}; use another energy, for example GFN2-xTB")
    return sanitised, properties


def _torsion_centre(mol: Chem.Mol, bond: Chem.Bond) -> bool:
    """Only bonds between two sp2 or sp3 atoms have torsions: about a linear atom the angle is
    undefined."""
    bent = (Chem.HybridizationType.SP2, Chem.HybridizationType.SP3)
    return all(atom.GetHybridization() in bent for atom in (bond.GetBeginAtom(), bond.GetEndAtom()))


def mmff_parameters(mol: Chem.Mol, variant: str = "MMFF94") -> MMFFParameters:
    """Type ``mol`` (an RDKit molecule with explicit hydrogens; no conformer needed) and collect its
    terms.

    Raises ``InputError`` for implicit hydrogens or an unknown variant, ``EnergyError`` for untyped
    atoms.
    """
    mol, typing = _typing(mol, variant)
    n = mol.GetNumAtoms()
    neighbours = [[b.GetIdx() for b in a.GetNeighbors()] for a in mol.GetAtoms()]
    linear_centre = [typing.GetMMFFAtomType(j) in LINEAR_TYPES for j in range(n)]

    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]
    bond_parameters = [typing.GetMMFFBondStretchParams(mol, i, j)[1:] for i, j in bonds]
    # (from, to) -> (bond, sign): the bond's stored vector times sign points from `from` to `to`
    directed = {
        key: (b, s) for b, (i, j) in enumerate(bonds) for key, s in (((i, j), 1), ((j, i), -1))
    }

    corners = [list(combinations(neighbours[j], 2)) for j in range(n)]
    oop = {}
    for j in range(n):
        if len(neighbours[j]) == 3:
            i, k, l = neighbours[j]
            koop = typing.GetMMFFOopBendParams(mol, i, j, k, l)
            if koop:
                oop[j] = koop
    angles = [(corners[j][m][0], j, corners[j][m][1]) for m in range(3) for j in oop]
    others = [(i, j, k) for j in range(n) if j not in oop for i, k in corners[j]]
    linear = [a for a in others if linear_centre[a[1]]]
    angles += [a for a in others if not linear_centre[a[1]]] + linear
    angle_row = {key: row for row, (i, j, k) in enumerate(angles) for key in ((i, j, k), (k, j, i))}
    angle_parameters = [typing.GetMMFFAngleBendParams(mol, *a)[1:] for a in angles]
    stretch_bend = [
        (0.0, 0.0)
        if linear_centre[a[1]]
        else (typing.GetMMFFStretchBendParams(mol, *a) or (0, 0.0, 0.0))[1:]
        for a in angles
    ]

    torsions, torsion_v = [], []
    for bond in mol.GetBonds():
        if not _torsion_centre(mol, bond):
            continue
        j, k = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        for i in neighbours[j]:
            for l in neighbours[k]:
                if i != k and l != j and i != l:  # i == l: three-membered ring
                    found = typing.GetMMFFTorsionParams(mol, i, j, k, l)
                    if found and any(found[1:]):
                        torsions.append((i, j, k, l))
                        torsion_v.append(found[1:])
    arms = [(directed[j, i], directed[j, k]) for i, j, k in angles]
    angle_sign = [a[1] * b[1] for a, b in arms]
    # The normals as they are stored against those of (j→i) × (j→k) and (k→j) × (k→l).
    normal_sign = {
        key: angle_sign[row] * (1 if key == angles[row] else -1) for key, row in angle_row.items()
    }

    distance = rdmolops.GetDistanceMatrix(mol)  # in bonds; a large number between fragments
    nonbonded = [(i, j) for i, j in combinations(range(n), 2) if distance[i, j] > 2.5]
    vdw = [typing.GetMMFFVdWParams(i, j)[2:] for i, j in nonbonded]
    charge = np.array([typing.GetMMFFPartialCharge(i) for i in range(n)])
    scale = [ONE_FOUR_ELECTROSTATICS if distance[i, j] < 3.5 else 1.0 for i, j in nonbonded]
    nonbonded, vdw = _array(nonbonded, 2, np.int64), _array(vdw, 2, float)
    bond_parameters, angle_parameters = (
        _array(bond_parameters, 2, float),
        _array(angle_parameters, 2, float),
    )
    return MMFFParameters(
        n_atoms=n,
        bonds=_array(bonds, 2, np.int64),
        bond_k=bond_parameters[:, 0],
        bond_r0=bond_parameters[:, 1],
        angles=_array(angles, 3, np.int64),
        angle_bonds=_array([(a[0], b[0]) for a, b in arms], 2, np.int64),
        angle_sign=_array(angle_sign, None, float),
        angle_k=angle_parameters[:, 0],
        angle_theta0=angle_parameters[:, 1],
        stretch_bend=_array(stretch_bend, 2, float),
        n_linear=len(linear),
        oop_k=_array(list(oop.values()), None, float),
        torsions=_array(torsions, 4, np.int64),
        torsion_v=_array(torsion_v, 3, float),
        torsion_angles=_array(
            [(angle_row[t[:3]], angle_row[t[1:]]) for t in torsions], 2, np.int64
        ),
        torsion_sign=_array(
            [normal_sign[t[:3]] * normal_sign[t[1:]] for t in torsions], None, float
        ),
        nonbonded=nonbonded,
        vdw_r=vdw[:, 0],
        vdw_epsilon=vdw[:, 1],
        charge_product=charge[nonbonded[:, 0]] * charge[nonbonded[:, 1]] * np.array(scale),
    )
