"""Frames of one molecule with the force on every atom, apart for training and for being held
out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orbitwise.data.archive import Array, array_names, read_archive
from orbitwise.data.physical import check_distances, check_forces
from orbitwise.errors import InputError

BOND = 1.25  # in sums of covalent radii
# 3BPA: the frames of its mixed set stand in three blocks, told apart by their energies
_SCHEMA = {
    "atomic_numbers": Array("i", "N"),
    "positions": Array("f", "F N 3", finite=True),
    "forces": Array("f", "F N 3", finite=True),
    "bonds": Array("i", "pairs 2", optional=True),
    "train_01": Array("i", "train", optional=True),
    "test_01": Array("i", "test", optional=True),
}
MIXED_BLOCKS = {"300 K": slice(0, 167), "600 K": slice(167, 334), "1200 K": slice(334, 500)}


@dataclass(frozen=True)
class ForceFrames:
    """``x: (F, N, 3)`` in Å at zero mean, ``target: (F, N, 3)`` forces in eV/Å, float32."""

    x: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor | slice) -> ForceFrames:
        return ForceFrames(self.x[index], self.target[index])

    def to(self, device: torch.device | str) -> ForceFrames:
        return ForceFrames(self.x.to(device), self.target.to(device))


@dataclass(frozen=True)
class ForceData:
    """One molecule: ``species (N,)`` atomic numbers, ``bonds (N, N)`` 1 where bonded, frames for
    training in the order in which to take fewer of them, and held-out frames by level (a
    temperature; None where there is one kind). ``notes``: what the file has and nothing reads."""

    species: Tensor
    bonds: Tensor
    training: ForceFrames
    held_out: Mapping[str | None, ForceFrames]
    notes: tuple[str, ...] = ()


def read_forces(path: str | Path, seed: int = 0) -> ForceData:
    """Frames with forces from an ``.npz`` or ``.extxyz`` file.

    ``.npz`` in the layout of rMD17 (``atomic_numbers``, ``positions``, ``forces`` in Å and eV/Å):
    with ``train_01`` and ``test_01`` the official split, its training frames first and after them
    all frames of neither; else a fifth is held out, drawn with ``seed``. ``.npz`` in the layout of
    3BPA (``train_300K_...``, ``train_mixedT_...``): trained at 300 K, held out at 300, 600 and 1200
    K without the frames that are in both sets. ``.extxyz``: frames of one molecule with forces, a
    fifth held out. Raises ``InputError`` for a file that is missing or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: there is no such file; say where the frames with forces are: data=FILE.npz"
        )
    if path.suffix in (".extxyz", ".xyz"):
        return _extxyz(path, seed)
    if "train_300K_positions" in array_names(path):
        cold, mixed = (
            {
                f"train_{level}_positions": Array("f", f"{level} N 3", finite=True),
                f"train_{level}_forces": Array("f", f"{level} N 3", finite=True),
            }
            for level in ("300K", "mixedT")
        )
        species = {"train_300K_atomic_numbers": Array("i", "N")}
        return _mixed(read_archive(path, species | cold | mixed), path)
    arrays = read_archive(path, _SCHEMA)
    return _single(arrays, path, seed)


