"""The text of extended XYZ: elements, positions and comments of each frame, with errors that name
the line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from ase.io.extxyz import key_val_str_to_dict

from orbitwise.errors import InputError

TOO_CLOSE = 0.1  # Å; two atoms nearer than this are a broken file


@dataclass(frozen=True)
class Frame:
    """Atomic numbers ``(N,)``, positions ``(N, 3)``, the numbers and words of its comment, and its
    place in a file."""

    species: np.ndarray
    positions: np.ndarray
    info: dict
    where: str


def check_extxyz(path: str | Path) -> None:
    """Raise ``InputError`` as ``extxyz_frames`` does, with frame and line; nothing is asked of the
    chemistry."""
    extxyz_frames(Path(path))


def is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def read_lines(path: Path) -> list[str]:
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


def extxyz_frames(path: Path) -> list[Frame]:
    lines = read_lines(path)
    frames: list[Frame] = []
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
                f"{where}, line {at + 2 + there + 1}: the file is truncated: {count} atoms"
                f" announced, {there} found"
            )
        frames.append(_extxyz_frame(lines[at + 1], rows, where, at + 3))
        at += 2 + count
    return frames


def _extxyz_frame(comment: str, rows: list[str], where: str, first_line: int) -> Frame:
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
            raise InputError(
                f"{place}: {len(words)} columns where {width} are needed: {row.strip()[:60]!r}"
            )
        symbol = words[species_at]
        species[k] = int(symbol) if symbol.isdigit() else atomic_numbers.get(symbol.capitalize(), 0)
        if not 1 <= species[k] <= 118:
            raise InputError(f"{place}: unknown element {symbol!r}")
        try:
            positions[k] = [float(word) for word in words[position_at : position_at + 3]]
        except ValueError:
            raise InputError(
                f"{place}: a coordinate is not a number: {row.strip()[:60]!r}"
            ) from None
        if not all(map(math.isfinite, positions[k])):
            raise InputError(f"{place}: a coordinate is not finite: {row.strip()[:60]!r}")
    return Frame(species, positions, info, where)


def _columns(properties: str, where: str, line: int) -> tuple[int, int, int]:
    """Column of the element, first column of the positions, and number of columns in
    ``Properties``."""
    words = properties.split(":")
    at, found = 0, {}
    try:
        for name, _, size in zip(words[::3], words[1::3], words[2::3], strict=True):
            found[name] = at
            at += int(size)
        return found["species" if "species" in found else "Z"], found["pos"], at
    except (ValueError, KeyError):
        raise InputError(
            f"{where}, line {line}: Properties={properties} must list name:type:columns, with"
            " species (or Z) and pos"
        ) from None
