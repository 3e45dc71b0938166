"""Alanine peptides ACE-(ALA)n-NME with the force fields that ship with OpenMM: n = 1 is alanine
dipeptide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import AllChem
from torch import Tensor

from orbitwise.errors import InputError

FIELDS = {
    "ff96": ("amber96.xml",),
    "ff14SB": ("amber14/protein.ff14SB.xml",),
    "charmm36": ("charmm36_2024.xml",),
}
SOLVENTS = {
    "vacuum": (),
    "hct": ("implicit/hct.xml",),
    "obc1": ("implicit/obc1.xml",),
    "obc2": ("implicit/obc2.xml",),
    "gbn": ("implicit/gbn.xml",),
    "gbn2": ("implicit/gbn2.xml",),
}
OWN_SOLVENTS = {
    ("ff96", "obc"): ("amber96_obc.xml",)
}  # parameters of one force field, as a GBSAOBCForce
# Atoms in the order of OpenMM's templates, and the bonds within a residue.
ATOMS = {
    "ACE": "HH31 CH3 HH32 HH33 C O",
    "ALA": "N H CA HA CB HB1 HB2 HB3 C O",
    "NME": "N H CH3 HH31 HH32 HH33",
}
BONDS = {
    "ACE": "HH31-CH3 CH3-HH32 CH3-HH33 CH3-C C-O",
    "ALA": "N-H N-CA CA-HA CA-CB CA-C CB-HB1 CB-HB2 CB-HB3 C-O",
    "NME": "N-H N-CH3 CH3-HH31 CH3-HH32 CH3-HH33",
}
# CHARMM builds the caps as patches of the first and the last residue, with names of their own.
CHARMM = {
    "ACE": dict(zip(ATOMS["ACE"].split(), ["HY1", "CAY", "HY2", "HY3", "CY", "OY"], strict=True)),
    "ALA": {"H": "HN"},
    "NME": dict(zip(ATOMS["NME"].split(), ["NT", "HNT", "CAT", "HT1", "HT2", "HT3"], strict=True)),
}


@dataclass(frozen=True)
class Peptide:
    """A peptide of ``N`` atoms, ready for ``OpenMMEnergy(peptide.system)``.

    ``system`` and ``topology`` are OpenMM's, without constraints; ``mol`` the RDKit molecule
    (L-alanine) with its atoms in the same order, and conformers; ``positions: (C, N, 3)`` Å,
    embedded with trans amides (the hydrogens of a methyl in any order), centred, float64;
    ``species: (N,)`` atomic numbers; ``bonds: (M, 2)``; ``masses: (N,)`` Da; ``names`` like
    ``ALA2-CA``; ``phi, psi: (n, 4)`` and ``omega: (n + 1, 4)`` atoms of the backbone's dihedral
    angles.
    """

    system: object
    topology: object
    mol: Chem.Mol
    positions: Tensor
    species: Tensor
    bonds: Tensor
    masses: Tensor
    names: tuple[str, ...]
    phi: Tensor
    psi: Tensor
    omega: Tensor


def alanine_peptide(
    residues: int = 1, field: str = "ff96", solvent: str = "obc", conformers: int = 1, seed: int = 7
) -> Peptide:
    """ACE-(ALA)n-NME: 22, 32 and 42 atoms for n = 1, 2, 3 (di-, tri- and tetrapeptide).

    ``field``: ff96, ff14SB or charmm36; ``solvent``: vacuum, hct, obc1, obc2, gbn or gbn2 (OpenMM's
    ``implicit/*.xml``), and with ff96 also obc, the parameters that come with that force field.
    Raises ``InputError`` for another name or number, ``MissingExtraError`` without OpenMM.
    """
    from openmm import app

    if residues < 1:
        raise InputError(f"a peptide needs at least one alanine, got {residues}")
    if field not in FIELDS:
        raise InputError(f"the force field must be one of {', '.join(FIELDS)}, got {field!r}")
    extra = OWN_SOLVENTS.get((field, solvent), SOLVENTS.get(solvent))
    if extra is None:
        own = [s for f, s in OWN_SOLVENTS if f == field]
        raise InputError(
            f"the solvent of {field} must be one of {', '.join([*SOLVENTS, *own])}, got {solvent!r}"
        )
    sequence = ["ACE", *["ALA"] * residues, "NME"]
    atoms = [(k, name) for k, residue in enumerate(sequence) for name in ATOMS[residue].split()]
    index = {atom: i for i, atom in enumerate(atoms)}
    bonds = [
        (index[k, a], index[k, b])
        for k, residue in enumerate(sequence)
        for a, b in (bond.split("-") for bond in BONDS[residue].split())
    ] + [(index[k, "C"], index[k + 1, "N"]) for k in range(len(sequence) - 1)]

    topology = _topology(app, sequence, atoms, bonds, merged=field == "charmm36")
    system = app.ForceField(*FIELDS[field], *extra).createSystem(
        topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False
    )
    mol = _molecule(residues, atoms, bonds, conformers, seed)
    positions = np.stack([c.GetPositions() for c in mol.GetConformers()])
    masses = [atom.element.mass.value_in_unit(atom.element.mass.unit) for atom in topology.atoms()]
    inner = range(1, residues + 1)
    caps = {0: "CH3", residues + 1: "CH3"}

    def carbon(k: int) -> tuple[int, str]:  # the atom that stands where Cα stands
        return k, caps.get(k, "CA")

    def table(rows) -> Tensor:
        return torch.tensor([[index[atom] for atom in row] for row in rows])

    return Peptide(
        system=system,
        topology=topology,
        mol=mol,
        positions=torch.from_numpy(positions - positions.mean(1, keepdims=True)),
        species=torch.tensor([a.GetAtomicNum() for a in mol.GetAtoms()]),
        bonds=torch.tensor(sorted(tuple(sorted(bond)) for bond in bonds)),
        masses=torch.tensor(masses, dtype=torch.float64),
        names=tuple(f"{sequence[k]}{k + 1}-{name}" for k, name in atoms),
        phi=table([(k - 1, "C"), (k, "N"), (k, "CA"), (k, "C")] for k in inner),
        psi=table([(k, "N"), (k, "CA"), (k, "C"), (k + 1, "N")] for k in inner),
        omega=table(
            [carbon(k), (k, "C"), (k + 1, "N"), carbon(k + 1)] for k in range(residues + 1)
        ),
    )


def _topology(app, sequence: list[str], atoms: list, bonds: list, merged: bool):
    """``merged``: the caps belong to the first and the last alanine, under CHARMM's names."""
    topology = app.Topology()
    chain = topology.addChain()
    home = [min(max(k, 1), len(sequence) - 2) if merged else k for k in range(len(sequence))]
    residue = {k: topology.addResidue(sequence[k], chain) for k in sorted(set(home))}
    made = []
    for k, name in atoms:
        written = CHARMM[sequence[k]].get(name, name) if merged else name
        made.append(topology.addAtom(written, app.element.get_by_symbol(name[0]), residue[home[k]]))
    for i, j in bonds:
        topology.addBond(made[i], made[j])
    return topology


def _molecule(residues: int, atoms: list, bonds: list, conformers: int, seed: int) -> Chem.Mol:
    """L-alanine residues with trans amides, in the order of ``atoms``, embedded and relaxed with
    MMFF94."""
    plain = Chem.RWMol()
    for _, name in atoms:
        plain.AddAtom(Chem.Atom(name[0]))
    for i, j in bonds:
        double = {atoms[i][1], atoms[j][1]} == {"C", "O"}
        plain.AddBond(i, j, Chem.BondType.DOUBLE if double else Chem.BondType.SINGLE)
    mol = Chem.AddHs(Chem.MolFromSmiles("CC(=O)" + "N[C@@H](C)C(=O)" * residues + "NC"))
    mol = Chem.RenumberAtoms(mol, list(mol.GetSubstructMatch(plain)))
    if len(AllChem.EmbedMultipleConfs(mol, conformers, randomSeed=seed)) != conformers:
        raise InputError(
            f"RDKit found no {conformers} conformers with seed {seed}; try another seed"
        )
    AllChem.MMFFOptimizeMoleculeConfs(mol, maxIters=2000)
    return mol
