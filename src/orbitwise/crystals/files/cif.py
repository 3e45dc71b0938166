"""CIF: blocks of a file, the one ordered crystal that a block describes, and text to write."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers

from orbitwise.crystals.crystal import Crystal
from orbitwise.crystals.files.convert import from_structure, to_structure
from orbitwise.errors import InputError

_CELL = [f"_cell_{name}" for name in ("length_a", "length_b", "length_c")]
_CELL += [f"_cell_angle_{name}" for name in ("alpha", "beta", "gamma")]
_PLACES = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
_OPERATIONS = (
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_symmetry_equiv_pos_as_xyz_",
)
_GROUPS = ("_symmetry_Int_Tables_number", "_space_group_IT_number", "_space_group.it_number")
_SYMBOLS = (
    "_symmetry_space_group_name_H-M",
    "_space_group_name_H-M_alt",
    "_symmetry_space_group_name_H_M",
)
_UNKNOWN = ("", ".", "?")


@dataclass(frozen=True)
class CifText:
    """One data block: its name, the line (from 1) where it begins, and its text."""

    name: str
    line: int
    text: str


def cif_blocks(text: str) -> list[CifText]:
    """The data blocks of a CIF; ``data_`` inside text fields (between lines that start with ``;``)
    is no block."""
    starts, names, inside = [], [], False
    lines = text.splitlines()
    for k, line in enumerate(lines):
        begins = re.match(r"\s*data_(\S*)", line, re.IGNORECASE)
        if line.startswith(";"):
            inside = not inside
        elif begins and inside:
            lines[k] = f"({line.strip()})"  # pymatgen would begin a block here
        elif begins:
            starts.append(k)
            names.append(begins.group(1))
    ends = [*starts, len(lines)][1:]
    return [
        CifText(name, a + 1, "\n".join(lines[a:b]))
        for name, a, b in zip(names, starts, ends, strict=True)
        if any(line.lstrip().startswith(("_", "loop_")) for line in lines[a + 1 : b])
    ]


def crystal_from_cif(text: str, name: str = "", max_atoms: int = 500) -> Crystal:
    """The crystal of a CIF with one data block, symmetry applied (sites sorted as pymatgen does).

    Raises ``InputError`` for text that is no CIF, a missing cell, numbers that are missing or not
    finite, partial occupancy or disorder, an unknown element, implicit hydrogens, and more than
    ``max_atoms`` atoms in the cell.
    """
    from pymatgen.io.cif import CifBlock, CifParser

    blocks = cif_blocks(text)
    if len(blocks) != 1:
        raise InputError("this is no CIF with one data block (a line that starts with data_)")
    text = blocks[0].text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            block = CifBlock.from_str(text).data
    except Exception as error:  # pymatgen and its tokeniser raise many kinds here
        raise InputError(f"the CIF is malformed ({_short(error)})") from error
    elements = _check(block, max_atoms)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exact = {"frac_tolerance": 0.0} if _without_symmetry(block) else {}
            parser = CifParser.from_str(text, check_cif=False, **exact)
            (structure,) = parser.parse_structures(primitive=False, on_error="raise")
    except Exception as error:
        raise InputError(f"the CIF is malformed ({_short(error)})") from error
    if "implicit_hydrogens" in structure.site_properties:
        raise InputError("hydrogens without coordinates (water or OH as one site); give every atom")
    if len(structure) > max_atoms:
        raise InputError(_too_many(len(structure), max_atoms))
    crystal = from_structure(structure, name)
    if set(crystal.species.tolist()) != elements:
        raise InputError(
            "the elements of its atom sites cannot be told; give _atom_site_type_symbol"
        )
    return crystal


def cif_texts(crystals: Sequence[Crystal]) -> Iterator[tuple[str, str]]:
    """``(block name, CIF text)`` of each crystal in P1, all atoms listed; names are made unique."""
    from pymatgen.io.cif import CifWriter

    used: set[str] = set()
    for k, crystal in enumerate(crystals, 1):
        plain = re.sub(r"[^A-Za-z0-9_.+-]+", "_", crystal.name).strip("_.")[:60] or f"crystal_{k}"
        name = plain if plain not in used else f"{plain}_{k}"
        used.add(name)
        text = str(CifWriter(to_structure(crystal), significant_figures=10))
        yield (
            name,
            re.sub(
                r"^data_.*$", lambda _, name=name: f"data_{name}", text, count=1, flags=re.MULTILINE
            ),
        )


def _check(block: dict, max_atoms: int) -> set[int]:
    """Everything that pymatgen would repair, drop or guess in silence; the elements of the
    sites."""
    absent = [key for key in _CELL if key not in block]
    if absent:
        raise InputError(f"there is no cell: {', '.join(absent)} missing")
    cell = [_number(block[key], key) for key in _CELL]
    if min(cell[:3]) <= 0 or not all(0 < angle < 180 for angle in cell[3:]):
        raise InputError(f"the cell {cell[:3]} Å, {cell[3:]}° is none")
    columns = [block.get(key) for key in _PLACES]
    if not all(isinstance(column, list) and column for column in columns):
        raise InputError(
            "there are no atom sites with fractional coordinates (_atom_site_fract_x, _y, _z)"
        )

    labels = block.get("_atom_site_label", [])
    symbols = block.get("_atom_site_type_symbol", labels)
    sizes = {len(column) for column in (*columns, symbols)} | {len(labels or symbols)}
    if len(sizes) > 1:
        raise InputError("the columns of the atom sites have different lengths")
    if len(symbols) > max_atoms:
        raise InputError(_too_many(len(symbols), max_atoms))
    for key, column in zip(_PLACES, columns, strict=True):
        for k, value in enumerate(column):
            _number(value, f"{key} of atom site {k + 1}")

    for k, value in enumerate(block.get("_atom_site_occupancy", [])):
        if str(value).strip() not in _UNKNOWN and abs(_number(value, "an occupancy") - 1) > 1e-3:
            raise InputError(
                f"atom site {k + 1} ({symbols[k]}) has occupancy {value}: partial occupancy is not"
                " supported; give an ordered structure"
            )

    for k, value in enumerate(block.get("_atom_site_disorder_group", [])):
        if str(value).strip() not in _UNKNOWN:
            raise InputError(
                f"atom site {k + 1} ({symbols[k]}) belongs to disorder group {value}; give an"
                " ordered structure"
            )
    return {_element(symbol, k) for k, symbol in enumerate(symbols)}


def _element(symbol: str, site: int) -> int:
    """Atomic number of ``Sr``, ``Sr2+``, ``SR1``, ``O1`` or ``OA1``; ``Xx`` is no element, and no
    element X."""
    letters = re.match(r"[A-Za-z]*", symbol.strip()).group()
    word = letters[:2].capitalize()
    if word not in atomic_numbers and letters[1:2].isupper():
        word = letters[0]
    number = 1 if word in ("D", "T") else atomic_numbers.get(word, 0)
    if not 1 <= number <= 118:
        raise InputError(f"atom site {site + 1}: unknown element {symbol!r}")
    return number


def _number(value: object, what: str) -> float:
    text = re.sub(r"\(\d*\)$", "", str(value).strip())  # the standard uncertainty
    try:
        number = float(text)
    except ValueError:
        raise InputError(f"{what} is not a number: {value!r}") from None
    if not np.isfinite(number):
        raise InputError(f"{what} is not finite: {value!r}")
    return number


def _without_symmetry(block: dict) -> bool:
    """Whether the sites are all atoms of the cell; their coordinates are then taken as they
    stand."""
    for key in _OPERATIONS:
        if key in block:
            value = block[key]
            return isinstance(value, str) or len(value) == 1
    number = next((str(block[k]).strip() for k in _GROUPS if k in block), "1")
    symbol = next(
        (str(block[k]).replace(" ", "").strip("'\"") for k in _SYMBOLS if k in block), "P1"
    )
    return number in ("1", *_UNKNOWN) and symbol in ("P1", *_UNKNOWN)


def _too_many(count: int, limit: int) -> str:
    return f"{count:,} atoms in the cell, the limit is {limit} (argument max_atoms)"


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
