"""CIF: blocks of a file, the one ordered crystal that a block describes, and text to write."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orbitwise.crystals.crystal import Crystal
from orbitwise.crystals.files.cif_sites import Sites, check_formula, number_of, sites_of
from orbitwise.crystals.files.convert import cell_from_parameters, to_structure, wrapped
from orbitwise.crystals.files.sound import check_parameters
from orbitwise.crystals.files.space_group import (
    Operations,
    fits,
    listed_operations,
    named_operations,
    number_of_group,
)
from orbitwise.errors import InputError

_CELL = [f"_cell_{name}" for name in ("length_a", "length_b", "length_c")]
_CELL += [f"_cell_angle_{name}" for name in ("alpha", "beta", "gamma")]
# tags in small letters, with _ for the dots of newer dictionaries
_OPERATIONS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
_NAMES = (
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m_alt",
    "_space_group_name_h-m_full",
    "_space_group_name_h-m_ref",
    "_space_group_name_h-m",
    "_symmetry_space_group_name",
    "_symmetry_space_group_name_h-m_full",
)
_SCHOENFLIES = ("_space_group_name_schoenflies", "_symmetry_space_group_name_schoenflies")
_HALL = ("_symmetry_space_group_name_hall", "_space_group_name_hall")
_NUMBERS = ("_symmetry_int_tables_number", "_space_group_it_number")
_CODES = ("_space_group_it_coordinate_system_code",)
_SMALL = re.compile(r"^[ \t]*(loop_|_\S+)", re.IGNORECASE | re.MULTILINE)  # tags
_UNKNOWN = ("", ".", "?")
_SAME_SITE = 0.2  # Å: images of a site that lie nearer are one atom on a special position


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


def crystal_from_cif(
    text: str, name: str = "", max_atoms: int = 500, notes: list[str] | None = None
) -> Crystal:
    """The crystal of a CIF with one data block, symmetry applied, its sites in the order of the
    file. Without symmetry coordinates stay exactly as they are; with it, images within 0.2 Å of
    each other are one atom at their mean, which is the special position.

    ``notes``: gets what was decided between several meanings. Raises ``InputError`` for text that
    is no CIF, a missing cell, numbers that are missing or not finite, a space group that is not
    known or does not fit the cell, partial occupancy or disorder, an unknown element, hydrogens
    without coordinates, atoms that the formula does not have, and more than ``max_atoms`` atoms in
    the cell.
    """
    notes = [] if notes is None else notes
    block = _block(text)
    cell = _cell(block)
    sites = sites_of(block, cell, max_atoms)
    found = []
    for operations in _settings(block, cell, notes):
        frac, source = _expanded(sites, operations, cell, again := [])
        if len(frac) <= 4 * max_atoms:
            found.append((len(frac), operations.setting, frac, sites.species[source], again))
    if not found:
        raise InputError(_too_many(4 * max_atoms, max_atoms))
    # Of two origins that is meant which makes the formula; then that of fewer atoms, since atoms
    # lie on special positions.
    right = [one for one in found if _makes_formula(block, one[3])]
    count, setting, frac, species, again = min(right or found, key=lambda one: one[0])
    if len(right or found) > 1:
        notes.append(f"the origin of {setting} is not told; the one with {count} atoms is taken")
    if count > max_atoms:
        raise InputError(_too_many(count, max_atoms))
    check_formula(block, species)
    if again:
        notes.append(f"{len(again)} of its sites are images of others; each atom is taken once")
    return Crystal(wrapped(frac), cell, species, name)


def is_structure(text: str) -> bool:
    """Whether a data block describes a crystal, and not the paper or the experiment alone."""
    cell = r"^\s*_cell[_.]length_[abc]\s+[^?.\s]"
    sites = r"^\s*_atom_site[_.](fract|cartn)_x"
    return any(re.search(p, text, re.IGNORECASE | re.MULTILINE) for p in (sites, cell))


def has_sites(text: str) -> bool:
    """Whether a data block has coordinates of atoms."""
    sites = r"^\s*_atom_site[_.](fract|cartn)_x"
    return re.search(sites, text, re.IGNORECASE | re.MULTILINE) is not None


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


def _block(text: str) -> dict[str, Any]:
    """Tags in small letters with their values or columns."""
    from pymatgen.io.cif import CifBlock

    blocks = cif_blocks(text)
    if len(blocks) != 1:
        raise InputError("this is no CIF with one data block (a line that starts with data_)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            raw = CifBlock.from_str(_SMALL.sub(lambda m: m.group().lower(), blocks[0].text)).data
    except Exception as error:  # pymatgen and its tokeniser raise many kinds here
        raise InputError(f"the CIF is malformed ({_short(error)})") from error
    found: dict[str, Any] = {}
    for key, value in raw.items():
        name = key.lower().replace(".", "_").rstrip("_").replace("h_m", "h-m")
        if found.setdefault(name, value) != value and name.startswith(("_cell", "_atom_site_")):
            raise InputError(f"{name} is given twice")
    return found


def _cell(block: dict[str, Any]) -> np.ndarray:
    absent = [key for key in _CELL if key not in block]
    if absent:
        raise InputError(f"there is no cell: {', '.join(absent)} missing")
    values = np.array([number_of(block[key], key) for key in _CELL])
    check_parameters(values)
    return cell_from_parameters(values)


def _settings(block: dict[str, Any], cell: np.ndarray, notes: list[str]) -> tuple[Operations, ...]:
    """The operations that are listed, else those of the group that is named; of each setting that
    the name can mean."""
    told = {
        "names": _told(block, _NAMES),
        "hall": _told(block, _HALL),
        "numbers": _told(block, _NUMBERS),
        "codes": _told(block, _CODES),
        "schoenflies": _told(block, _SCHOENFLIES),
    }
    listed = next((texts for key in _OPERATIONS if (texts := _told(block, [key]))), None)
    if listed is None:
        return named_operations(**told, cell=cell) or (listed_operations(["x,y,z"]),)
    operations = listed_operations(listed)
    if not fits(operations, cell):
        raise InputError("the symmetry operations do not fit the cell: lengths or angles differ")
    try:
        named = named_operations(**told, cell=cell)
    except InputError:  # a name that nobody needs
        named = ()
    numbers = {number_of_group(one, cell) for one in named}
    different = len(operations) not in {len(one) for one in named} or (
        number_of_group(operations, cell) not in {0, *numbers}
    )
    if named and different:
        notes.append(
            f"{len(operations)} symmetry operations are listed, the named space group"
            f" {named[0].setting} has {len(named[0])}; the listed ones are taken"
        )
    return (operations,)


def _told(block: dict[str, Any], keys: Sequence[str]) -> list[str]:
    columns = [block[key] for key in keys if key in block]
    each = [value for v in columns for value in (v if isinstance(v, list) else [v])]
    values = [str(value).strip().strip("'\"").strip() for value in each]
    return [value for value in dict.fromkeys(values) if value not in _UNKNOWN]


def _makes_formula(block: dict[str, Any], species: np.ndarray) -> bool:
    """Whether a choice has the atoms, and the number of formula units, that the file tells."""
    try:
        check_formula(block, species, exactly=True)
    except InputError:
        return False
    return True


def _expanded(
    sites: Sites, operations: Operations, cell: np.ndarray, again: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """All atoms of the cell, ``(N, 3)``, and the site of each, ``(N,)``; ``again`` gets sites that
    are images of others of the same element."""
    frac = sites.frac
    if operations.trivial:
        return frac, np.arange(len(frac))
    images = np.einsum("kij,nj->nki", operations.rotations, frac) + operations.translations
    atoms, source = [], []
    for k, orbit in enumerate(images):
        rest = orbit
        if (
            len(atoms)
            and _among(orbit[0], np.array(atoms), cell)[
                sites.species[source] == sites.species[k]
            ].any()
        ):
            again.append(k)
            continue
        while len(rest):
            apart = rest - rest[0]
            apart -= apart.round()
            near = np.linalg.norm(apart @ cell, axis=-1) < _SAME_SITE
            atoms.append(rest[0] + apart[near].mean(0))
            source.append(k)
            rest = rest[~near]
    return np.array(atoms), np.array(source)


def _among(place: np.ndarray, atoms: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Which of ``atoms: (N, 3)`` lie where ``place: (3,)`` does."""
    apart = atoms - place
    apart -= apart.round()
    return np.linalg.norm(apart @ cell, axis=-1) < _SAME_SITE


def _too_many(count: int, limit: int) -> str:
    return f"{count:,} atoms in the cell, the limit is {limit} (argument max_atoms)"


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
