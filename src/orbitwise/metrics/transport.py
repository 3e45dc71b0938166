"""Wasserstein distances between sets of numbers, of points, or of anything with a distance
matrix."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orbitwise.errors import InputError


def wasserstein_1d(x: Tensor, y: Tensor, p: int = 1) -> float:
    """Exact ``W_p`` between two sets of numbers (energies, distances), in their unit. ``x: (n,), y:
    (m,)``."""
    import ot

    _comparable(x, y)
    cost = ot.wasserstein_1d(_array(x).ravel(), _array(y).ravel(), p=p)
    return float(max(float(cost), 0.0) ** (1 / p))


def wasserstein(x: Tensor, y: Tensor, p: int = 2) -> float:
    """Exact ``W_p`` between point sets, Euclidean ground distance. ``x: (n, *E), y: (m, *E)``;
    equal weights.

    Exact optimal transport is cubic: 1000 against 1000 points take about a second, so thin larger
    sets.
    """
    _comparable(x, y)
    if x.shape[1:] != y.shape[1:]:
        raise InputError(
            f"points of shape {tuple(x.shape[1:])} and {tuple(y.shape[1:])} have no distance"
        )
    return wasserstein_from_distances(torch.cdist(x.double().flatten(1), y.double().flatten(1)), p)


def wasserstein_from_distances(distances: Tensor, p: int = 2) -> float:
    """Exact ``W_p = (min_π Σ π_ij d_ij^p)^(1/p)`` for a given distance matrix ``(n, m)``, equal
    weights.

    With ``metrics.conformers.symmetric_rmsd`` as the matrix this is the W_p between conformer
    ensembles as sets of unlabelled, freely moving molecules.
    """
    import ot

    _comparable(distances, distances.T)
    if distances.min() < 0:
        raise InputError("a distance is negative")
    cost = _array(distances) ** p
    with warnings.catch_warnings():
        warnings.simplefilter(
            "error"
        )  # POT warns when the solver stops early: then the value is not W
        total = ot.emd2([], [], cost, numItermax=10_000_000)
    return float(max(float(total), 0.0) ** (1 / p))


@dataclass(frozen=True)
class DistanceComparison:
    """Interatomic distances of two ensembles, pooled over pairs: total variation of their
    histograms (0 .. 1) and ``W_1`` in Å."""

    total_variation: float
    w1_angstrom: float


def pair_distances(x: Tensor) -> Tensor:
    """All interatomic distances: ``(n, N, 3) -> (n, N(N-1)/2)``, unit of x."""
    i, j = torch.triu_indices(x.shape[-2], x.shape[-2], 1, device=x.device)
    return (x[..., i, :] - x[..., j, :]).norm(dim=-1)


def compare_distances(x: Tensor, y: Tensor, width: float = 0.05) -> DistanceComparison:
    """Compare the pooled interatomic distances of two ensembles ``(n, N, 3)`` and ``(m, N, 3)`` in
    Å; histogram bins are ``width`` wide and cover both sets."""
    _comparable(x, y)
    a, b = _array(pair_distances(x)).ravel(), _array(pair_distances(y)).ravel()
    return DistanceComparison(total_variation(a, b, width), wasserstein_1d(a, b))


def total_variation(a: np.ndarray | Tensor, b: np.ndarray | Tensor, width: float) -> float:
    """``½ Σ |p_i - q_i|`` of histograms with bins of one width over the common range; 0 equal, 1
    disjoint."""
    _comparable(a, b)
    if not (math.isfinite(width) and width > 0):
        raise InputError(f"the width of a bin must be positive, got {width}")
    a, b = _array(a).ravel(), _array(b).ravel()
    low = min(a.min(), b.min())
    count = int((max(a.max(), b.max()) - low) / width) + 1
    p, q = (np.bincount(((v - low) / width).astype(int), minlength=count) / len(v) for v in (a, b))
    return float(0.5 * np.abs(p - q).sum())


def _array(x) -> np.ndarray:
    return (
        x.detach().double().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x, dtype=float)
    )


def _comparable(x, y) -> None:
    if len(x) == 0 or len(y) == 0:
        raise InputError(
            f"transport needs at least one sample on either side, got {len(x)} and {len(y)}"
        )
    for which, values in (("first", x), ("second", y)):
        bad = int((~np.isfinite(_array(values))).sum())
        if bad:
            raise InputError(
                f"{bad} numbers of the {which} set are NaN or infinite: no distance to them is"
                " known; leave those samples out"
            )
