"""The text of extended XYZ: elements, positions and comments of each frame, with errors that name
the line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from ase.io.extxyz import key_val_str_to_dict

from orbitwise.data.lines import lines_of
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
    return list(lines_of(path))


def extxyz_frames(path: Path) -> list[Frame]:
    frames: list[Frame] = []
    for frame in each_frame(path):
        if isinstance(frame, InputError):
            raise frame
        frames.append(frame)
    return frames


def each_frame(path: Path) -> Iterator[Frame | InputError]:
    """The frames of a file one after the other, or what is wrong with one. Where its length is in
    doubt the rest of the file cannot be told either, and is not read."""
    lines = enumerate(lines_of(path), 1)
    number = 0
    for at, line in lines:
        if not line.strip():
            continue
        number += 1
        where = f"{path}, frame {number}"
        try:
            count = int(line)
        except ValueError:
            yield InputError(
                f"{where}, line {at}: expected the number of atoms, found {line[:40]!r}"
            )
            return
        if count < 1:
            yield InputError(f"{where}, line {at}: {count} atoms")
            return
        rows = [text for _, text in islice(lines, min(1 + count, 2**40))]
        there = next((k for k, row in enumerate(rows[1:]) if not row.strip()), len(rows) - 1)
        if there < count:
            yield InputError(
                f"{where}, line {at + 2 + max(there, 0)}: the file is truncated: {count} atoms"
                f" announced, {max(there, 0)} found"
            )
            return
        try:
            yield _extxyz_frame(rows[0], rows[1:], where, at + 2)
        except InputError as error:
            yield error


def _extxyz_frame(comment: str, rows: list[str], where: str, first_line: int) -> Frame:
    info, columns = parse_comment(comment, f"{where}, line {first_line - 1}")
    return _atoms(rows, columns, info, where, first_line)


def parse_comment(comment: str, place: str) -> tuple[dict, tuple[int, int, int]]:
    """The entries of a comment line but ``Properties``, and of those the column of the element, the
    first column of the positions, and the number of columns. ``InputError`` begins with
    ``place``."""
    try:
        info = key_val_str_to_dict(comment) if "=" in comment else {}
    except Exception as error:  # ase raises many kinds here
        if "properties=" not in comment.lower():  # a remark, not extended XYZ
            return {}, (0, 1, 4)
        raise InputError(f"{place}: the comment line cannot be read ({error})") from error
    return info, _columns(str(info.pop("Properties", "species:S:1:pos:R:3")), place)


def _atoms(
    rows: list[str], columns: tuple[int, int, int], info: dict, where: str, first_line: int
) -> Frame:
    species_at, position_at, width = columns
    species, positions = np.empty(len(rows), dtype=np.int64), np.empty((len(rows), 3))
    for k, row in enumerate(rows):
        place = f"{where}, line {first_line + k}"
        words = row.split()
        if len(words) < width:
            raise InputError(
                f"{place}: {len(words)} columns where {width} are needed: {row.strip()[:60]!r}"
            )
        symbol = words[species_at]
        number = symbol.isascii() and symbol.isdecimal() and len(symbol) < 4
        species[k] = int(symbol) if number else atomic_numbers.get(symbol.capitalize(), 0)
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


def _columns(properties: str, place: str) -> tuple[int, int, int]:
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
            f"{place}: Properties={properties} must list name:type:columns, with"
            " species (or Z) and pos"
        ) from None
