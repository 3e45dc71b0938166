"""Lists of SMILES with names: lines of text, and tables."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from rdkit import Chem
from rdkit.rdBase import BlockLogs

from orbitwise.data.lines import lines_of
from orbitwise.errors import InputError
from orbitwise.molecules.files.entry import Entry

_NAMES = ("name", "id", "title", "compound", "molecule", "compound_id", "mol_id", "molecule_name")
_LOOKED_AT = 50  # rows that tell what a column holds
_EXTENSION = re.compile(r"\s\|[^|]*\|")  # of ChemAxon's SMILES


def smiles_entries(path: Path) -> Iterator[Entry]:
    """``SMILES name`` in each line; blank lines and those that begin with # are passed over, and a
    first line of headings."""
    place = 0  # of the SMILES among the words
    first = True
    for number, line in enumerate(lines_of(path), 1):
        line = _EXTENSION.sub(" ", line).strip()
        if not line or line.startswith(("#", "//")):
            continue
        words = re.split(r"[\s,;]+", line, maxsplit=1)
        if first and _is_heading(words):
            heads = [_plain(word) for word in re.split(r"[\s,;]+", line)]
            place = next((k for k, head in enumerate(heads) if "smiles" in head), 0)
            first = False
            continue
        first = False
        if place:
            words = re.split(r"[\s,;]+", line)
            if len(words) <= place:
                yield Entry("", None, f"there is no SMILES in the line {line[:60]!r}", number)
                continue
            yield Entry.of(" ".join(words[:place]), words[place], number)
        else:
            yield Entry.of(words[1].strip(" \"'") if len(words) > 1 else "", words[0], number)


def csv_entries(path: Path) -> Iterator[Entry]:
    """The column called ``smiles`` in any case, else the only one whose values are SMILES; the name
    from a column ``name``, ``id`` or the like. Commas, semicolons, tabs or bars between them."""
    lines = lines_of(path)
    head = next((line for line in lines if line.strip()), "")
    delimiter = max(",;\t|", key=head.count)
    rows = csv.reader(_chain(head, lines), delimiter=delimiter, skipinitialspace=True)
    try:
        start = list(islice(rows, 1 + _LOOKED_AT))
        column, name, headed = _columns(path, start)
        yield from _entries(start[headed:], column, name, 1 + headed)
        for row in rows:
            yield from _entries([row], column, name, rows.line_num)
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: not a table ({error})") from None


def _chain(head: str, lines: Iterator[str]) -> Iterator[str]:
    yield head + "\n"
    for line in lines:
        yield line + "\n"


def _entries(
    rows: Sequence[Sequence[str]], column: int, name: int | None, first: int
) -> Iterator[Entry]:
    for number, row in enumerate(rows, first):
        if not any(cell.strip() for cell in row):
            continue
        called = row[name].strip() if name is not None and name < len(row) else ""
        if any("\n" in cell for cell in row):
            yield Entry("", None, "a quotation mark in this row is not closed", number)
            continue
        if column >= len(row) or not row[column].strip():
            yield Entry(called, None, "there is no SMILES in this row", number)
        else:
            yield Entry.of(called, _EXTENSION.sub("", row[column]), number)


def _columns(path: Path, rows: Sequence[Sequence[str]]) -> tuple[int, int | None, bool]:
    """Columns of SMILES and of names, and whether the first row holds headings."""
    heads = [_plain(cell) for cell in rows[0]]
    named = next((k for k, head in enumerate(heads) if head in _NAMES), None)
    exact = [k for k, head in enumerate(heads) if head == "smiles"]
    like = [k for k, head in enumerate(heads) if "smiles" in head]
    isomeric = [k for k in like if "isomeric" in heads[k]]
    if found := exact or isomeric or like:
        return found[0], named, True

    width = max(map(len, rows))
    good = [k for k in range(width) if _holds_smiles([row[k] for row in rows[1:] if k < len(row)])]
    headed = True
    if len(rows) == 1 or len(good) != 1:  # one row, or no headings at all
        good = [k for k in range(width) if _holds_smiles([row[k] for row in rows if k < len(row)])]
        headed = False
    elif _is_smiles(rows[0][good[0]] if good[0] < len(rows[0]) else ""):
        headed = False
    if len(good) != 1:
        what = "no column" if not good else f"{len(good)} columns"
        raise InputError(
            f"{path}: {what} of it could be SMILES; call the column smiles in the first line"
        )
    if not headed:
        named = 1 - good[0] if width == 2 else None
    return good[0], named, headed


def _holds_smiles(cells: Sequence[str]) -> bool:
    """Most of the values that are there are SMILES, and not all of them are numbers."""
    cells = [cell.strip() for cell in cells if cell.strip()]
    return bool(cells) and sum(map(_is_smiles, cells)) >= 0.6 * len(cells)


def _is_smiles(text: str) -> bool:
    with BlockLogs():
        mol = Chem.MolFromSmiles(text.strip()) if text.strip().isascii() else None
    return mol is not None and mol.GetNumAtoms() > 0


def _is_heading(words: Sequence[str]) -> bool:
    """Of a list: it speaks of SMILES, or is a usual heading and no SMILES."""
    plain = [_plain(word) for word in words]
    known = any("smiles" in word or word in ("structure", "mol", "molecule") for word in plain)
    return known and not _is_smiles(words[0])


def _plain(text: str) -> str:
    return re.sub(r"[\s-]+", "_", text.strip().strip("\"'").lower())
