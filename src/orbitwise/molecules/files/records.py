"""Molecules of files with coordinates, one entry a record; their stereochemistry goes into the
SMILES."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from rdkit import Chem

from orbitwise.data.extxyz import each_frame
from orbitwise.data.lines import lines_of
from orbitwise.data.physical import likely_unit
from orbitwise.errors import InputError
from orbitwise.molecules.bonds import ALL_ONE, perceive_bonds
from orbitwise.molecules.etkdg import captured_rdkit_log, with_stereo_of
from orbitwise.molecules.files.entry import Entry
from orbitwise.molecules.files.physical import (
    charge_of,
    charge_that_fits,
    check_geometry,
    check_orders,
)
from orbitwise.molecules.files.reasons import rdkit_reason
from orbitwise.molecules.identity import without_maps

_COMPLETE = "add all of them, or give a SMILES or an SDF with bonds"


def sdf_entries(path: Path, charge: int | None = None) -> Iterator[Entry]:
    """Records of an SDF or MOL file (V2000 or V3000), flat or three-dimensional; hydrogens may be
    missing. ``charge`` is not asked."""
    block: list[str] = []
    number = 1
    for line in lines_of(path):
        if line.startswith("$$$$"):
            yield _sdf_entry(block, number, path.stem)
            block, number = [], number + 1
        else:
            block.append(line)
    if any(line.strip() for line in block):
        yield _sdf_entry(block, number, path.stem)


def _sdf_entry(block: list[str], number: int, stem: str) -> Entry:
    name = _sdf_name(block) or stem
    try:
        return Entry.of(name, _sdf_smiles(block), number)
    except InputError as error:
        return Entry(name, None, str(error), number)


def _sdf_name(block: list[str]) -> str:
    """The title, else the value of a field called name or id."""
    if block and block[0].strip():
        return block[0].strip()
    for line, value in pairwise(block):
        if line.startswith(">") and line[1:].strip(" <>").lower() in ("name", "id", "title"):
            return value.strip()
    return ""


def _sdf_smiles(block: list[str]) -> str:
    end = next((k for k, line in enumerate(block) if line.startswith("M  END")), None)
    if end is None:
        raise InputError("the record is truncated: there is no 'M  END' in it")
    with captured_rdkit_log() as log:
        try:
            mol = Chem.MolFromMolBlock("\n".join([*block[: end + 1], ""]), removeHs=False)
        except (IndexError, SystemError, RuntimeError, UnicodeDecodeError):
            mol = None  # what it cannot even log
    if mol is None:
        raise InputError(f"RDKit cannot read it: {rdkit_reason(log)}")
    if mol.GetNumAtoms() == 0:
        raise InputError("there is no atom in it")
    check_orders(mol)
    positions = mol.GetConformer().GetPositions()
    if mol.GetConformer().Is3D() and np.ptp(positions[:, 2]) > 0:
        check_geometry(mol, positions)
        with captured_rdkit_log():
            mol = with_stereo_of(mol, positions)
    return Chem.MolToSmiles(Chem.RemoveHs(without_maps(mol)))


def xyz_entries(path: Path, charge: int | None = None) -> Iterator[Entry]:
    """Frames of an XYZ or extended XYZ file; bonds from distances, their orders by RDKit for the
    total ``charge``, else that of the comment, else 0."""
    for number, frame in enumerate(each_frame(path), 1):
        try:
            if isinstance(frame, InputError):
                raise frame
            own = charge_of(frame.info) if charge is None else charge
            smiles = _perceived(frame.species, frame.positions, own)
        except InputError as error:
            yield Entry(path.stem, None, str(error).removeprefix(f"{path}, "), number)
        else:
            yield Entry.of(path.stem, smiles, number)


def pdb_entries(path: Path, charge: int | None = None) -> Iterator[Entry]:
    """Models of a PDB file with all hydrogens; bonds as for XYZ, the charge from columns 79-80
    where it is not given."""
    models: list[list[str]] = [[]]
    for line in lines_of(path):
        if line.startswith("ENDMDL"):
            models.append([])
        elif line.startswith(("ATOM", "HETATM")) and line[16:17] in (" ", "A", "1", ""):
            models[-1].append(line)
    models = [model for model in models if model]
    for number, model in enumerate(models, 1):
        try:
            species, positions, own = _pdb_atoms(model)
            if not (species == 1).any():
                raise InputError(f"there is no hydrogen in it: {_COMPLETE}")
            smiles = _perceived(species, positions, own if charge is None else charge)
        except InputError as error:
            yield Entry(path.stem, None, str(error), number)
        else:
            yield Entry.of(path.stem, smiles, number)


def _pdb_atoms(lines: list[str]) -> tuple[np.ndarray, np.ndarray, int | None]:
    with captured_rdkit_log() as log:
        text = "\n".join([*lines, "END", ""])
        try:
            mol = Chem.MolFromPDBBlock(text, sanitize=False, removeHs=False, proximityBonding=False)
        except (IndexError, SystemError, RuntimeError, UnicodeDecodeError):
            mol = None  # what it cannot even log
    if mol is None or mol.GetNumAtoms() != len(lines):
        raise InputError(f"RDKit cannot read its atoms: {rdkit_reason(log)}")
    species = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    charges = [atom.GetFormalCharge() for atom in mol.GetAtoms()]
    return species, mol.GetConformer().GetPositions(), sum(charges) if any(charges) else None


def _perceived(species: np.ndarray, positions: np.ndarray, charge: int | None) -> str:
    """SMILES of atoms without bonds; ``InputError`` where no orders fit the charge."""
    if not np.isfinite(positions).all():
        raise InputError("a coordinate is not a finite number")
    atoms = Chem.RWMol()
    for z in species.tolist():
        atoms.AddAtom(Chem.Atom(z))
    check_geometry(atoms, positions)
    try:
        found = perceive_bonds(species, positions[None], charge=charge or 0)
    except InputError as error:
        raise InputError(f"{error}{likely_unit(species, positions)}") from None
    if found.source == ALL_ONE:
        raise InputError(_advice(species, positions, charge))
    charged = any(atom.GetFormalCharge() for atom in found.mol.GetAtoms())
    if charged and not charge and not (species == 1).any():  # of bare skeletons RDKit makes these
        raise InputError(f"there is no hydrogen in it: {_COMPLETE}")
    with captured_rdkit_log():
        mol = with_stereo_of(_usual(found.mol), positions)
    return Chem.MolToSmiles(Chem.RemoveHs(mol))


def _usual(mol: Chem.Mol) -> Chem.Mol:
    """S+–O− and P+–O− as double bonds, as chemists write them."""
    mol = Chem.RWMol(mol)
    for bond in mol.GetBonds():
        ends = (bond.GetBeginAtom(), bond.GetEndAtom())
        a, b = sorted(ends, key=Chem.Atom.GetFormalCharge, reverse=True)
        plus, minus = a.GetFormalCharge(), b.GetFormalCharge()
        single = bond.GetBondType() == Chem.BondType.SINGLE
        if single and a.GetAtomicNum() in (15, 16) and plus > 0 > minus:
            bond.SetBondType(Chem.BondType.DOUBLE)
            a.SetFormalCharge(plus - 1)
            b.SetFormalCharge(minus + 1)
    Chem.SanitizeMol(mol)
    return mol.GetMol()


def _advice(species: np.ndarray, positions: np.ndarray, charge: int | None) -> str:
    said = f"no bond orders fit a total charge of {charge or 0:+d}".replace("+0", "0")
    if charge is None:
        said += " (the file says none)"
    if not (species == 1).any():
        return f"{said}; there is no hydrogen in it: {_COMPLETE}"
    if (other := charge_that_fits(species, positions)) is not None:
        return (
            f"{said}; they fit {other:+d}: give --charge={other} if that is right, or charge="
            " in the comment line of an XYZ file, else a SMILES or an SDF with bonds"
        )
    return f"{said}; give its charge with --charge, or a SMILES or an SDF with bonds"