def _single(arrays: Mapping[str, np.ndarray], path: Path, seed: int) -> ForceData:
    species = _species(arrays["atomic_numbers"], path)
    frames = _frames(species, arrays["positions"], arrays["forces"], path)
    if {"train_01", "test_01"} <= arrays.keys():
        first, test = (
            torch.from_numpy(arrays[k].astype(np.int64)) for k in ("train_01", "test_01")
        )
        for part in (first, test):
            if not len(part) or part.min() < 0 or part.max() >= len(frames):
                raise InputError(
                    f"{path}: train_01 and test_01 must be frames 0 to {len(frames) - 1}"
                )
        rest = torch.ones(len(frames), dtype=torch.bool)
        rest[first] = rest[test] = False
        train = torch.cat([first, rest.nonzero().flatten()])
    else:
        order = torch.randperm(len(frames), generator=torch.Generator().manual_seed(seed))
        test, train = order.split([len(frames) // 5, len(frames) - len(frames) // 5])
    x = frames.x[0].numpy()
    bonds = (
        bonded(species, x) if "bonds" not in arrays else _table(arrays["bonds"], len(species), path)
    )
    return ForceData(_long(species), bonds, frames[train], {None: frames[test]})


def _mixed(arrays: Mapping[str, np.ndarray], path: Path) -> ForceData:
    species = _species(arrays["train_300K_atomic_numbers"], path)
    cold, mixed = (
        _frames(species, arrays[f"train_{k}_positions"], arrays[f"train_{k}_forces"], path)
        for k in ("300K", "mixedT")
    )
    seen = {frame.tobytes() for frame in _rounded(cold.x)}
    new = torch.tensor([frame.tobytes() not in seen for frame in _rounded(mixed.x)])
    held_out = {level: mixed[block][new[block]] for level, block in MIXED_BLOCKS.items()}
    return ForceData(_long(species), bonded(species, cold.x[0].numpy()), cold, held_out)


def _extxyz(path: Path, seed: int) -> ForceData:
    from orbitwise.data.structures import notes_of, read_structures

    found = read_structures(path)
    notes = notes_of(path.name, found)
    lacking = next((s.where for s in found if s.forces is None), None)
    if lacking is not None:
        raise InputError(". ".join([f"{lacking} has no forces", *notes]))
    if any(not np.array_equal(s.numbers, found[0].numbers) for s in found):
        raise InputError(
            f"{path}: the frames are not all of one molecule in one order of its atoms"
        )
    stacked = {
        "atomic_numbers": found[0].numbers,
        "positions": np.stack([s.positions for s in found]),
        "forces": np.stack([s.forces for s in found]),
    }
    return replace(_single(stacked, path, seed), notes=notes)


def bonded(species: np.ndarray, x: np.ndarray) -> Tensor:
    """Which atoms of ``x: (N, 3)`` in Å stand within 1.25 sums of covalent radii: ``(N, N)`` of 0
    and 1."""
    from ase.data import covalent_radii

    radius = covalent_radii[np.asarray(species, dtype=int)]
    near = np.linalg.norm(x[:, None] - x, axis=-1) < BOND * (radius[:, None] + radius)
    np.fill_diagonal(near, False)
    return torch.from_numpy(near.astype(np.int64))


def _frames(
    species: np.ndarray, positions: np.ndarray, forces: np.ndarray, path: Path
) -> ForceFrames:
    if positions.shape != forces.shape or positions.ndim != 3 or positions.shape[-1] != 3:
        raise InputError(
            f"{path}: positions {positions.shape} and forces {forces.shape} must both be (F, N, 3)"
        )
    if len(positions) < 5:
        raise InputError(
            f"{path}: {len(positions)} frames are too few to train on and to hold some out"
        )
    for k, (place, force) in enumerate(zip(positions, forces, strict=True)):
        try:
            check_distances(place, species=species)
            check_forces(force)
        except InputError as error:
            raise InputError(f"{path}, frame {k + 1}: {error}") from None
    x = positions.astype(np.float64)
    x = (x - x.mean(1, keepdims=True)).astype(np.float32)
    return ForceFrames(torch.from_numpy(x), torch.from_numpy(forces.astype(np.float32)))


def _species(numbers: np.ndarray, path: Path) -> np.ndarray:
    if not len(numbers) or numbers.min() < 1 or numbers.max() > 118:
        raise InputError(f"{path}: atomic_numbers must be those of elements, 1 to 118")
    return numbers


def _table(pairs: np.ndarray, size: int, path: Path) -> Tensor:
    if len(pairs) and (pairs.min() < 0 or pairs.max() >= size):
        raise InputError(f"{path}: bonds must be pairs of atoms 0 to {size - 1}")
    bonds = torch.zeros(size, size, dtype=torch.long)
    i, j = torch.from_numpy(pairs.astype(np.int64)).T
    bonds[i, j] = bonds[j, i] = 1
    return bonds


def _rounded(x: Tensor) -> np.ndarray:
    return np.round(x.numpy(), 3) + 0.0


def _long(species: np.ndarray) -> Tensor:
    return torch.from_numpy(species.astype(np.int64))
