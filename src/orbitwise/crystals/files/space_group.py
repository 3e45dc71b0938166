"""Space groups as CIFs name them: Hermann-Mauguin, Hall or number, any setting, to operations.

The operations of the 530 settings come from spglib's database. A name that fits several settings
is told apart by the cell: its metric has to be invariant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

from orbitwise.errors import InputError

_SETTINGS = range(1, 531)
_CODED = (
    r"(.+?)\s*(?:[:(]\s*(?:origin(?:\s*choice)?\s*)?([-12habcrsz]+[123]?)"
    r"|\s(o?[12]|[hr]s?|hr|[sz]))\s*\)?"
)
_SAME_CODES = {"o1": "1", "o2": "2", "rs": "r", "hs": "h", "hr": "h"}
_METRIC = 0.02  # relative change of a cell that still counts as invariant
# the e-glides of 1992, by number: old names of all settings to new ones
_E_GLIDES = {
    39: "abm2 aem2 bma2 bme2 b2cm b2em c2mb c2me cm2a cm2e ac2m ae2m",
    41: "aba2 aea2 bba2 bbe2 b2cb b2eb c2cb c2ce cc2a cc2e ac2a ae2a",
    64: "cmca cmce ccmb ccme abma aema acam aeam bbcm bbem bmab bmeb",
    67: "cmma cmme cmmb cmme abmm aemm acmm aemm bmcm bmem bmam bmem",
    68: "ccca ccce cccb ccce abaa aeaa acaa aeaa bbcb bbeb bbab bbeb",
}


@dataclass(frozen=True)
class Operations:
    """``x -> rotation x + translation`` in fractions of the cell: ``rotations: (K, 3, 3)``,
    ``translations: (K, 3)``; ``setting``: in words."""

    rotations: np.ndarray
    translations: np.ndarray
    setting: str = ""

    def __len__(self) -> int:
        return len(self.rotations)

    @property
    def trivial(self) -> bool:
        """Whether they leave every point where it is."""
        moved = np.abs(self.translations - self.translations.round()).max()
        return len(self) == 1 and bool((self.rotations[0] == np.eye(3)).all()) and moved < 1e-6


def listed_operations(texts: Sequence[str]) -> Operations:
    """Operations written as ``-x+1/2, y, z``. Raises ``InputError`` for one that is none, and
    where they do not hold the identity."""
    if len(texts) > 192 * 4:
        raise InputError(f"{len(texts)} symmetry operations: no space group has as many")
    found = [_operation(text) for text in texts]
    rotations, translations = (np.array(part) for part in zip(*found, strict=True))
    if not any((r == np.eye(3)).all() for r in rotations):
        raise InputError("the identity is missing among the symmetry operations")
    _check_group(rotations, translations)
    return Operations(rotations, translations, "its listed operations")


def number_of_group(operations: Operations, cell: np.ndarray) -> int:
    """The number of the group that operations are, as spglib tells it; 0 where it cannot."""
    from spglib import get_spacegroup_type_from_symmetry

    try:
        found = get_spacegroup_type_from_symmetry(
            operations.rotations.round().astype(np.intc), operations.translations, cell, 1e-3
        )
    except Exception:  # spglib raises kinds of its own
        return 0
    return 0 if found is None else int(found.number)


def fits(operations: Operations, cell: np.ndarray) -> bool:
    """Whether operations leave the lengths and angles of a cell as they are."""
    return _invariant(operations, cell)


def _check_group(rotations: np.ndarray, translations: np.ndarray) -> None:
    """Every product of two operations has to be one of them."""
    products = (rotations[:, None] @ rotations[None]).reshape(-1, 9)
    moved = (rotations[:, None] @ translations[None, :, :, None])[..., 0] + translations[:, None]
    known = _keys(rotations.reshape(-1, 9), translations)
    if not np.isin(_keys(products, moved.reshape(-1, 3)), known).all():
        raise InputError(
            f"the {len(rotations)} symmetry operations do not form a group: one is missing or"
            " mistyped"
        )


def _keys(rotations: np.ndarray, translations: np.ndarray) -> np.ndarray:
    """One whole number for each operation, modulo lattice translations in steps of 1/48."""
    digits = rotations.round().astype(np.int64) + 4
    steps = (translations * 48).round().astype(np.int64) % 48
    return digits @ (9 ** np.arange(9)) * 48**3 + steps @ np.array([1, 48, 48**2])


def named_operations(
    *,
    names: Sequence[str] = (),
    hall: Sequence[str] = (),
    numbers: Sequence[str] = (),
    codes: Sequence[str] = (),
    schoenflies: Sequence[str] = (),
    cell: np.ndarray,
) -> tuple[Operations, ...]:
    """The settings that a CIF can mean, the likeliest first, of a group that it names by
    Hermann-Mauguin symbols (``names``), Hall symbols, numbers, or several of these; ``codes``: of
    the coordinate system, as ``:2``, ``H`` or ``b1``. Empty where it names none. ``cell: (3, 3)``
    rows in Å.

    Raises ``InputError`` where no group has such a name, the names are of different groups, or the
    cell cannot belong to the group.
    """
    settings: set[int] | None = None
    code = next((c for c in map(_plain, codes) if c), "")
    for text in hall:
        found = _hall_symbols().get(_words(text)) or _hall_symbols().get(_plain(text))
        settings = _narrowed(settings, found, f"Hall symbol {text!r}")
    for text in names:
        name, suffix = _split(text)
        found = _symbols().get(name)
        if found is not None:
            code = suffix or code
        settings = _narrowed(settings, found, f"space group {text!r}")
    for text in schoenflies:
        named = _schoenflies().get(_plain(text).replace("^", ""))
        settings = _narrowed(settings, named, f"space group {text!r}")
    for text in numbers:
        numbered = _numbered().get(text.strip())
        settings = _narrowed(settings, numbered, f"space group number {text!r}")
    if not settings:
        return ()
    return _told_apart(settings, code, cell)


def _narrowed(known: set[int] | None, found: frozenset[int] | None, what: str) -> set[int]:
    if not found:
        raise InputError(f"unknown {what}, and no symmetry operations are listed; list them")
    both = set(found) if known is None else known & found
    if not both:
        raise InputError(f"the {what} is not the group of the other names; list the operations")
    return both


def _told_apart(settings: set[int], code: str, cell: np.ndarray) -> tuple[Operations, ...]:
    coded = {k for k in settings if code and _choice(k) == code}
    coded = coded or {k for k in settings if code in ("1", "2") and _choice(k)[:1] == code}
    if not coded and code in ("s", "z"):  # origins of the SHELX and old PDB kind
        coded = {k for k in settings if _choice(k) == {"s": "1", "z": "2"}[code]}
    chosen = sorted(coded or settings)
    fitting = [k for k in chosen if _invariant(_database(k), cell)]
    if not fitting:
        lengths = np.linalg.norm(cell, axis=-1).round(4).tolist()
        raise InputError(
            f"a cell of {lengths} Å and these angles cannot have the space group"
            f" {_database(chosen[0]).setting}"
        )
    different: dict[str, int] = {}
    for k in fitting:
        origin = _choice(k)[:1]
        different.setdefault(origin if origin in ("1", "2") else "", k)
    return tuple(_database(k) for k in different.values())


def _invariant(operations: Operations, cell: np.ndarray) -> bool:
    metric = cell @ cell.T
    moved = np.einsum("kij,il,klm->kjm", operations.rotations, metric, operations.rotations)
    scale = np.sqrt(np.outer(metric.diagonal(), metric.diagonal()))
    return bool((np.abs(moved - metric) <= _METRIC * scale).all())


def _operation(text: str) -> tuple[np.ndarray, np.ndarray]:
    rotation, translation = np.zeros((3, 3)), np.zeros(3)
    parts = re.sub(r"[\s'\"]", "", text.lower()).split(",")
    if len(parts) != 3:
        raise InputError(f"{text!r} is no symmetry operation (as in -x+1/2, y, z)")
    for row, part in enumerate(parts):
        terms = re.findall(r"[+-]?[^+-]+", part)
        if not terms or "".join(terms) != part:
            raise InputError(f"{text!r} is no symmetry operation (as in -x+1/2, y, z)")
        for term in terms:
            axis = "xyz".find(term[-1])
            sign = term.rstrip("xyz") if axis >= 0 else term
            try:
                value = {"": 1, "+": 1, "-": -1}.get(sign) if axis >= 0 else None
                value = float(Fraction(sign.rstrip("*"))) if value is None else value
            except (ValueError, ZeroDivisionError):
                raise InputError(f"{text!r} is no symmetry operation") from None
            if axis >= 0:
                rotation[row, axis] += value
            else:
                translation[row] += value
    if abs(abs(np.linalg.det(rotation)) - 1) > 1e-6 or np.abs(translation).max() > 10:
        raise InputError(f"{text!r} is no symmetry operation of a crystal")
    exact = np.round(translation * 24) / 24  # 0.333 is a third
    return rotation, np.where(np.abs(exact - translation) < 0.004, exact, translation)


def _split(text: str) -> tuple[str, str]:
    """A Hermann-Mauguin symbol and the code of its setting: ``F d -3 m :2``, ``R -3 m (H)``,
    ``R3 H``."""
    text = text.strip().strip("'\"")
    match = re.fullmatch(_CODED, text, re.IGNORECASE)
    whole = _plain(text) in _symbols() and ":" not in text
    if match and _plain(match.group(1)) in _symbols() and not whole:
        code = (match.group(2) or match.group(3)).lower()
        return _plain(match.group(1)), _SAME_CODES.get(code, code)
    name = _plain(text)
    if name not in _symbols() and name[-1:] in ("h", "r", "s", "z") and name[:-1] in _symbols():
        return name[:-1], name[-1]
    return name, ""


def _plain(text: str) -> str:
    return re.sub(r"[\s_'\"(){}]|^:", "", text).lower()


def _words(text: str) -> str:
    """A Hall symbol, whose blanks mean something: P 3 2 is not P 32."""
    return " ".join(text.replace("_", " ").lower().split())


def _type(setting: int):
    from spglib import get_spacegroup_type

    return get_spacegroup_type(setting)


def _choice(setting: int) -> str:
    return _type(setting).choice.lower()


@cache
def _database(setting: int) -> Operations:
    from spglib import get_symmetry_from_database

    found, about = get_symmetry_from_database(setting), _type(setting)
    choice = f" :{about.choice}" if about.choice in ("1", "2", "H", "R") else ""
    return Operations(
        found["rotations"].astype(float),
        found["translations"].astype(float),
        f"{about.international.split('=')[-1].strip()}{choice}",
    )


def _names(setting: int) -> Iterator[str]:
    about = _type(setting)
    own = [_plain(part) for part in about.international.split("=")]
    if 3 <= about.number <= 15:  # the first is the type's; P 21/n is a setting of P 21/c
        specific = about.international.split("=")[1:]
        short = [" ".join(w for w in part.split() if w != "1") for part in specific]
        yield from map(_plain, [*specific, *short])
        return
    yield from own
    yield from (_plain(about.international_short), _plain(about.international_full))
    if about.number >= 195:  # written without the bar before 1983
        full = _plain(about.international_full)
        yield from (name.replace("-3", "3") for name in (*own, full))
    glides = _E_GLIDES.get(about.number, "").split()
    # spglib has the new names; which of two old ones a setting had is told by its order in the
    # table
    if glides and (old := _old_glide(setting, about.number, glides[::2])):
        yield old
    if about.choice == "H":  # as the Protein Data Bank has it
        yield from (f"h{name[1:]}" for name in own)


def _old_glide(setting: int, number: int, names: Sequence[str]) -> str:
    """The symbol before 1992; the settings of a group stand in one order in both tables."""
    settings = sorted(_numbered()[str(number)])
    return names[settings.index(setting) * len(names) // len(settings)]


@cache
def _symbols() -> Mapping[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for setting in _SETTINGS:
        for name in _names(setting):
            found.setdefault(name, set()).add(setting)
    return {name: frozenset(settings) for name, settings in found.items()}


@cache
def _hall_symbols() -> Mapping[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for setting in _SETTINGS:
        symbol = _type(setting).hall_symbol
        found.setdefault(_words(symbol), set()).add(setting)
        found.setdefault(symbol.replace(" ", "").lower(), set()).add(setting)
    return {name: frozenset(settings) for name, settings in found.items()}


@cache
def _schoenflies() -> Mapping[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for setting in _SETTINGS:
        name = _type(setting).schoenflies.replace("^", "").lower()
        found.setdefault(name, set()).add(setting)
    return {name: frozenset(settings) for name, settings in found.items()}


@cache
def _numbered() -> Mapping[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for setting in _SETTINGS:
        found.setdefault(str(_type(setting).number), set()).add(setting)
    return {name: frozenset(settings) for name, settings in found.items()}
