"""Which crystals a model has seen in training, and whether a formula is of their kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orbitwise.crystals.crystal import Crystal
from orbitwise.crystals.formula import symbols_of
from orbitwise.errors import InputError


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


def check_domain(species: np.ndarray, domain: Domain, formula: str) -> tuple[str, ...]:
    """Warnings where a model was trained on other stoichiometries or sizes; ``InputError`` for an
    element that it has never seen."""
    unknown = sorted(set(species.tolist()) - set(domain.elements))
    if unknown:
        raise InputError(
            f"{formula}: the model has never seen {symbols_of(unknown)}; it was trained on"
            f" {trained_on(domain)}. Its elements: {symbols_of(domain.elements)}"
        )
    problems = []
    if ratio_of(species) not in domain.ratios:
        problems.append(f"its stoichiometry {':'.join(map(str, ratio_of(species)))}")
    if not domain.smallest <= len(species) <= domain.largest:
        problems.append(f"its {len(species)} atoms")
    if not problems:
        return ()
    return (
        (
            f"{formula} is outside what the model was trained on: {' and '.join(problems)} did not"
            f" occur. It was trained on {trained_on(domain)}. Do not trust these structures."
        ),
    )


def trained_on(domain: Domain) -> str:
    """A domain in words."""
    size = (
        f"{domain.smallest}"
        if domain.smallest == domain.largest
        else f"{domain.smallest} to {domain.largest}"
    )
    shown = ", ".join(":".join(map(str, ratio)) for ratio in domain.ratios[:6])
    more = f" and {len(domain.ratios) - 6} more" if len(domain.ratios) > 6 else ""
    return (
        f"{domain.crystals:,} crystals ({domain.data}) of {size} atoms per cell,"
        f" {len(domain.elements)} elements, stoichiometries {shown}{more}"
    )
