"""Which crystals a model has seen in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orbitwise.crystals.crystal import Crystal


@dataclass(frozen=True)
class Domain:
    """What a model was trained on: ``elements`` (atomic numbers), ``ratios`` of the elements of a
    cell in reduced form, as (1, 1, 3), ``smallest`` and ``largest`` number of atoms in a cell,
    ``crystals`` how many; ``data`` in words."""

    elements: tuple[int, ...]
    ratios: tuple[tuple[int, ...], ...]
    smallest: int
    largest: int
    crystals: int
    data: str

    @classmethod
    def of(cls, crystals: Sequence[Crystal], data: str) -> Domain:
        """Of the training set."""
        sizes = [len(c) for c in crystals]
        elements = np.unique(np.concatenate([c.species for c in crystals]))
        ratios = {ratio_of(c.species) for c in crystals}
        return cls(
            tuple(map(int, elements)),
            tuple(sorted(ratios)),
            min(sizes),
            max(sizes),
            len(sizes),
            data,
        )


def ratio_of(species: np.ndarray) -> tuple[int, ...]:
    """Counts of the elements in ascending order, divided by what they have in common: SrTiO3 -> (1,
    1, 3)."""
    counts = np.unique(species, return_counts=True)[1]
    return tuple(int(c) for c in np.sort(counts) // np.gcd.reduce(counts))
