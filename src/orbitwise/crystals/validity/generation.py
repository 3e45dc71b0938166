"""Crystals generated from nothing against a reference set, after CDVAE: validity, coverage,
property distances."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import wasserstein_distance

from orbitwise.crystals.matching.match import Measured, structurally_valid
from orbitwise.crystals.validity.charge_neutrality import charge_neutral
from orbitwise.crystals.validity.fingerprints import (
    composition_fingerprints,
    structure_fingerprints,
)
from orbitwise.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core import Structure

_RESAMPLES = 200


@dataclass(frozen=True)
class Cutoffs:
    """Distances of fingerprints within which two crystals are alike, of structure and of
    composition."""

    structure: float
    composition: float


@dataclass(frozen=True)
class GenerationMetrics:
    """``structure_valid``, ``composition_valid``, ``valid`` (both): shares of all that were
    generated.

    ``recall``: share of the reference that a valid generated crystal is like; ``precision``: share
    of the valid generated crystals that are like one of the reference; ``cutoffs`` that were used.
    ``density`` (g/cm³) and ``elements``: Wasserstein-1 distance of density and number of different
    elements between valid generated crystals and the reference, with bootstrap errors. ``count``s
    say over how many crystals.
    """

    structure_valid: Measured
    composition_valid: Measured
    valid: Measured
    recall: Measured
    precision: Measured
    density: Measured
    elements: Measured
    cutoffs: Cutoffs


def generation_metrics(
    generated: Sequence[Structure | None],
    reference: Sequence[Structure],
    *,
    cutoffs: Cutoffs | None = None,
    valid_composition: Callable[[Structure], bool] = charge_neutral,
    seed: int = 0,
) -> GenerationMetrics:
    """The ab-initio generation metrics of CDVAE (arXiv 2110.06197, section 5.2 and appendix B).

    None among ``generated``: a crystal that could not be made; it counts as invalid. Coverage
    follows CDVAE: the nearest crystal by structure and the nearest by composition are found apart,
    and both must lie within the cutoffs.

    **Not comparable with published coverage**: its fingerprints (matminer's CrystalNN and Magpie)
    are replaced by ``structure_fingerprints`` and ``composition_fingerprints``, so its cutoffs mean
    nothing here. Without ``cutoffs`` they are set by the reference itself (``natural_cutoffs``):
    another draw of the same kind would reach about 95 %.

    Raises ``InputError`` without references or generated crystals; ``seed`` is that of the
    bootstrap.
    """
    if not len(generated) or len(reference) < 2:
        raise InputError(
            f"{len(generated)} generated and {len(reference)} references; give some, and at least"
            " two references"
        )

    sound = np.array([s is not None and structurally_valid(s) for s in generated])
    neutral = np.array([s is not None and bool(valid_composition(s)) for s in generated])
    kept = [s for s, good in zip(generated, sound & neutral, strict=True) if good]
    known = structure_fingerprints(reference), composition_fingerprints(reference)
    cutoffs = cutoffs or _natural(*known)
    limits = (cutoffs.structure, cutoffs.composition)
    found = np.zeros(len(reference), dtype=bool)
    alike = np.zeros(len(kept), dtype=bool)
    if kept:
        drawn = structure_fingerprints(kept), composition_fingerprints(kept)
        found = np.all(
            [_nearest(a, b) <= c for a, b, c in zip(known, drawn, limits, strict=True)], 0
        )
        alike = np.all(
            [_nearest(b, a) <= c for a, b, c in zip(known, drawn, limits, strict=True)], 0
        )

    rng = np.random.default_rng(seed)
    return GenerationMetrics(
        structure_valid=_share(sound),
        composition_valid=_share(neutral),
        valid=_share(sound & neutral),
        recall=_share(found),
        precision=_share(alike),
        density=_distance([s.density for s in kept], [s.density for s in reference], rng),
        elements=_distance([_kinds(s) for s in kept], [_kinds(s) for s in reference], rng),
        cutoffs=cutoffs,
    )


def natural_cutoffs(reference: Sequence[Structure], share: float = 0.975) -> Cutoffs:
    """Cutoffs within which this ``share`` of the reference has another member of it, for structure
    and composition each."""
    return _natural(structure_fingerprints(reference), composition_fingerprints(reference), share)


def _natural(structure: np.ndarray, composition: np.ndarray, share: float = 0.975) -> Cutoffs:
    limits = [float(np.quantile(_nearest(x, x, 2), share)) for x in (structure, composition)]
    return Cutoffs(*(limit * (1 + 1e-9) + 1e-9 for limit in limits))


def _nearest(points: np.ndarray, others: np.ndarray, which: int = 1) -> np.ndarray:
    """Distance of each point to the nearest (second nearest, ...) of the others."""
    return cKDTree(others).query(points, k=[which])[0][:, 0]


def _share(good: np.ndarray) -> Measured:
    if not len(good):
        return Measured(math.nan, math.nan, 0)
    p = (good.sum() + 1) / (len(good) + 2)
    return Measured(float(good.mean()), math.sqrt(p * (1 - p) / len(good)), len(good))


def _distance(values: list[float], known: list[float], rng: np.random.Generator) -> Measured:
    if not values:
        return Measured(math.nan, math.nan, 0)
    a, b = np.asarray(values, dtype=float), np.asarray(known, dtype=float)
    draws = [
        wasserstein_distance(rng.choice(a, len(a)), rng.choice(b, len(b)))
        for _ in range(_RESAMPLES)
    ]
    return Measured(float(wasserstein_distance(a, b)), float(np.std(draws, ddof=1)), len(a))


def _kinds(structure: Structure) -> int:
    return len(structure.composition.get_el_amt_dict())
