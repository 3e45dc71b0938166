"""Texts about crystals: made from a structure in few or many words, or taken from a column of its
file."""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from orbitwise.crystals.crystal import Crystal
from orbitwise.crystals.files.convert import to_structure
from orbitwise.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core import Structure

SYMPREC = 0.1  # Å, tolerance of space groups
GAP, REACH = (
    1.15,
    1.4,
)  # a shell of neighbours ends at a gap of 15 %, at the latest at 1.4 times the nearest
ANGLE = 15.0  # degrees, rms of sorted angles up to which a geometry has its name

_NUMBERS = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
_OCTAHEDRON = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]
_CUBE = [[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
_EDGES = [[x, y, 0] for x in (-1, 1) for y in (-1, 1)]
_EDGES += [[x, 0, y] for x, y, _ in _EDGES] + [[0, x, y] for x, y, _ in _EDGES]
_TRIANGLE = [[1, 0, 0], [-0.5, 3**0.5 / 2, 0], [-0.5, -(3**0.5) / 2, 0]]
_TETRAHEDRON = [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
_SHAPES = {
    "a line": _OCTAHEDRON[:2],
    "a bent line": [[1, 0, 0], [-0.4, 0.9165, 0]],
    "a triangle": _TRIANGLE,
    "a trigonal pyramid": _TETRAHEDRON[:3],
    "a tetrahedron": _TETRAHEDRON,
    "a square": _OCTAHEDRON[:4],
    "a square pyramid": _OCTAHEDRON[:5],
    "a trigonal bipyramid": [*_TRIANGLE, [0, 0, 1], [0, 0, -1]],
    "an octahedron": _OCTAHEDRON,
    "a trigonal prism": [[x, y, z] for x, y, _ in _TRIANGLE for z in (-0.7637, 0.7637)],
    "a cube": _CUBE,
    "a cuboctahedron": _EDGES,
}


def short_prompt(crystal: Crystal) -> str:
    """Formula, space group and crystal system: ``SrTiO3, space group Pm-3m (221), cubic crystal
    system.``

    The space group is that of spglib, through pymatgen, at ``SYMPREC``; where it finds none,
    nothing is said of it. Raises ``MissingExtraError`` without pymatgen.
    """
    return _symmetry(to_structure(crystal))


def long_prompt(crystal: Crystal) -> str:
    """The short prompt, cell lengths and angles, volume per atom, and what surrounds each element:
    the numbers of its neighbours, the geometry, shortest bonds in Å. In the manner of
    robocrystallographer (Ganose & Jain 2019), whose texts TGDMat (Das 2503.00522) uses, by a few
    lines of our own.

    The neighbours of an atom are those up to the first gap of 15 % in their distances, and not
    farther than 1.4 times the nearest one. A text of this kind tells much of the answer: which atom
    sits in the octahedra, and where the others are from there.
    """
    structure = to_structure(crystal)
    shells = _shells(structure)
    lengths, angles = structure.lattice.abc, structure.lattice.angles
    volume = structure.volume / len(structure)
    kind = "dense" if volume < 11 else "medium" if volume < 18 else "open"
    words = [
        _symmetry(structure),
        (
            f"Cell lengths {', '.join(f'{x:.1f}' for x in lengths)} Å, angles"
            f" {', '.join(f'{x:.0f}' for x in angles)}, volume {volume:.0f} Å3 per atom, {kind}."
        ),
    ]
    words += [_surroundings(element, sites) for element, sites in shells.items()]
    words += [f"Shortest bonds {_shortest(shells)} Å."]
    return " ".join(words)


FORMS: dict[str, Callable[[Crystal], str]] = {"short": short_prompt, "long": long_prompt}


def check_form(form: str) -> str:
    """``form`` where it is none, short, long or column:NAME; raises ``InputError``."""
    if form in ("none", *FORMS) or (form.startswith("column:") and form != "column:"):
        return form
    raise InputError(
        f"prompt {form!r}: give none, short, long, or column:NAME for a column of the file"
    )


def prompts(
    crystals: Sequence[Crystal],
    form: str,
    columns: Mapping[str, np.ndarray] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """One text for each crystal: ``form`` is ``"short"``, ``"long"`` or ``"column:NAME"``, a column
    of ``columns``.

    Of a list of texts, as ``"['one', 'another']"``, the first is taken. Raises ``InputError`` for a
    column that does not exist, or that holds no text at some record (which is named).
    """
    if check_form(form) == "none":
        raise InputError("prompt 'none' makes no texts; give short, long or column:NAME")
    if form in FORMS:
        texts = []
        for i, crystal in enumerate(crystals):
            texts.append(FORMS[form](crystal))
            if progress is not None:
                progress(i + 1, len(crystals))
        return texts

    name, columns = form.removeprefix("column:"), columns or {}
    if name not in columns:
        there = f"there are {', '.join(sorted(columns))}" if columns else "the file has no columns"
        raise InputError(f"prompt {form!r}: there is no column {name!r}; {there}")

    values = columns[name]
    if len(values) != len(crystals):
        raise InputError(f"column {name!r} has {len(values)} values for {len(crystals)} crystals")
    texts = []
    for i, (value, crystal) in enumerate(zip(values, crystals, strict=True)):
        text = _first(value) if isinstance(value, str) else ""
        if not text.strip():
            who = f" ({crystal.name})" if crystal.name else ""
            raise InputError(
                f"column {name!r}, crystal {i + 1}{who}: expected a text, found {value!r}"
            )
        texts.append(text.strip())
    return texts


def about_element(text: str, number: int) -> str:
    """The sentences of a text that are about the element of an atomic number: those with its symbol
    or English name among their first two words, or, where there are none, all that name it; empty
    where none does."""
    from ase.data import atomic_names, chemical_symbols

    named = re.compile(rf"\b(?:{chemical_symbols[number]}|(?i:{atomic_names[number]}))\b")
    sentences = re.split(r"(?<=[.;!?])\s+", text.strip())
    naming = [sentence for sentence in sentences if named.search(sentence)]
    own = [sentence for sentence in naming if named.search(" ".join(sentence.split()[:2]))]
    return " ".join(own or naming)


def _first(value: str) -> str:
    """The first of a list of texts written as one text; any other text as it is."""
    if not value.lstrip().startswith("["):
        return str(value)
    try:
        listed = ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return str(value)
    return next((text for text in listed if isinstance(text, str) and text.strip()), "")


def _symmetry(structure: Structure) -> str:
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer, SymmetryUndeterminedError

    formula = structure.composition.reduced_formula
    try:
        found = SpacegroupAnalyzer(structure, symprec=SYMPREC)
        symbol, number = found.get_space_group_symbol(), found.get_space_group_number()
    except SymmetryUndeterminedError:
        return f"{formula}."
    return (
        f"{formula}, space group {symbol} ({number}), {found.get_crystal_system()} crystal system."
    )


def _shells(structure: Structure) -> dict[str, list[tuple[tuple, str, dict[str, float]]]]:
    """For each element, the least electronegative first, and each of its atoms: neighbours
    ``((element, count), ...)``, the geometry in words, and the shortest distance to each of these
    elements."""
    symbols = np.array([site.specie.symbol for site in structure])
    order = sorted(set(symbols), key=lambda s: (_electronegativity(s), s))
    found = {symbol: [] for symbol in order}
    reach = 4.0
    while True:  # until every atom sees as far as its shell may go
        centre, other, image, distance = structure.get_neighbor_list(reach, exclude_self=True)
        nearest = np.full(len(structure), np.inf)
        np.minimum.at(nearest, centre, distance)
        if (needed := REACH * nearest.max()) <= reach:
            break
        reach = 2 * reach if np.isinf(needed) else 1.01 * needed

    ends = structure.lattice.get_cartesian_coords(structure.frac_coords[other] + image)
    arrows = (ends - structure.cart_coords[centre]) / distance[:, None]
    for i, symbol in enumerate(symbols):
        mine = np.flatnonzero(centre == i)
        mine = mine[np.argsort(distance[mine], kind="stable")]
        d = distance[mine]
        d = d[d <= REACH * d[0]]
        gaps = np.flatnonzero(d[1:] > GAP * d[:-1])
        count = gaps[0] + 1 if len(gaps) else len(d)
        mine = mine[:count]
        kinds = Counter(symbols[other[mine]].tolist())
        ranked = tuple(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))
        shortest = {s: float(distance[mine][symbols[other[mine]] == s].min()) for s in kinds}
        found[symbol].append((ranked, _geometry(arrows[mine]), shortest))
    return found


def _geometry(arrows: np.ndarray) -> str:
    """The name of the arrangement of unit vectors ``(K, 3)`` by the sorted angles between them;
    empty: none fits."""
    mine = _angles(arrows)
    best, name = ANGLE, ""
    for shape, corners in _SHAPES.items():
        if len(corners) == len(arrows) > 1:
            error = float(np.sqrt(np.mean((mine - _angles(np.array(corners, dtype=float))) ** 2)))
            if error < best:
                best, name = error, shape
    return name


def _angles(arrows: np.ndarray) -> np.ndarray:
    unit = arrows / np.linalg.norm(arrows, axis=-1, keepdims=True)
    pairs = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    return np.sort(np.degrees(np.arccos(pairs.clip(-1, 1))))


def _surroundings(element: str, sites: list[tuple[tuple, str, dict[str, float]]]) -> str:
    """One sentence: ``Ti is bonded to six O atoms in an octahedron.``"""
    kinds = Counter((neighbours, shape) for neighbours, shape, _ in sites)
    parts = []
    for (neighbours, shape), count in kinds.most_common(3):
        who = element if len(kinds) == 1 else f"{_number(count)} {element}"
        atoms = " and ".join(f"{_number(n)} {other}" for other, n in neighbours)
        plural = "s" if neighbours[-1][1] > 1 else ""
        be = "is" if len(kinds) == 1 or count == 1 else "are"
        parts.append(
            f"{who} {be} bonded to {atoms} atom{plural}" + (f" in {shape}" if shape else "")
        )
    text = ", ".join(parts)
    return text[0].upper() + text[1:] + "."


def _shortest(shells: dict[str, list[tuple[tuple, str, dict[str, float]]]]) -> str:
    """``Ti-O 1.95, Sr-O 2.76``: each pair of elements once."""
    found: dict[tuple[str, str], float] = {}
    rank = {element: i for i, element in enumerate(shells)}
    for element, sites in shells.items():
        for _, _, shortest in sites:
            for other, d in shortest.items():
                pair = tuple(sorted((element, other), key=rank.__getitem__))
                found[pair] = min(d, found.get(pair, np.inf))
    return ", ".join(f"{a}-{b} {d:.2f}" for (a, b), d in found.items())


def _electronegativity(symbol: str) -> float:
    from ase.data import atomic_numbers
    from pymatgen.core import Element

    with warnings.catch_warnings():  # noble gases have none, pymatgen says so: last
        warnings.simplefilter("ignore")
        value = Element.from_Z(atomic_numbers[symbol]).X
    return value if np.isfinite(value) else 10.0


def _number(n: int) -> str:
    return _NUMBERS[n] if n < len(_NUMBERS) else str(n)
