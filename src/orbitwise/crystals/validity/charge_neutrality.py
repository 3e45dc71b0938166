"""Whether a composition can be charge neutral with anions more electronegative than cations, in the
sense of SMACT."""

from __future__ import annotations

import warnings
from functools import cache
from itertools import pairwise
from math import gcd
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymatgen.core import Composition, Structure

_ALSO_METALS = ("Ge", "Sb", "Po")  # in SMACT's list, not in pymatgen's


def charge_neutral(structure: Structure | Composition) -> bool:
    """CDVAE's compositional validity (arXiv 2110.06197, section 5.2) after SMACT (Davies, Chem 1,
    617 (2016)).

    True where one oxidation state for each element sums to zero over the formula unit and every
    cation is less electronegative (Pauling) than every anion; also for one element alone and for
    metals among themselves. Raises ``MissingExtraError`` without pymatgen.

    The oxidation states are pymatgen's complete lists, which are close to SMACT's but not equal, so
    figures differ a little from published ones (see docs/crystals.md for the measured agreement).
    """
    composition = getattr(structure, "composition", structure)
    counts = {
        str(element): round(amount) for element, amount in composition.get_el_amt_dict().items()
    }
    if len(counts) == 1:
        return True
    elements = [_element(symbol) for symbol in counts]
    if all(element.metal for element in elements):
        return True
    unit = gcd(*counts.values())
    units = [count // unit for count in counts.values()]
    if any(element.electronegativity is None for element in elements):
        return False
    rows = sorted(zip(elements, units, strict=True), key=lambda row: row[0].electronegativity)
    # cations are the less electronegative ones: some place in this order divides them from the
    # anions
    for cut, (left, right) in enumerate(pairwise(rows), 1):
        if left[0].electronegativity == right[0].electronegativity:
            continue
        plus = _sums([[s * n for s in e.states if s > 0] for e, n in rows[:cut]])
        minus = _sums([[-s * n for s in e.states if s < 0] for e, n in rows[cut:]])
        if plus & minus:
            return True
    return False


class _Element:
    """What is asked of an element, looked up once."""

    def __init__(self, symbol: str):
        from pymatgen.core import Element

        element = Element(symbol)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there is none for noble gases, as a warning and a NaN
            x = float(element.X)
        self.electronegativity = x if x == x else None
        self.states = tuple(int(state) for state in element.oxidation_states)
        self.metal = bool(element.is_metal) or symbol in _ALSO_METALS


@cache
def _element(symbol: str) -> _Element:
    return _Element(symbol)


def _sums(choices: list[list[int]]) -> set[int]:
    """All sums of one number from each list."""
    sums = {0}
    for numbers in choices:
        sums = {a + b for a in sums for b in numbers}
    return sums
