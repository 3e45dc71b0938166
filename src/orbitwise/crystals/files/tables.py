"""Tables of crystals: the CSV format of CDVAE and DiffCSP, and arrays in one ``.npz``."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from orbitwise.crystals.crystal import Crystal
from orbitwise.crystals.files.cif import crystal_from_cif
from orbitwise.crystals.files.convert import cell_from_parameters, wrapped
from orbitwise.crystals.files.sound import check_fractions, check_parameters
from orbitwise.data.archive import Array, read_archive
from orbitwise.errors import InputError

_SCHEMA = {
    "lengths_angles": Array("f", "M 6"),
    "num_atoms": Array("i", "M"),
    "offsets": Array("i", "M+1"),
    "atomic_numbers": Array("i", "atoms"),
    "frac_coords": Array("f", "atoms 3"),
    "material_id": Array("iU", "M", optional=True),
}


@dataclass(frozen=True)
class Record:
    """One structure of a file: where it stands, how to make it (may raise ``InputError``, may add
    to ``notes``), its other columns."""

    where: str
    make: Callable[[], Crystal]
    values: Mapping[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def csv_records(path: Path, text: str, max_atoms: int) -> Iterator[Record]:
    """Rows with columns ``material_id`` and ``cif``; all others are values (a nameless index column
    is not)."""
    csv.field_size_limit(
        max(csv.field_size_limit(), 1 << 26)
    )  # a CIF is longer than the default allows
    rows = csv.DictReader(io.StringIO(text))
    absent = [name for name in ("material_id", "cif") if name not in (rows.fieldnames or ())]
    if absent:
        raise InputError(
            f"{path}, line 1: column {' and '.join(map(repr, absent))} missing; found"
            f" {', '.join(rows.fieldnames)}"
        )
    last = rows.line_num
    while True:
        where = f"{path}, line {last + 1}"
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{where}: the CSV is malformed ({error})") from error
        last = rows.line_num
        name, cif = row.pop("material_id") or "", row.pop("cif")
        values = {
            key: value for key, value in row.items() if key and key.strip() and value is not None
        }

        notes: list[str] = []

        def make(name=name, cif=cif, notes=notes) -> Crystal:
            if not cif or not cif.strip():
                raise InputError("the cif field is empty")
            return crystal_from_cif(cif, name, max_atoms, notes)

        yield Record(f"{where} ({name})" if name else where, make, values, notes)


def npz_records(path: Path, max_atoms: int) -> Iterator[Record]:
    """Flat arrays: ``lengths_angles (M, 6)`` Å and degrees, ``num_atoms (M,)``, ``offsets (M +
    1,)``, ``atomic_numbers`` and ``frac_coords`` of all atoms; every other array of length M is a
    column."""
    arrays = read_archive(path, _SCHEMA, others="biufU")
    size, offsets = len(arrays["num_atoms"]), arrays["offsets"].astype(np.int64)
    counts = arrays["num_atoms"].astype(np.int64)
    whole = size > 0 and offsets[0] == 0 and offsets[-1] == len(arrays["atomic_numbers"])
    if not whole or not np.array_equal(np.diff(offsets), counts) or counts.min() < 1:
        raise InputError(f"{path}: offsets and num_atoms do not cut the atoms into {size} crystals")
    lattice = cell_from_parameters(arrays["lengths_angles"])
    names = arrays.get("material_id", np.arange(1, size + 1)).astype(str)
    species = arrays["atomic_numbers"].astype(np.int64)
    others = {k: v for k, v in arrays.items() if k not in _SCHEMA and v.ndim and len(v) == size}
    for i in range(size):

        def make(i=i) -> Crystal:
            if counts[i] > max_atoms:
                raise InputError(
                    f"{counts[i]:,} atoms in the cell, the limit is {max_atoms}"
                    " (argument max_atoms)"
                )
            atoms = slice(offsets[i], offsets[i + 1])
            check_parameters(arrays["lengths_angles"][i].astype(np.float64))
            frac = arrays["frac_coords"][atoms].astype(np.float64)
            if not np.isfinite(frac).all():
                raise InputError("a coordinate is not finite")
            check_fractions(frac)
            return Crystal(wrapped(frac), lattice[i], species[atoms], names[i])

        yield Record(
            f"{path}, record {i + 1} ({names[i]})", make, {k: v[i] for k, v in others.items()}
        )
