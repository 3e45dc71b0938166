"""The lines of a text file as people have them: UTF-8 with or without a byte order mark, UTF-16,
Latin-1, any line ends; one at a time, however large the file is."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from orbitwise.errors import InputError

LONGEST = 1_000_000  # bytes of a line; more is no file of this kind
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def lines_of(path: str | Path) -> Iterator[str]:
    """Lines without their ends. Bytes that are not UTF-8 are read as Latin-1.

    Raises ``InputError`` for a file that is missing, a folder, not readable, empty, or not text.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(64)
            file.seek(0)
            if start[:2] in _UTF16:
                text = start.decode("utf-16", "ignore")
                if 2 * sum(map(str.isascii, text)) <= len(text):  # two bytes that mean nothing
                    raise InputError(f"{path}: not a text file")
                source = iter(codecs.getreader("utf-16")(file))
            else:
                source = _decoded(iter(lambda: file.readline(LONGEST + 1), b""), path)
            seen = False
            for text in source:
                for line in text.splitlines() or [""]:
                    seen = seen or bool(line.strip())
                    yield line
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, not a file") from None
    except PermissionError:
        raise InputError(f"{path}: you may not read this file; change its permissions") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not seen:
        raise InputError(f"{path}: the file is empty")


def _decoded(lines: Iterator[bytes], path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if len(line) > LONGEST or b"\0" in line:
            raise InputError(f"{path}, line {number}: not a text file")
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError:
            yield line.decode("latin-1")


def text_of(path: str | Path) -> str:
    """The whole text, its lines ended by line feeds. Raises ``InputError`` as ``lines_of`` does."""
    return "\n".join(lines_of(path))
