"""Files of conformers: extended XYZ and SDF, read with errors that name the place, written
atomically."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write as ase_write
from rdkit import Chem

from orbitwise.data.extxyz import TOO_CLOSE, Frame, extxyz_frames, is_number, read_lines
from orbitwise.data.folder import replacing
from orbitwise.data.physical import check_distances, likely_unit
from orbitwise.errors import InputError
from orbitwise.molecules.bonds import ALL_ONE, perceive_bonds
from orbitwise.molecules.etkdg import captured_rdkit_log
from orbitwise.molecules.files.physical import (
    charge_of,
    charge_that_fits,
    check_closed_shell,
    check_geometry,
    check_orders,
    is_organic,
)
from orbitwise.molecules.files.reasons import rdkit_reason
from orbitwise.molecules.identity import identity_in_order


@dataclass(frozen=True)
class Frames:
    """Conformers of one molecule as a file holds them.

    ``mol``: RDKit molecule with explicit hydrogens in the file's atom order, ``positions_angstrom:
    (F, N, 3)`` float64, ``properties``: per-frame numbers ``(F,)`` by the file's own names (units
    are the file's), ``bond_source``: where the bonds come from, ``where``: file and place of each
    frame.
    """

    mol: Chem.Mol
    positions_angstrom: np.ndarray
    bond_source: str
    where: tuple[str, ...]
    properties: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.positions_angstrom)


@dataclass(frozen=True)
class _Record(Frame):
    """A frame of an SDF file, which tells its bonds."""

    mol: Chem.Mol


def read_molecule(path: str | Path, *, smiles_mol: Chem.Mol | None = None) -> Frames:
    """Conformers of *one* molecule from an ``.extxyz``, ``.xyz`` or ``.sdf`` file.

    ``smiles_mol`` (with explicit hydrogens) gives the bonds of a file that has none. Raises
    ``InputError`` as ``read_extxyz`` and ``read_sdf`` do, and when the file holds several molecules
    or changes the atom order, for a frame that cannot be this molecule (``check_geometry``), and
    for organic ones with an open shell, or of whose bonds no orders fit the charge.
    """
    path = Path(path)
    readers = {
        ".extxyz": extxyz_frames,
        ".xyz": extxyz_frames,
        ".sdf": _sdf_frames,
        ".sd": _sdf_frames,
    }
    if path.suffix.lower() not in readers:
        raise InputError(
            f"{path}: cannot tell the format; use a name that ends in {', '.join(readers)}"
        )
    groups = _group(readers[path.suffix.lower()](path))
    if len(groups) > 1:
        first, second = groups[0][0], groups[1][0]
        if sorted(first.species) == sorted(second.species):
            raise InputError(
                f"{second.where}: the same atoms as in {first.where} but in another order or with"
                " other bonds; write all conformers with one atom order"
            )
        raise InputError(
            f"{path}: {len(groups)} different molecules ({_formula(first)} in {first.where},"
            f" {_formula(second)} in {second.where}); give a file with the conformers of one"
            " molecule"
        )
    frames = _frames(groups[0], smiles_mol)
    _check_bonds(groups[0], frames)
    for where, x in zip(frames.where, frames.positions_angstrom, strict=True):
        try:
            check_geometry(frames.mol, x)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    return frames


def _check_bonds(group: list[Frame], frames: Frames) -> None:
    """Raise ``InputError`` for an open shell, and where single bonds stand for what is not
    known."""
    first = group[0]
    try:
        check_closed_shell(frames.mol)
    except InputError as error:
        raise InputError(f"{first.where}: {error}") from None
    if frames.bond_source != ALL_ONE or not is_organic(frames.mol):
        return
    charge = _one_charge(group)
    said = (
        f"no bond orders fit a total charge of {charge:+d}"
        if charge
        else ("no bond orders fit a neutral molecule")
    )
    if charge_of(first.info) is None:
        said += " (the file says no charge)"
    other = charge_that_fits(first.species, first.positions)
    hint = "" if other is None else f"; they fit {other:+d}"
    raise InputError(
        f"{first.where}: {said}{hint}: write charge={'...' if other is None else other} into the"
        " comment line of each frame, or give the bonds with smiles=..."
    )


def read_extxyz(path: str | Path) -> list[Frames]:
    """All molecules of an extended (or plain) XYZ file, each with its frames; molecules are told
    apart by the sequence of their elements. Bonds are perceived from distances.

    Raises ``InputError`` naming file, frame and line for a missing, empty or truncated file, a
    coordinate that is not a finite number, an unknown element, coinciding atoms, or an unreadable
    ``Properties`` entry.
    """
    return [_frames(group, None) for group in _group(extxyz_frames(Path(path)))]


def read_sdf(path: str | Path, *, skipped: list[str] | None = None) -> list[Frames]:
    """All molecules of an SDF file, each with its frames; molecules are told apart by elements and
    bonds.

    ``skipped``: a list that takes the complaints about records that cannot be read, instead of an
    error. Raises ``InputError`` naming file, record and line for a missing, empty or truncated
    file, a record that RDKit cannot read, two-dimensional coordinates, or missing hydrogens.
    """
    return [_frames(group, None) for group in _group(_sdf_frames(Path(path), skipped))]


def _group(frames: list[Frame]) -> list[list[Frame]]:
    groups: dict[tuple, list[Frame]] = {}
    for frame in frames:
        own = isinstance(frame, _Record)
        key = identity_in_order(frame.mol) if own else tuple(frame.species.tolist())
        groups.setdefault(key, []).append(frame)
    return list(groups.values())


def _formula(frame: Frame) -> str:
    return Atoms(numbers=frame.species).get_chemical_formula()


def _frames(group: list[Frame], smiles_mol: Chem.Mol | None) -> Frames:
    positions = np.stack([frame.positions for frame in group])
    first = group[0]
    for frame, x in zip(group, positions, strict=True):
        try:
            check_distances(x, nearest=TOO_CLOSE, species=first.species)
        except InputError as error:
            raise InputError(f"{frame.where}: {error}") from None

    if isinstance(first, _Record):
        mol, source = Chem.Mol(first.mol), "file"
        mol.RemoveAllConformers()
    else:
        try:
            found = perceive_bonds(
                first.species,
                positions,
                charge=_one_charge(group),
                smiles_mol=smiles_mol,
            )
        except InputError as error:
            hint = likely_unit(first.species, first.positions)
            raise InputError(f"{first.where}: {error}{hint}") from error
        mol, source = found.mol, found.source

    numeric = {
        name: np.array([frame.info.get(name, np.nan) for frame in group], dtype=np.float64)
        for name, value in first.info.items()
        if is_number(value) and all(is_number(frame.info.get(name, np.nan)) for frame in group)
    }
    return Frames(mol, positions, source, tuple(frame.where for frame in group), numeric)


def _one_charge(group: list[Frame]) -> int:
    """Total charge of the frames of one molecule."""
    charges = [charge_of(frame.info) for frame in group]
    for frame, charge in zip(group, charges, strict=True):
        if charge != charges[0]:
            raise InputError(f"the charge is {charges[0]} here and {charge} in {frame.where}")
    return charges[0] or 0


def _sdf_frames(path: Path, skipped: list[str] | None = None) -> list[Frame]:
    lines = read_lines(path)
    frames: list[Frame] = []
    start = 0
    ends = [k for k, line in enumerate(lines) if line.startswith("$$$$")]
    if any(line.strip() for line in lines[ends[-1] + 1 if ends else 0 :]):
        ends.append(len(lines))
    for number, end in enumerate(ends, 1):
        try:
            frames.append(_sdf_record(lines[start:end], f"{path}, record {number}", start + 1, end))
        except InputError as error:
            if skipped is None:
                raise
            skipped.append(str(error))
        start = end + 1
    return frames


def _sdf_record(block: list[str], place: str, first: int, last: int) -> _Record:
    if not any(line.startswith("M  END") for line in block):
        raise InputError(f"{place}, line {last}: the file is truncated: no 'M  END' in this record")
    with captured_rdkit_log() as log:
        supplier = Chem.SDMolSupplier()
        supplier.SetData("\n".join([*block, "$$$$", ""]), removeHs=False)
        try:
            mol = supplier[0]
        except (IndexError, SystemError, RuntimeError, UnicodeDecodeError):
            mol = None  # what it cannot even log
    if mol is None:
        raise InputError(
            f"{place}, line {first}: RDKit cannot read this record: {rdkit_reason(log)}"
        )
    return _sdf_frame(mol, f"{place}, line {first}")


def _sdf_frame(mol: Chem.Mol, where: str) -> _Record:
    if mol.GetNumAtoms() == 0:
        raise InputError(f"{where}: no atoms")
    try:
        check_orders(mol)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    missing = sum(atom.GetNumImplicitHs() for atom in mol.GetAtoms())
    if missing:
        raise InputError(f"{where}: {missing} hydrogens are missing; conformers need every atom")
    positions = mol.GetConformer().GetPositions()
    flat = np.ptp(positions[:, 2]) == 0 and mol.GetNumAtoms() > 3
    # four neighbours never lie in one plane, whatever the file says of itself
    if flat and (not mol.GetConformer().Is3D() or max(a.GetDegree() for a in mol.GetAtoms()) > 3):
        raise InputError(f"{where}: the coordinates are two-dimensional; conformers need three")
    if not np.isfinite(positions).all():
        raise InputError(f"{where}: a coordinate is not finite")
    species = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int64)
    if (species < 1).any():
        raise InputError(f"{where}: atom {int((species < 1).argmax()) + 1} is not an element")
    return _Record(species, positions, mol.GetPropsAsDict(), where, mol)


def write_sdf(
    path: str | Path,
    mol: Chem.Mol,
    positions_angstrom: np.ndarray,
    properties: Mapping[str, Sequence] | None = None,
) -> None:
    """Write conformers ``(F, N, 3)`` of ``mol`` (explicit hydrogens) as SDF records.

    ``properties``: per-frame values ``(F,)``, each a data field of its name; put the unit into the
    name, as in ``energy_kcal_mol``. The file appears at once or not at all.
    """
    positions = _checked(mol, positions_angstrom, properties)
    mol = Chem.Mol(mol)
    mol.RemoveAllConformers()
    mol.AddConformer(Chem.Conformer(mol.GetNumAtoms()), assignId=True)
    mol.GetConformer().Set3D(True)
    with replacing(path) as temporary:
        writer = Chem.SDWriter(str(temporary))
        for k, x in enumerate(positions):
            mol.GetConformer().SetPositions(x)
            for name, values in (properties or {}).items():
                mol.SetProp(name, str(values[k]))
            writer.write(mol)
        writer.close()


def write_extxyz(
    path: str | Path,
    mol: Chem.Mol,
    positions_angstrom: np.ndarray,
    properties: Mapping[str, Sequence] | None = None,
) -> None:
    """Write conformers ``(F, N, 3)`` of ``mol`` as extended XYZ; ``properties`` as in
    ``write_sdf``.

    A property named plainly ``energy`` is refused: readers of this format take it for eV.
    """
    positions = _checked(mol, positions_angstrom, properties)
    if "energy" in (properties or {}):
        raise InputError(
            "name the unit of 'energy' in an extxyz file, for instance energy_kcal_mol"
        )
    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    frames = []
    for k, x in enumerate(positions):
        info = {name: values[k] for name, values in (properties or {}).items()}
        frames.append(Atoms(numbers=numbers, positions=x, info=info))
    with replacing(path) as temporary:
        ase_write(temporary, frames, format="extxyz")


def _checked(
    mol: Chem.Mol, positions: np.ndarray, properties: Mapping[str, Sequence] | None
) -> np.ndarray:
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim != 3 or positions.shape[1:] != (mol.GetNumAtoms(), 3):
        raise InputError(
            f"positions have shape {positions.shape}, expected (frames, {mol.GetNumAtoms()}, 3)"
        )
    for name, values in (properties or {}).items():
        if len(values) != len(positions):
            raise InputError(
                f"property {name!r} has {len(values)} values for {len(positions)} frames"
            )
    return positions
