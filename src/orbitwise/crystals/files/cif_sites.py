"""The atom sites of a CIF block: coordinates and elements, held against its formula."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from orbitwise.errors import InputError

_PLACES = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
_CARTESIAN = ("_atom_site_cartn_x", "_atom_site_cartn_y", "_atom_site_cartn_z")
_UNKNOWN = ("", ".", "?")
_WATER = r"(wat|water|o[hd]2?|[hd]2o|[hd]3o|[hd]oh|n[hd]\d|c[hd]\d)([+-]|\d+[+-]?)?"
_LARGEST = 1e3  # cells away from the origin


@dataclass(frozen=True)
class Sites:
    """``frac: (N, 3)`` and ``species: (N,)`` of the sites of the asymmetric unit."""

    frac: np.ndarray
    species: np.ndarray


def sites_of(block: dict[str, Any], cell: np.ndarray, max_atoms: int) -> Sites:
    """The sites of a block (tags in small letters), whose ``cell: (3, 3)`` is in Å.

    Raises ``InputError`` for what pymatgen would repair, drop or guess in silence.
    """
    columns = [block.get(key) for key in _PLACES]
    cartesian = False
    if not all(isinstance(column, list) and column for column in columns):
        columns = [block.get(key) for key in _CARTESIAN]
        cartesian = True
    if not all(isinstance(column, list) and column for column in columns):
        raise InputError(
            "there are no atom sites with fractional coordinates (_atom_site_fract_x, _y, _z)"
        )
    n = len(columns[0])
    labels = block.get("_atom_site_label", [])
    symbols = block.get("_atom_site_type_symbol", labels)
    every = [*columns, symbols, *([labels] if labels else [])]
    if {len(column) if isinstance(column, list) else -1 for column in every} != {n}:
        raise InputError("the columns of the atom sites have different lengths")
    if n > max_atoms:
        raise InputError(f"{n:,} atom sites, the limit is {max_atoms} (argument max_atoms)")

    real = _real(block, n)
    _check_order(block, symbols)
    _check_hydrogens(block, symbols)
    names = _PLACES if not cartesian else _CARTESIAN
    places = np.array(
        [
            [number_of(column[k], f"{key} of atom site {k + 1}") for k in real]
            for key, column in zip(names, columns, strict=True)
        ]
    ).T
    frac = np.linalg.solve(cell.T, places.T).T if cartesian else places
    if np.abs(frac).max() > _LARGEST:
        k = int(np.abs(frac).max(-1).argmax())
        raise InputError(f"atom site {real[k] + 1} lies at {frac[k].tolist()} cells: too far away")
    formula = formula_of(block)
    typed = _column(block, "_atom_site_type_symbol")
    from_label = all(str(value).strip() in _UNKNOWN for value in typed)
    if from_label or labels:  # a type that is not told is that of its label
        symbols = [
            label if str(symbol).strip() in _UNKNOWN else symbol
            for symbol, label in zip(symbols, labels or symbols, strict=True)
        ]
    species = [_element(str(symbols[k]), k, formula, from_label) for k in real]
    return Sites(frac, np.array(species))


def formula_of(block: dict[str, Any]) -> Counter[int] | None:
    """Atoms of ``_chemical_formula_sum`` (else ``_chemical_formula_moiety`` of one piece) by atomic
    number, deuterium as hydrogen; None where there is none that can be read."""
    text = str(block.get("_chemical_formula_sum", "")).strip().strip("'\"")
    if text.isupper() and " " in text:  # NA1 CL1
        text = " ".join(re.sub("[A-Z]+", lambda m: m.group().capitalize(), w) for w in text.split())
    parts = re.findall(r"([A-Z][a-z]?)([0-9.]*)", text)
    if not parts or "".join(a + b for a, b in parts) != re.sub(r"[\s,]", "", text):
        return None
    found: Counter[int] = Counter()
    for symbol, count in parts:
        number = 1 if symbol in ("D", "T") else atomic_numbers.get(symbol, 0)
        if not 1 <= number <= 118:
            return None
        try:
            found[number] += float(count or 1)  # type: ignore[assignment]
        except ValueError:
            return None
    return found


def check_formula(block: dict[str, Any], species: np.ndarray, *, exactly: bool = False) -> None:
    """Raise ``InputError`` where the atoms of the cell are no multiple of the formula; ``exactly``:
    also where they are not the number of units that the file tells."""
    formula = formula_of(block)
    if not formula or not all(formula.values()):
        return
    counts = Counter(species.tolist())
    for z in counts.keys() - formula.keys():
        raise InputError(
            f"the sites hold {chemical_symbols[z]}, which its formula"
            f" ({block['_chemical_formula_sum']}) does not; give _atom_site_type_symbol"
        )
    units = max(counts[z] / n for z, n in formula.items())
    given = _times(block)
    if exactly and given and abs(units - given) > 0.05:
        raise InputError(f"the cell has {units:g} formula units, not {given:g}")
    if given and all(counts[z] <= n * given + 1e-6 for z, n in formula.items()):
        units = max(units, given)
    missing = {z: n * units - counts[z] for z, n in formula.items()}
    lacking = [f"{round(m)} {chemical_symbols[z]}" for z, m in missing.items() if m > 0.05 * units]
    if lacking:
        raise InputError(
            f"the sites do not make its formula ({block['_chemical_formula_sum']}): "
            f"{', '.join(lacking)} missing in the cell"
        )


def number_of(value: object, what: str) -> float:
    """A number with or without its standard uncertainty."""
    text = re.sub(r"\(\d*\)$", "", str(value).strip())
    try:
        number = float(text if "_" not in text else "none")  # Python reads 1_000
    except ValueError:
        raise InputError(f"{what} is not a number: {value!r}") from None
    if not np.isfinite(number):
        raise InputError(f"{what} is not finite: {value!r}")
    return number


def _times(block: dict[str, Any]) -> float:
    """How many formula units the cell has, 0 where it is not told."""
    try:
        return float(str(block.get("_cell_formula_units_z", "0")).strip("'\""))
    except ValueError:
        return 0.0


def _real(block: dict[str, Any], n: int) -> list[int]:
    """Sites that are atoms: dummies of a calculation are none."""
    flags = block.get("_atom_site_calc_flag", [])
    flags = flags if isinstance(flags, list) and len(flags) == n else [""] * n
    real = [k for k in range(n) if str(flags[k]).strip().lower() not in ("dum", "dummy")]
    if not real:
        raise InputError("all of its atom sites are dummies")
    return real


def _check_order(block: dict[str, Any], symbols: list[str]) -> None:
    for k, value in enumerate(_column(block, "_atom_site_occupancy")):
        told = str(value).strip() not in _UNKNOWN
        if told and abs(number_of(value, "an occupancy") - 1) > 1e-3:
            raise InputError(
                f"atom site {k + 1} ({symbols[k]}) has occupancy {value}: partial occupancy is not"
                " supported; give an ordered structure"
            )
    for key in ("_atom_site_disorder_group", "_atom_site_disorder_assembly"):
        for k, value in enumerate(_column(block, key)):
            if str(value).strip() not in (*_UNKNOWN, "0"):
                raise InputError(
                    f"atom site {k + 1} ({symbols[k]}) belongs to disorder group {value}; give an"
                    " ordered structure"
                )


def _check_hydrogens(block: dict[str, Any], labels: list[str]) -> None:
    for k, value in enumerate(_column(block, "_atom_site_attached_hydrogens")):
        if str(value).strip() not in _UNKNOWN and number_of(value, "attached hydrogens") > 0:
            raise InputError(
                f"atom site {k + 1} ({labels[k]}) has {value} attached hydrogens without"
                " coordinates; give every atom"
            )
    typed = "_atom_site_type_symbol" in block
    for value in () if not typed and formula_of(block) else labels:  # the formula counts them
        if re.fullmatch(_WATER, str(value).strip(), re.IGNORECASE):
            raise InputError(
                f"hydrogens without coordinates (water or OH as one site, {value}); give every atom"
            )


def _column(block: dict[str, Any], key: str) -> list[Any]:
    value = block.get(key, [])
    return value if isinstance(value, list) else [value]


def _element(symbol: str, site: int, formula: Counter[int] | None, from_label: bool) -> int:
    """Atomic number of ``Sr``, ``Sr2+``, ``SR1``, ``O1`` or ``OA1``. Two letters of which the first
    is an element as well are told apart by the formula, else by the case of the second."""
    letters = re.match(r"[A-Za-z]*", symbol.strip()).group()  # type: ignore[union-attr]
    words = [letters[:2].capitalize(), letters[:1].upper()]
    if letters[1:2].islower() and not (from_label and formula):
        words = words[:1]  # as in Ca1: no C
    possible = [z for z in map(_number, dict.fromkeys(words)) if z]
    if formula and possible:
        known = [z for z in possible if z in formula]
        if not known:
            raise InputError(
                f"atom site {site + 1}: {symbol!r} is no element of its formula"
                f" ({', '.join(chemical_symbols[z] for z in formula)})"
            )
        possible = known[:1]
    elif words[-1] == "T" and len(letters) == 1:
        possible = []  # a tetrahedral site of a zeolite, or tritium
    if not possible:
        raise InputError(f"atom site {site + 1}: unknown element {symbol!r}")
    if len(possible) > 1 and from_label:
        words = " or ".join(chemical_symbols[z] for z in possible)
        raise InputError(
            f"atom site {site + 1}: {symbol!r} may be {words}; give _atom_site_type_symbol"
        )
    return possible[0]


def _number(word: str) -> int:
    number = 1 if word in ("D", "T") else atomic_numbers.get(word, 0)
    return number if 1 <= number <= 118 else 0
