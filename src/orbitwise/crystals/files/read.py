"""Files of crystals: CIF, folders of CIF, CSV, NPZ and extended XYZ; what cannot be used is
named."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from ase.io import read as ase_read
from ase.io import write as ase_write

from orbitwise.crystals.crystal import Crystal
from orbitwise.crystals.files.cif import (
    cif_blocks,
    cif_texts,
    crystal_from_cif,
    has_sites,
    is_structure,
)
from orbitwise.crystals.files.convert import (
    cell_from_parameters,
    from_atoms,
    from_structure,
    to_atoms,
    to_structure,
)
from orbitwise.crystals.files.sound import check_fractions, checked
from orbitwise.crystals.files.tables import Record, csv_records, npz_records
from orbitwise.data.folder import replacing
from orbitwise.data.lines import lines_of, text_of
from orbitwise.errors import InputError

__all__ = [
    "CrystalFile",
    "cell_from_parameters",
    "from_atoms",
    "from_structure",
    "read_crystals",
    "to_atoms",
    "to_structure",
    "write_cif",
    "write_crystal_extxyz",
]


@dataclass(frozen=True)
class CrystalFile:
    """``crystals`` in the order of the file, ``skipped``: one message for each record that was left
    out, ``columns``: what else the file says of each crystal, ``(len(crystals),)`` each (numbers
    where every value is one), ``notes``: what was decided where a record has several meanings."""

    crystals: list[Crystal]
    skipped: list[str] = field(default_factory=list)
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.crystals)


def read_crystals(
    path: str | Path,
    *,
    split: str | Sequence[str] | None = None,
    skip_bad: bool = False,
    max_atoms: int = 500,
) -> CrystalFile:
    """Crystals of a ``.cif`` (any number of blocks), a folder of them, a ``.csv`` with columns
    ``material_id`` and ``cif`` (CDVAE, DiffCSP), an ``.npz`` of flat arrays (see ``npz_records``),
    or an ``.extxyz``.

    ``split``: only records whose column ``split`` has this value (or one of these). Sites of a CIF
    without symmetry keep their coordinates exactly; with symmetry they are completed by pymatgen.

    Raises ``InputError`` naming file and line or record for a malformed or empty file, a missing
    column or array, and for a record with partial occupancy or disorder, without a cell, with an
    unknown element, a number that is not finite, or more than ``max_atoms`` atoms. With
    ``skip_bad`` such a record is left out and its message kept (a file of which nothing is left is
    still an error). Raises ``MissingExtraError`` where a CIF needs pymatgen.
    """
    path = Path(path)
    wanted = None if split is None else {split} if isinstance(split, str) else set(split)
    crystals: list[Crystal] = []
    rows: list[Mapping[str, object]] = []
    skipped: list[str] = []
    notes: list[str] = []
    splits: set[str] = set()
    for record in _records(path, max_atoms):
        if wanted is not None:
            if "split" not in record.values:
                raise InputError(f"{record.where}: there is no column 'split'; leave the split out")
            splits.add(str(record.values["split"]))
            if str(record.values["split"]) not in wanted:
                continue
        try:
            crystal = checked(record.make(), record.notes)
        except InputError as error:
            if not skip_bad:
                raise InputError(f"{record.where}: {error}") from error
            skipped.append(f"{record.where}: {error}")
            continue
        crystals.append(crystal)
        rows.append(record.values)
        notes += [f"{record.where}: {note}" for note in record.notes]

    if wanted is not None and not wanted <= splits:
        missing, known = ", ".join(sorted(wanted - splits)), ", ".join(sorted(splits))
        raise InputError(f"{path}: no records of split {missing}; there are {known}")
    if not crystals:
        why = f"; the first of {len(skipped)} problems: {skipped[0]}" if skipped else ""
        raise InputError(f"{path}: no crystal in it{why}")
    return CrystalFile(crystals, skipped, _columns(rows), notes)


def write_cif(path: str | Path, crystals: Crystal | Sequence[Crystal]) -> list[Path]:
    """Write crystals in P1: into one file where ``path`` ends in ``.cif``, else one file each,
    named by the crystal, into the folder ``path``. Returns the files. Raises ``MissingExtraError``
    without pymatgen."""
    path = Path(path)
    texts = list(cif_texts([crystals] if isinstance(crystals, Crystal) else crystals))
    if path.suffix.lower() == ".cif":
        texts = [(path.stem, "\n".join(text for _, text in texts))]
        path = path.parent
    files = [path / f"{name}.cif" for name, _ in texts]
    for file, (_, text) in zip(files, texts, strict=True):
        with replacing(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return files


def write_crystal_extxyz(
    path: str | Path, crystals: Sequence[Crystal], properties: Mapping[str, Sequence] | None = None
) -> Path:
    """Write crystals as extended XYZ (positions in Å, cell, ``name``); ``properties``: values for
    each crystal."""
    frames = [to_atoms(crystal) for crystal in crystals]
    for name, values in (properties or {}).items():
        if len(values) != len(frames):
            raise InputError(
                f"property {name!r} has {len(values)} values for {len(frames)} crystals"
            )
        for atoms, value in zip(frames, values, strict=True):
            atoms.info[name] = value
    with replacing(path) as temporary:
        ase_write(temporary, frames, format="extxyz")
    return Path(path)


def _records(path: Path, max_atoms: int) -> Iterator[Record]:
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix.lower() == ".cif")
        if not files:
            raise InputError(f"{path}: there are no .cif files in this folder")
        for file in files:
            yield from _whole_file(file, max_atoms)
        return
    suffix = path.suffix.lower()
    if suffix == ".cif":
        yield from _cif_records(path, text_of(path), max_atoms)
    elif suffix == ".csv":
        yield from csv_records(path, text_of(path), max_atoms)
    elif suffix == ".npz":
        if not path.exists():
            raise InputError(f"{path}: no such file")
        yield from npz_records(path, max_atoms)
    elif suffix in (".extxyz", ".xyz"):
        yield from _extxyz_records(path, list(lines_of(path)), max_atoms)
    else:
        known = ".cif, .csv, .npz, .extxyz, or a folder of .cif"
        raise InputError(
            f"{path}: cannot tell the format; give {known}"
            if path.exists()
            else f"{path}: no such file"
        )


def _whole_file(file: Path, max_atoms: int) -> Iterator[Record]:
    """The blocks of a file; a file without any is one bad record, so that a folder can be read past
    it."""
    try:
        yield from list(_cif_records(file, text_of(file), max_atoms))
    except InputError as error:
        message = str(error).removeprefix(f"{file}: ")

        def fail() -> Crystal:
            raise InputError(message)

        yield Record(str(file), fail)


def _cif_records(path: Path, text: str, max_atoms: int) -> Iterator[Record]:
    every = cif_blocks(text)
    if not every:
        raise InputError(
            f"{path}: this is no CIF: there is no data block (a line that starts with data_) with"
            " content"
        )
    # others hold the paper and the experiment; of none that is a structure each says what it lacks
    blocks = [block for block in every if is_structure(block.text)] or every
    blocks = [block for block in blocks if has_sites(block.text)] or blocks
    for block in blocks:
        name = block.name if len(blocks) > 1 and block.name else path.stem
        notes: list[str] = []

        def make(text=block.text, name=name, notes=notes) -> Crystal:
            return crystal_from_cif(text, name, max_atoms, notes)

        yield Record(f"{path}, line {block.line} (data_{block.name})", make, notes=notes)


def _extxyz_records(path: Path, lines: list[str], max_atoms: int) -> Iterator[Record]:
    at, frame = 0, 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        frame += 1
        where = f"{path}, frame {frame}, line {at + 1}"
        try:
            count = int(lines[at])
        except ValueError:
            raise InputError(
                f"{where}: expected the number of atoms, found {lines[at][:40]!r}"
            ) from None
        text = lines[at : at + 2 + count]
        if count < 1 or len(text) < 2 + count or not all(line.strip() for line in text[2:]):
            raise InputError(f"{where}: the file is truncated, {count} atoms announced")
        if count > max_atoms:

            def make(count=count) -> Crystal:
                raise InputError(
                    f"{count:,} atoms in the cell, the limit is {max_atoms} (argument max_atoms)"
                )

            yield Record(where, make)
        else:
            atoms, problem = _frame(text)
            values = (
                {} if atoms is None else {k: v for k, v in atoms.info.items() if np.ndim(v) == 0}
            )
            name = str(values.pop("name", ""))

            def make(atoms=atoms, problem=problem, name=name) -> Crystal:
                if atoms is None:
                    raise InputError(problem)
                if not atoms.pbc.all():
                    raise InputError(
                        f"periodic along {int(atoms.pbc.sum())} of three vectors: a molecule or a"
                        ' slab and no crystal (pbc="T T T" would say so)'
                    )
                crystal = from_atoms(atoms, name)
                check_fractions(atoms.cell.scaled_positions(atoms.positions))
                return crystal

            yield Record(where, make, values)
        at += 2 + count


def _frame(lines: list[str]):
    """ASE atoms, or None and what is wrong."""
    told = re.search(r"properties=\"?(\S+)", lines[1], re.IGNORECASE)
    if told is None or told.group(1).lower().startswith("species:s:1"):  # numbers are elements
        lines = [*lines[:2], *(re.sub(r"^\s*(\d{1,3})(?=\s)", _symbol, row) for row in lines[2:])]
    unknown = [
        word
        for line in lines[2:]
        if (word := line.split()[0]).isalpha() and word not in atomic_numbers
    ]
    if unknown and "Properties" not in lines[1]:
        return None, f"unknown element {unknown[0]!r}"
    try:
        return ase_read(io.StringIO("\n".join(lines)), index=0, format="extxyz"), ""
    except KeyError as error:
        return None, f"unknown element {error.args[0]!r}"
    except Exception as error:  # ase raises many kinds here
        return None, f"cannot be read as extended XYZ ({' '.join(str(error).split())[:160]})"


def _symbol(match: re.Match) -> str:
    number = int(match.group(1))
    return chemical_symbols[number] if 0 < number < len(chemical_symbols) else match.group()


def _columns(rows: list[Mapping[str, object]]) -> dict[str, np.ndarray]:
    """Columns that every kept record has, as numbers where every value is one."""
    keys = [key for key in rows[0] if all(key in row for row in rows)]
    return {key: _column([row[key] for row in rows]) for key in keys}


def _column(values: list) -> np.ndarray:
    if not all(isinstance(value, str) for value in values):
        return np.array(values)
    try:
        numbers = np.array(values, dtype=np.float64)
    except ValueError:
        return np.array(values)
    # "007" and "mp-1" stay text; so does a number that would not come back as it stands
    whole = all(value.strip().lstrip("+-").isdigit() for value in values)
    if whole and any(len(v := value.strip().lstrip("+-")) > 1 and v[0] == "0" for value in values):
        return np.array(values)
    return numbers.astype(np.int64) if whole else numbers
