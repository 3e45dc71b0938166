"""The one reader of ``.npz`` archives: sizes, kinds, ranks and lengths are checked before data."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from orbitwise.errors import InputError

LARGEST_RATIO = 1100  # deflate cannot pack more tightly than 1032 to 1
LARGE, LARGE_RATIO = 2**26, 200  # bytes from which on data do not pack more tightly than this
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,  # also a name that is not unicode
    KeyError,
    TypeError,
    SyntaxError,
    IndexError,
    OverflowError,
    RuntimeError,  # an encrypted member
    NotImplementedError,  # another way of packing
)


@dataclass(frozen=True)
class Array:
    """What an array has to be: ``kinds``, letters of NumPy's ``dtype.kind`` (``"f"`` takes integers
    as well); ``shape``, one word per axis: a number, or a name with ``+1`` or without, which has
    one value in all arrays (``"M 3"``, ``"K+1"``; ``"..."`` is any shape); whether it may be
    missing; whether all its numbers have to be ``finite``."""

    kinds: str
    shape: str
    optional: bool = False
    finite: bool = False


def array_names(path: str | Path) -> list[str]:
    """The names of the arrays that an ``.npz`` file holds. Raises ``InputError`` as
    ``read_archive`` does."""
    return _opened(Path(path), lambda file, members: list(members))


def read_archive(
    path: str | Path, schema: Mapping[str, Array], *, others: str = ""
) -> dict[str, np.ndarray]:
    """The arrays of ``schema`` that an ``.npz`` file holds; of what else is in it, arrays whose
    kind is one of ``others`` are read as well.

    Raises ``InputError`` with the file and the array where the file is missing or broken, declares
    more than it can hold, or an array is missing, has another kind or shape, or a number that is
    not finite where it has to be.
    """
    path = Path(path)

    def read(
        file: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]
    ) -> dict[str, np.ndarray]:
        missing = [n for n, a in schema.items() if n not in members and not a.optional]
        if missing:
            there = ", ".join(sorted(members)[:8])
            raise InputError(f"{path}: has no {', '.join(sorted(missing))}; found {there}")
        headers = {n: _header(path, n, file, m) for n, m in members.items()}
        sizes: dict[str, tuple[int, str]] = {}
        for name, array in schema.items():
            if name in headers:
                _check(path, name, array, *headers[name], sizes)
        wanted = [n for n, (_, d) in headers.items() if n in schema or d.kind in others]
        found = {name: _data(path, name, file, members[name]) for name in wanted}
        for name in wanted:
            if name in schema and schema[name].finite:
                _check_finite(path, name, found[name])
        return found

    return _opened(path, read)


T = TypeVar("T")


def _opened(path: Path, act: Callable[[zipfile.ZipFile, Mapping[str, zipfile.ZipInfo]], T]) -> T:
    """What ``act`` makes of an archive and its members; everything that can be wrong with it is an
    ``InputError``."""
    try:
        with zipfile.ZipFile(path) as file:
            members = {i.filename.removesuffix(".npy"): i for i in file.infolist()}
            _check_sizes(path, members)
            return act(file, members)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, not a file") from None
    except MemoryError:
        raise InputError(f"{path}: does not fit into memory") from None
    except _BROKEN as error:
        raise InputError(f"{path}: not an .npz archive, or a broken one ({error})") from None


def _check_finite(path: Path, name: str, array: np.ndarray) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        at = np.argwhere(~np.isfinite(array))[0]
        place = ", ".join(str(int(k)) for k in at)
        raise InputError(
            f"{path}, array {name}: entry [{place}] is {array[tuple(at)]}, not a finite number"
        )


def _check_sizes(path: Path, members: Mapping[str, zipfile.ZipInfo]) -> None:
    """What the directory declares, against what a file of this size can hold."""
    room = LARGEST_RATIO * path.stat().st_size
    for name, member in members.items():
        ratio = LARGE_RATIO if member.file_size > LARGE else LARGEST_RATIO
        if member.file_size > ratio * member.compress_size + 1024:
            raise InputError(f"{path}, array {name}: declares more bytes than are packed in it")
    if sum(member.file_size for member in members.values()) > room:
        raise InputError(f"{path}: declares more bytes than the file can hold")


def _header(
    path: Path, name: str, file: zipfile.ZipFile, member: zipfile.ZipInfo
) -> tuple[tuple[int, ...], np.dtype]:
    try:
        with file.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read(stream)
            rest = member.file_size - stream.tell()
    except _BROKEN as error:
        raise InputError(f"{path}, array {name}: its header is broken ({error})") from None
    if dtype.hasobject:  # refused where it is wanted, never read
        return shape, dtype
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != rest:
        raise InputError(f"{path}, array {name}: {rest} bytes are not the {shape} that it declares")
    return shape, dtype


def _check(
    path: Path,
    name: str,
    array: Array,
    shape: tuple[int, ...],
    dtype: np.dtype,
    sizes: dict[str, tuple[int, str]],
) -> None:
    if dtype.hasobject:
        raise InputError(f"{path}, array {name}: holds Python objects, not plain numbers or text")
    kinds = array.kinds.replace("f", "fiu").replace("i", "iu")
    if dtype.kind not in kinds:
        raise InputError(f"{path}, array {name}: is of type {dtype}, expected {_names(array)}")
    if array.shape == "...":
        return
    words = array.shape.split()
    if len(shape) != len(words):
        raise InputError(f"{path}, array {name}: has shape {shape}, expected ({array.shape})")
    for word, length in zip(words, shape, strict=True):
        symbol, _, more = word.partition("+")
        if symbol.isdecimal():
            expected, why = int(symbol), ""
        else:
            value, first = sizes.setdefault(symbol, (length - int(more or 0), name))
            expected, why = value + int(more or 0), f", as {first} says"
        if length != expected or length < int(more or 0):
            raise InputError(
                f"{path}, array {name}: has shape {shape}, expected ({array.shape}) with"
                f" {expected} for {word}{why}"
            )


def _names(array: Array) -> str:
    names = {"f": "numbers", "i": "integers", "b": "true or false", "U": "text"}
    return " or ".join(names.get(kind, kind) for kind in array.kinds)


def _data(path: Path, name: str, file: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    try:
        with file.open(member) as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
            stream.read()  # to the end, where the checksum is looked at
            return array
    except MemoryError:
        raise InputError(f"{path}, array {name}: does not fit into memory") from None
    except _BROKEN as error:
        raise InputError(f"{path}, array {name}: cannot be read ({error})") from None
