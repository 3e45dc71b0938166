"""One structure out of several draws: the one that the others agree with most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from orbitwise.data.crystal_convert import to_structure
from orbitwise.data.crystals import Crystal, CrystalBatch
from orbitwise.metrics.crystal_matching import CellMatcher

_APART = 0.5  # distance of structures that do not match: the tolerance of the matcher


def medoid(draws: Sequence[Crystal | None], matcher: CellMatcher) -> int:
    """Which of the draws has the smallest mean distance to the others; the first where none can be compared.

    Distances are those of the match rate, in units of (V/N)^⅓, 0.5 where two do not match. It needs no energy and no
    true structure: it prefers what a model draws often, and the middle of that.
    """
    cells = [_reduced(matcher, draw) for draw in draws]
    apart = np.full((len(draws), len(draws)), _APART)
    np.fill_diagonal(apart, 0.0)
    for i, a in enumerate(cells):
        for j in range(i):
            if a is not None and cells[j] is not None:
                apart[i, j] = apart[j, i] = _distance(matcher, a, cells[j])
    return int(apart.sum(1).argmin())


def agreed(rounds: Sequence[CrystalBatch]) -> CrystalBatch:
    """Of several draws for the same atoms the medoid of each item."""
    if len(rounds) == 1:
        return rounds[0]
    matcher = CellMatcher()
    columns = zip(*(_crystals(batch) for batch in rounds), strict=True)
    chosen = torch.tensor([medoid(draws, matcher) for draws in columns], device=rounds[0].frac.device)
    items = torch.arange(len(chosen), device=chosen.device)
    frac = torch.stack([batch.frac for batch in rounds])[chosen, items]
    lattice = torch.stack([batch.lattice for batch in rounds])[chosen, items]
    return rounds[0].with_structure(frac, lattice)


def _crystals(batch: CrystalBatch) -> list[Crystal | None]:
    """None for an item that is not finite or has no volume."""
    sound = batch.frac.isfinite().all((1, 2)) & batch.lattice.isfinite().all((1, 2))
    sound &= torch.where(sound, batch.volume, 0.0) > 1e-3
    made = iter(batch[sound].crystals() if sound.any() else [])
    return [next(made) if ok else None for ok in sound.tolist()]


def _reduced(matcher: CellMatcher, crystal: Crystal | None):
    try:
        return None if crystal is None else matcher.reduce(to_structure(crystal))
    except Exception:  # the library cannot reduce some broken cells; they agree with nothing
        return None


def _distance(matcher: CellMatcher, a, b) -> float:
    found = matcher.rms(a, b)
    return _APART if np.isnan(found) else found
