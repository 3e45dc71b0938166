"""Bonds for a file that has none: from distances, orders by RDKit or from a SMILES."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rdkit import Chem
from rdkit.Chem import AllChem, rdDetermineBonds
from rdkit.rdBase import BlockLogs

from orbitwise.errors import InputError

ALL_ONE = "covalent radii, all orders one"  # the source where no orders fit
_REACH = 1.3  # times the sum of covalent radii
_MAX_FRAMES = 200  # for the median distance


@dataclass(frozen=True)
class Perceived:
    """``mol`` with bonds and explicit hydrogens; ``source`` says where the bonds come from."""

    mol: Chem.Mol
    source: str


def perceive_bonds(
    species: np.ndarray,
    positions: np.ndarray,
    *,
    charge: int = 0,
    smiles_mol: Chem.Mol | None = None,
) -> Perceived:
    """Bonds of one molecule seen in several frames.

    ``species: (N,)`` atomic numbers, ``positions: (F, N, 3)`` Å. Two atoms are bonded when their
    *median* distance is below 1.3 times the sum of covalent radii, so that one stretched bond in
    one frame of a hot trajectory does not count. Orders come from ``smiles_mol`` (a molecule with
    explicit hydrogens) when given, else from RDKit's valence model for the total ``charge``; where
    that finds none, all orders are one and ``source`` says so.

    Raises ``InputError`` when the atoms do not form one connected molecule, or are not those of the
    SMILES.
    """
    mol = _connect(species, positions)
    fragments = len(Chem.GetMolFrags(mol))
    if fragments > 1:
        raise InputError(
            f"the atoms form {fragments} separate fragments by their distances; one connected"
            " molecule is needed (are the coordinates in Å, and not wrapped into a periodic box?)"
        )
    if smiles_mol is not None:
        return Perceived(orders_from(smiles_mol, mol), "SMILES")
    try:
        with BlockLogs():
            ordered = Chem.RWMol(mol)
            rdDetermineBonds.DetermineBondOrders(
                ordered, charge=charge, embedChiral=False, maxIterations=2000
            )
            ordered = ordered.GetMol()
            Chem.SanitizeMol(ordered)
        return Perceived(ordered, "RDKit bond perception")
    except (ValueError, RuntimeError):
        for atom in mol.GetAtoms():
            atom.SetNoImplicit(True)
        mol.UpdatePropertyCache(strict=False)
        Chem.FastFindRings(mol)
        return Perceived(mol, ALL_ONE)


def _connect(species: np.ndarray, positions: np.ndarray) -> Chem.Mol:
    some = positions[:: max(1, len(positions) // _MAX_FRAMES)]
    distance = np.median(np.linalg.norm(some[:, :, None] - some[:, None], axis=-1), axis=0)
    table = Chem.GetPeriodicTable()
    radius = np.array([table.GetRcovalent(int(z)) for z in species])
    close = np.triu(distance < _REACH * (radius[:, None] + radius[None]), 1)
    mol = Chem.RWMol()
    for z in species:
        atom = Chem.Atom(int(z))
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    for i, j in np.argwhere(close).tolist():
        mol.AddBond(i, j, Chem.BondType.SINGLE)
    return mol.GetMol()


def orders_from(template: Chem.Mol, mol: Chem.Mol) -> Chem.Mol:
    """The template's bonds, charges and stereo marks in the atom order of ``mol``."""
    skeleton = Chem.RWMol(template)
    for atom in skeleton.GetAtoms():
        atom.SetFormalCharge(0)
        atom.SetIsAromatic(False)
        atom.SetIsotope(0)
    for bond in skeleton.GetBonds():
        bond.SetBondType(Chem.BondType.SINGLE)
        bond.SetIsAromatic(False)
    same_size = (mol.GetNumAtoms(), mol.GetNumBonds()) == (
        template.GetNumAtoms(),
        template.GetNumBonds(),
    )
    match = mol.GetSubstructMatch(skeleton) if same_size else ()
    if not match:
        raise InputError(
            f"the SMILES {Chem.MolToSmiles(Chem.RemoveHs(template))} ({template.GetNumAtoms()}"
            f" atoms with hydrogens, {template.GetNumBonds()} bonds) is not the molecule of the"
            f" coordinates ({mol.GetNumAtoms()} atoms, {mol.GetNumBonds()} bonds)"
        )
    order = sorted(range(len(match)), key=match.__getitem__)
    result = AllChem.RenumberAtoms(template, order)
    result.RemoveAllConformers()
    return result
