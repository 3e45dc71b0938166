"""Files of conformers: extended XYZ and SDF, read with errors that name the place, written atomically."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.io import write as ase_write
from ase.io.extxyz import key_val_str_to_dict
from rdkit import Chem

from orbitwise.data.bonds import perceive_bonds
from orbitwise.data.molecules import captured_rdkit_log
from orbitwise.errors import InputError

_TOO_CLOSE = 0.1  # Å; two atoms nearer than this are a broken file


@dataclass(frozen=True)
class Frames:
    """Conformers of one molecule as a file holds them.

    ``mol``: RDKit molecule with explicit hydrogens in the file's atom order, ``positions_angstrom:
    (F, N, 3)`` float64, ``properties``: per-frame numbers ``(F,)`` by the file's own names (units are the
    file's), ``bond_source``: where the bonds come from, ``where``: file and place of each frame.
    """

    mol: Chem.Mol
    positions_angstrom: np.ndarray
    bond_source: str
    where: tuple[str, ...]
    properties: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.positions_angstrom)


@dataclass(frozen=True)
class _Frame:
    species: np.ndarray
    positions: np.ndarray
    info: dict
    where: str
    mol: Chem.Mol | None = None


def read_molecule(path: str | Path, *, smiles_mol: Chem.Mol | None = None) -> Frames:
    """Conformers of *one* molecule from an ``.extxyz``, ``.xyz`` or ``.sdf`` file.

    ``smiles_mol`` (with explicit hydrogens) gives the bonds of a file that has none. Raises ``InputError`` as
    ``read_extxyz`` and ``read_sdf`` do, and when the file holds several molecules or changes the atom order.
    """
    path = Path(path)
    readers = {".extxyz": _extxyz_frames, ".xyz": _extxyz_frames, ".sdf": _sdf_frames, ".sd": _sdf_frames}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: cannot tell the format; use a name that ends in {', '.join(readers)}")
    groups = _group(readers[path.suffix.lower()](path))
    if len(groups) > 1:
        first, second = groups[0][0], groups[1][0]
        if sorted(first.species) == sorted(second.species):
            raise InputError(
                f"{second.where}: the same atoms as in {first.where} but in another order or with other "
                "bonds; write all conformers with one atom order"
            )
        raise InputError(
            f"{path}: {len(groups)} different molecules ({_formula(first)} in {first.where}, "
            f"{_formula(second)} in {second.where}); give a file with the conformers of one molecule"
        )
    return _frames(groups[0], smiles_mol)


def read_extxyz(path: str | Path) -> list[Frames]:
    """All molecules of an extended (or plain) XYZ file, each with its frames; molecules are told apart by the
    sequence of their elements. Bonds are perceived from distances.

    Raises ``InputError`` naming file, frame and line for a missing, empty or truncated file, a coordinate
    that is not a finite number, an unknown element, coinciding atoms, or an unreadable ``Properties`` entry.
    """
    return [_frames(group, None) for group in _group(_extxyz_frames(Path(path)))]


def check_extxyz(path: str | Path) -> None:
    """Raise ``InputError`` as ``read_extxyz`` does, with frame and line; nothing is asked of the chemistry."""
    _extxyz_frames(Path(path))


def read_sdf(path: str | Path, *, skipped: list[str] | None = None) -> list[Frames]:
    """All molecules of an SDF file, each with its frames; molecules are told apart by elements and bonds.

    ``skipped``: a list that takes the complaints about records that cannot be read, instead of an error.
    Raises ``InputError`` naming file, record and line for a missing, empty or truncated file, a record that
    RDKit cannot read, two-dimensional coordinates, or missing hydrogens.
    """
    return [_frames(group, None) for group in _group(_sdf_frames(Path(path), skipped))]


def _group(frames: list[_Frame]) -> list[list[_Frame]]:
    groups: dict[tuple, list[_Frame]] = {}
    for frame in frames:
        bonds = () if frame.mol is None else tuple(Chem.GetAdjacencyMatrix(frame.mol).ravel())
        groups.setdefault((*frame.species.tolist(), *bonds), []).append(frame)
    return list(groups.values())


def _formula(frame: _Frame) -> str:
    return Atoms(numbers=frame.species).get_chemical_formula()


def _frames(group: list[_Frame], smiles_mol: Chem.Mol | None) -> Frames:
    positions = np.stack([frame.positions for frame in group])
    first = group[0]
    for frame, x in zip(group, positions, strict=True):
        distance = np.linalg.norm(x[:, None] - x[None], axis=-1) + 1e3 * np.eye(len(x))
        if distance.min() < _TOO_CLOSE:
            i, j = np.unravel_index(distance.argmin(), distance.shape)
            raise InputError(f"{frame.where}: atoms {i + 1} and {j + 1} lie {distance.min():.3f} Å apart")
    if first.mol is not None:
        mol, source = Chem.Mol(first.mol), "file"
        mol.RemoveAllConformers()
    else:
        try:
            found = perceive_bonds(
                first.species, positions, charge=int(first.info.get("charge", 0)), smiles_mol=smiles_mol
            )
        except InputError as error:
            raise InputError(f"{first.where}: {error}") from error
        mol, source = found.mol, found.source
    numeric = {
        name: np.array([frame.info.get(name, np.nan) for frame in group], dtype=np.float64)
        for name, value in first.info.items()
        if _is_number(value) and all(_is_number(frame.info.get(name, np.nan)) for frame in group)
    }
    return Frames(mol, positions, source, tuple(frame.where for frame in group), numeric)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, not a file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not text.strip():
        raise InputError(f"{path}: the file is empty")
    return text.splitlines()


def _extxyz_frames(path: Path) -> list[_Frame]:
    lines = _read_lines(path)
    frames: list[_Frame] = []
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        where = f"{path}, frame {len(frames) + 1}"
        try:
            count = int(lines[at])
        except ValueError:
            raise InputError(
                f"{where}, line {at + 1}: expected the number of atoms, found {lines[at][:40]!r}"
            ) from None
        if count < 1:
            raise InputError(f"{where}, line {at + 1}: {count} atoms")
        rows = lines[at + 2 : at + 2 + count]
        if len(rows) < count or any(not row.strip() for row in rows):
            there = next((k for k, row in enumerate(rows) if not row.strip()), len(rows))
            raise InputError(
                f"{where}, line {at + 2 + there + 1}: the file is truncated: {count} atoms announced, "
                f"{there} found"
            )
        frames.append(_extxyz_frame(lines[at + 1], rows, where, at + 3))
        at += 2 + count
    return frames


def _extxyz_frame(comment: str, rows: list[str], where: str, first_line: int) -> _Frame:
    try:
        info = key_val_str_to_dict(comment) if "=" in comment else {}
    except Exception as error:  # ase raises many kinds here
        raise InputError(
            f"{where}, line {first_line - 1}: the comment line cannot be read ({error})"
        ) from error
    species_at, position_at, width = _columns(
        str(info.pop("Properties", "species:S:1:pos:R:3")), where, first_line - 1
    )
    species, positions = np.empty(len(rows), dtype=np.int64), np.empty((len(rows), 3))
    for k, row in enumerate(rows):
        place = f"{where}, line {first_line + k}"
        words = row.split()
        if len(words) < width:
            raise InputError(f"{place}: {len(words)} columns where {width} are needed: {row.strip()[:60]!r}")
        symbol = words[species_at]
        species[k] = int(symbol) if symbol.isdigit() else atomic_numbers.get(symbol.capitalize(), 0)
        if not 1 <= species[k] <= 118:
            raise InputError(f"{place}: unknown element {symbol!r}")
        try:
            positions[k] = [float(word) for word in words[position_at : position_at + 3]]
        except ValueError:
            raise InputError(f"{place}: a coordinate is not a number: {row.strip()[:60]!r}") from None
        if not all(map(math.isfinite, positions[k])):
            raise InputError(f"{place}: a coordinate is not finite: {row.strip()[:60]!r}")
    return _Frame(species, positions, info, where)


def _columns(properties: str, where: str, line: int) -> tuple[int, int, int]:
    """Column of the element, first column of the positions, and number of columns in ``Properties``."""
    words = properties.split(":")
    at, found = 0, {}
    try:
        for name, _, size in zip(words[::3], words[1::3], words[2::3], strict=True):
            found[name] = at
            at += int(size)
        return found["species" if "species" in found else "Z"], found["pos"], at
    except (ValueError, KeyError):
        raise InputError(
            f"{where}, line {line}: Properties={properties} must list name:type:columns, with species (or Z) "
            "and pos"
        ) from None


def _sdf_frames(path: Path, skipped: list[str] | None = None) -> list[_Frame]:
    lines = _read_lines(path)
    frames: list[_Frame] = []
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


def _sdf_record(block: list[str], place: str, first: int, last: int) -> _Frame:
    if not any(line.startswith("M  END") for line in block):
        raise InputError(f"{place}, line {last}: the file is truncated: no 'M  END' in this record")
    with captured_rdkit_log() as log:
        supplier = Chem.SDMolSupplier()
        supplier.SetData("\n".join([*block, "$$$$", ""]), removeHs=False)
        mol = supplier[0]
    if mol is None:
        reason = log[-1] if log else "unknown reason"
        raise InputError(f"{place}, line {first}: RDKit cannot read this record: {reason}")
    return _sdf_frame(mol, f"{place}, line {first}")


def _sdf_frame(mol: Chem.Mol, where: str) -> _Frame:
    if mol.GetNumAtoms() == 0:
        raise InputError(f"{where}: no atoms")
    missing = sum(atom.GetNumImplicitHs() for atom in mol.GetAtoms())
    if missing:
        raise InputError(f"{where}: {missing} hydrogens are missing; conformers need every atom")
    positions = mol.GetConformer().GetPositions()
    if not mol.GetConformer().Is3D() and np.ptp(positions[:, 2]) == 0 and mol.GetNumAtoms() > 3:
        raise InputError(f"{where}: the coordinates are two-dimensional; conformers need three")
    if not np.isfinite(positions).all():
        raise InputError(f"{where}: a coordinate is not finite")
    species = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int64)
    if (species < 1).any():
        raise InputError(f"{where}: atom {int((species < 1).argmax()) + 1} is not an element")
    return _Frame(species, positions, mol.GetPropsAsDict(), where, mol)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def write_sdf(
    path: str | Path,
    mol: Chem.Mol,
    positions_angstrom: np.ndarray,
    properties: Mapping[str, Sequence] | None = None,
) -> None:
    """Write conformers ``(F, N, 3)`` of ``mol`` (explicit hydrogens) as SDF records.

    ``properties``: per-frame values ``(F,)``, each a data field of its name; put the unit into the name, as
    in ``energy_kcal_mol``. The file appears at once or not at all.
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
    """Write conformers ``(F, N, 3)`` of ``mol`` as extended XYZ; ``properties`` as in ``write_sdf``.

    A property named plainly ``energy`` is refused: readers of this format take it for eV.
    """
    positions = _checked(mol, positions_angstrom, properties)
    if "energy" in (properties or {}):
        raise InputError("name the unit of 'energy' in an extxyz file, for instance energy_kcal_mol")
    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    frames = []
    for k, x in enumerate(positions):
        info = {name: values[k] for name, values in (properties or {}).items()}
        frames.append(Atoms(numbers=numbers, positions=x, info=info))
    with replacing(path) as temporary:
        ase_write(temporary, frames, format="extxyz")


def _checked(mol: Chem.Mol, positions: np.ndarray, properties: Mapping[str, Sequence] | None) -> np.ndarray:
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim != 3 or positions.shape[1:] != (mol.GetNumAtoms(), 3):
        raise InputError(f"positions have shape {positions.shape}, expected (frames, {mol.GetNumAtoms()}, 3)")
    for name, values in (properties or {}).items():
        if len(values) != len(positions):
            raise InputError(f"property {name!r} has {len(values)} values for {len(positions)} frames")
    return positions


def writable_folder(path: str | Path) -> Path:
    """Create a folder where needed and try to write into it; ``InputError`` where that fails."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write to the folder {path} ({error.strerror}); choose another with --out"
        ) from None
    return path
