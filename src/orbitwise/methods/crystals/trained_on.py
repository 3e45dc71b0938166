"""Whether a formula is of the kind that a model was trained on."""

from __future__ import annotations

import numpy as np

from orbitwise.crystals.domain import Domain, ratio_of
from orbitwise.crystals.formula import symbols_of
from orbitwise.errors import InputError


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
