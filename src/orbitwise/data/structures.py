"""Structures of any composition with reference values: energies, forces and stresses beside
positions and cells."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io import read as ase_read
from ase.stress import voigt_6_to_full_3x3_stress

from orbitwise.data.extxyz import check_extxyz, parse_comment
from orbitwise.data.lines import lines_of
from orbitwise.data.physical import check_distances, check_forces
from orbitwise.errors import InputError

OUTPUTS = ("energy", "forces", "stress")
# Names that data sets use beside the plain ones, which ASE keeps for its own calculators.
_ALSO = {
    "energy": ("REF_energy", "energy_ref", "dft_energy", "TotEnergy"),
    "forces": ("REF_forces", "force", "forces_ref", "dft_forces"),
    "stress": ("REF_stress", "stress_ref", "dft_stress"),
}
_LIKE = r"energ|forc|stress|virial"


@dataclass(frozen=True)
class Structure:
    """One structure: ``numbers (N,)``, ``positions (N, 3)`` Å, ``cell (3, 3)`` Å (rows are the
    vectors; zeros where nothing is periodic), ``pbc (3,)``, the reference values that the file has
    (None: it has none) of ``energy`` in eV, ``forces (N, 3)`` in eV/Å and ``stress (3, 3)`` in
    eV/Å³, and ``where`` it stands. ``unused``: columns and entries whose names look like reference
    values and which nothing here reads."""

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    where: str
    energy: float | None = None
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None
    unused: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)


def read_structures(path: str | Path) -> list[Structure]:
    """All frames of an extended (or plain) XYZ file, in eV and Å as ASE has them.

    Positions of a structure without periodicity are centred. Raises ``InputError`` naming file and
    frame for a missing, empty, truncated or malformed file, a number that is not finite, and a
    periodic frame without a cell.
    """
    path = Path(path)
    check_extxyz(path)
    try:
        text = "\n".join(_with_symbols(lines_of(path)))
        frames = ase_read(io.StringIO(text), index=":", format="extxyz")
    except Exception as error:  # ase raises many kinds here
        raise InputError(f"{path}: cannot be read as extended XYZ ({error})") from error
    return [_structure(atoms, f"{path}, frame {k}") for k, atoms in enumerate(frames, 1)]


def _with_symbols(lines: Iterable[str]) -> Iterator[str]:
    """Frames with symbols where the column of the species has atomic numbers, which ASE does not
    know there; columns called Z, which it does, stay as they are."""
    every = iter(lines)
    for line in every:
        if not line.strip():
            continue
        comment = next(every)
        _, (at, _, _) = parse_comment(comment, "the file")
        named = "Properties" not in comment or "species:" in comment
        yield line.strip()
        yield comment.replace("species:I:", "species:S:")
        for row in islice(every, int(line)):
            words = row.split()
            if named and words[at].isdecimal():
                words[at] = chemical_symbols[int(words[at])]
            yield " ".join(words)


def available(structures: Sequence[Structure]) -> tuple[str, ...]:
    """The reference values that every structure has."""
    return tuple(name for name in OUTPUTS if all(getattr(s, name) is not None for s in structures))


def notes_of(name: str, structures: Iterable[Structure]) -> tuple[str, ...]:
    """What the file ``name`` holds and nothing here reads, though it looks like reference
    values."""
    unused = dict.fromkeys(entry for s in structures for entry in s.unused)
    if not unused:
        return ()
    return (
        f"{name}: {', '.join(unused)} are not used; call them energy (eV), forces (eV/Å)"
        " or stress (eV/Å³) where they are the reference values",
    )


def _structure(atoms: Atoms, where: str) -> Structure:
    periodic = np.asarray(atoms.pbc, dtype=bool)
    cell = np.asarray(atoms.cell.array, dtype=np.float64)
    if periodic.any() and abs(np.linalg.det(cell)) < 1e-6:
        raise InputError(f"{where}: periodic, but its cell has no volume; give Lattice=...")
    positions = atoms.positions.astype(np.float64)
    try:
        found = _values(atoms)
        check_distances(positions, cell=cell if periodic.all() else None, species=atoms.numbers)
        if np.shape(found["forces"]) == (len(atoms), 3):
            check_forces(np.asarray(found["forces"]))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if (forces := found["forces"]) is not None and np.shape(forces) != (len(atoms), 3):
        raise InputError(
            f"{where}: forces have shape {np.shape(forces)}, expected ({len(atoms)}, 3)"
        )
    if found["stress"] is not None:
        found["stress"] = _full(found["stress"], where)
    for name, value in found.items():
        if value is not None and not np.isfinite(value).all():
            raise InputError(f"{where}: {name} is not finite")
    return Structure(
        numbers=atoms.numbers.astype(np.int64),
        positions=positions if periodic.any() else positions - positions.mean(0),
        cell=cell if periodic.any() else np.zeros((3, 3)),
        pbc=periodic,
        where=where,
        unused=_unused(atoms),
        **found,
    )


def _unused(atoms: Atoms) -> tuple[str, ...]:
    read = {name for output in OUTPUTS for name in (output, *_ALSO[output])}
    names = [*atoms.info, *atoms.arrays]
    return tuple(n for n in names if n not in read and re.search(_LIKE, n, re.IGNORECASE))


def _values(atoms: Atoms) -> dict[str, float | np.ndarray | None]:
    results: Mapping = getattr(atoms.calc, "results", {})
    found: dict[str, float | np.ndarray | None] = {}
    for name in OUTPUTS:
        places = [results.get(name)]
        places += [
            source.get(key) for key in (name, *_ALSO[name]) for source in (atoms.info, atoms.arrays)
        ]
        value = next((v for v in places if v is not None), None)
        found[name] = None if value is None else _numbers(name, value)
    return found


def _numbers(name: str, value: object) -> float | np.ndarray:
    """As numbers, one for an energy; a word, a flag and an empty list are none."""
    found = np.asarray(value)
    if found.dtype.kind not in "iuf" or not found.size or (name == "energy" and found.ndim):
        kind = "a number" if name == "energy" else "numbers"
        raise InputError(f"{name} is {value!r}, not {kind} (in eV and Å, without a unit)")
    return float(found) if name == "energy" else found.astype(np.float64)


def _full(stress: np.ndarray, where: str) -> np.ndarray:
    """``(3, 3)`` from that, nine numbers, or six in Voigt's order."""
    if stress.shape == (6,):
        return voigt_6_to_full_3x3_stress(stress)
    if stress.size == 9:
        return stress.reshape(3, 3)
    raise InputError(f"{where}: the stress has shape {stress.shape}, expected 6 or 3 × 3 numbers")
