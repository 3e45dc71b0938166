"""What a guesser can reach at best where one composition has several structures (or arrangements of
its atoms)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orbitwise.crystals.matching.cells import CellMatcher, ReducedCell
from orbitwise.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True)
class Ceiling:
    """Match rates that guessers without and with memory reach on ``structures`` test structures.

    ``one_guess``: the best that one fixed guess for each composition can do, were the test set
    known (for each composition the test structure that matches most of its test structures).
    ``compositions``: how many there are in the test set; ``several``: share of them with more than
    one distinct structure among all that are known. ``drawn``: expected rate of drawing one of the
    distinct structures known anywhere with equal chance. ``in_training``: share of test structures
    whose composition is in the training set; ``repeated``: rate *among these* of repeating (one of)
    the training set's; ``other``: rate among these of guessing a distinct structure of the
    composition that the training set does *not* have (of those known anywhere, with equal chance).
    """

    one_guess: float
    compositions: int
    several: float
    drawn: float
    in_training: float
    repeated: float
    other: float
    structures: int


def ceiling(
    test: Sequence[Structure],
    training: Sequence[Structure] = (),
    *,
    stol: float = 0.5,
    ltol: float = 0.3,
    angle_tol: float = 10.0,
    max_group: int = 60,
    progress: Callable[[int, int], None] | None = None,
) -> Ceiling:
    """Rates that can be reached, given that structures of one composition differ (groups by reduced
    formula).

    Two structures are the same where they match by the tolerances (as in ``match``); distinct
    structures are found greedily in the given order, test first. Raises ``InputError`` for an empty
    test set, and for a composition with more than ``max_group`` structures, of which all pairs
    would be compared (as in sets of one element).
    """
    if not len(test):
        raise InputError("the test set is empty")
    matcher = CellMatcher(stol, ltol, angle_tol)
    groups: dict[str, tuple[list[Structure], list[Structure]]] = {}
    for structure in test:
        groups.setdefault(structure.composition.reduced_formula, ([], []))[0].append(structure)
    for structure in training:
        if structure.composition.reduced_formula in groups:
            groups[structure.composition.reduced_formula][1].append(structure)

    largest = max(groups, key=lambda name: sum(map(len, groups[name])))
    if sum(map(len, groups[largest])) > max_group:
        raise InputError(
            f"{sum(map(len, groups[largest]))} structures of {largest}: every composition would be"
            " compared with itself; a ceiling makes sense for compositions with few structures"
            f" (max_group={max_group})"
        )

    rows = []
    for done, (first, second) in enumerate(groups.values(), 1):
        rows.append(
            _group(matcher, [matcher.reduce(s) for s in first], [matcher.reduce(s) for s in second])
        )
        if progress is not None:
            progress(done, len(groups))

    size, best, kinds, drawn, known, repeated, other = np.array(rows, dtype=float).T
    total = size.sum()
    inside = max(known.sum(), 1e-300)
    return Ceiling(
        one_guess=float(best.sum() / total),
        compositions=len(groups),
        several=float((kinds > 1).mean()),
        drawn=float(drawn.sum() / total),
        in_training=float(known.sum() / total),
        repeated=float(repeated.sum() / inside),
        other=float(other.sum() / inside),
        structures=int(total),
    )


def _group(
    matcher: CellMatcher, test: list[ReducedCell], training: list[ReducedCell]
) -> tuple[float, ...]:
    """Of one composition: test structures, matched by the best fixed guess, distinct structures,
    and the expected matches of the three guessers (see ``Ceiling``)."""
    cells = test + training
    same = np.eye(len(cells), dtype=bool)
    for i, a in enumerate(cells):
        for j in range(i):
            same[i, j] = same[j, i] = not np.isnan(matcher.rms(a, cells[j]))
    kinds: list[int] = []  # one structure of each kind
    for i in range(len(cells)):
        if not same[i, kinds].any():
            kinds.append(i)
    here = len(test)
    hits = same[:here]
    drawn = hits[:, kinds].mean(1).sum()
    known = here if training else 0
    seen = [k for k in kinds if same[k, here:].any()]
    unseen = [k for k in kinds if k not in seen]
    repeated = hits[:, here:].mean(1).sum() if training else 0.0
    other = hits[:, unseen].mean(1).sum() if training and unseen else 0.0
    return here, hits[:, :here].sum(0).max(), len(kinds), drawn, known, repeated, other
