"""Condition numbers of the two loss terms where the squared loss is exactly quadratic: in a linear
last layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.audit.landscape.loss_surface import LossTerms, quadratic_in
from orbitwise.audit.result import Estimate
from orbitwise.errors import InputError

MOST = 6000  # parameters of a dense Hessian


@dataclass(frozen=True)
class Condition:
    """``value``: largest eigenvalue over the smallest one above the floor, which is ``floor`` times
    the largest, or the size of the most negative eigenvalue where that is more: a convex term has
    none, so it measures the noise of the group elements; ``value`` is then a ``lower_bound``, and
    more nodes raise it. ``unresolved``: how many eigenvalues are not above the floor: directions
    that the term does not see, or not within the noise. ``effective_rank``: ``tr(H)²/tr(H²)``.
    ``spectrum: (P,)``: all eigenvalues, rising, float64.
    """

    value: Estimate
    largest: float
    smallest: float
    negative: float
    unresolved: int
    lower_bound: bool
    effective_rank: float
    spectrum: Tensor


@dataclass(frozen=True)
class Conditioning:
    """Of the three terms, and the ratios of condition numbers ``total / equivariance`` and
    ``twirled / equivariance``; above 1 the equivariance error is the better conditioned. Errors:
    delete-one jackknife over ``batches`` of the logarithm, times the value; the number of
    unresolved eigenvalues is held."""

    total: Condition
    twirled: Condition
    equivariance: Condition
    total_over_equivariance: Estimate
    twirled_over_equivariance: Estimate
    floor: float
    batches: int
    dimension: int


def condition_numbers(loss: LossTerms, *, floor: float = 1e-4) -> Conditioning:
    """Dense Hessians of both terms over a linear last layer (``LossTerms(...,
    parameters=["head"])``), one per batch, and their condition numbers. Four batches or more give
    errors worth the name; a smallest eigenvalue from fewer items than parameters is one of the
    items, not of the loss.

    Raises ``InputError`` where the loss is not quadratic in the parameters, or there are more than
    6000.
    """
    if loss.dimension > MOST:
        raise InputError(
            f"{loss.dimension} parameters are too many for a dense Hessian (at most {MOST}): name"
            " those of the last layer with parameters=[…], or use hessian_spectrum"
        )
    if not quadratic_in(loss):
        raise InputError(
            f"the loss is not quadratic in {', '.join(loss.names[:4])}: condition numbers are for a"
            " linear last layer; use hessian_spectrum for other parameters"
        )
    total, twirled = (
        torch.stack([loss.dense_hessian(k, term).cpu() for k in range(len(loss.batches))])
        for term in ("total", "twirled")
    )
    return conditioning(total, twirled, weights=loss.weights, floor=floor)


def conditioning(
    total: Tensor, twirled: Tensor, *, weights: Tensor | None = None, floor: float = 1e-4
) -> Conditioning:
    """Condition numbers from Hessians ``(n, P, P)`` of n independent batches with ``weights: (n,)``
    (default: equal).

    Raises ``InputError`` for shapes that differ, a floor outside (0, 1), or a term without
    curvature.
    """
    if total.shape != twirled.shape or total.ndim != 3 or total.shape[1] != total.shape[2]:
        raise InputError(
            f"Hessians are (n, P, P) for both terms, got {tuple(total.shape)},"
            f" {tuple(twirled.shape)}"
        )

    if not 0 < floor < 1:
        raise InputError(f"floor: between 0 and 1, got {floor}")
    n, P = total.shape[:2]
    weights = torch.full((n,), 1 / n, dtype=torch.float64) if weights is None else weights.double()
    found, logs = {}, {}
    for name, H in (("total", total), ("twirled", twirled), ("equivariance", total - twirled)):
        H = H.double()
        mean = torch.einsum("n,nij->ij", weights, H)
        spectrum = torch.linalg.eigvalsh(mean)
        top, bottom = float(spectrum[-1]), float(spectrum[0])
        if not top > 0:
            raise InputError(
                f"the {name} term has no curvature in these parameters: its largest eigenvalue is"
                f" {top:.3g}"
            )
        kept = int((spectrum <= max(floor * top, -bottom)).sum())
        if kept == P:
            raise InputError(
                f"the {name} term is all noise here (eigenvalues {bottom:.3g} … {top:.3g}): take"
                " more nodes"
            )
        left = []
        for j in range(n if n > 1 else 0):
            values = torch.linalg.eigvalsh((mean - weights[j] * H[j]) / (1 - weights[j]))
            left.append(
                math.log(float(values[-1] / values[kept])) if values[kept] > 0 else math.inf
            )
        logs[name] = torch.tensor(left, dtype=torch.float64)
        found[name] = Condition(
            value=_estimate(top / float(spectrum[kept]), logs[name]),
            largest=top,
            smallest=float(spectrum[kept]),
            negative=min(bottom, 0.0),
            unresolved=kept,
            lower_bound=-bottom > floor * top,
            effective_rank=float(spectrum.sum() ** 2 / spectrum.square().sum()),
            spectrum=spectrum,
        )

    ratio = {
        name: _estimate(
            found[name].value.value / found["equivariance"].value.value,
            logs[name] - logs["equivariance"],
        )
        for name in ("total", "twirled")
    }
    return Conditioning(
        **found,
        total_over_equivariance=ratio["total"],
        twirled_over_equivariance=ratio["twirled"],
        floor=floor,
        batches=n,
        dimension=P,
    )


def _estimate(value: float, logs: Tensor) -> Estimate:
    """With the jackknife error of the logarithm, from its delete-one values."""
    n = len(logs)
    if n < 2:
        return Estimate(value, math.nan)
    if not torch.isfinite(logs).all():
        return Estimate(value, math.inf)
    return Estimate(
        value, value * float(((n - 1) / n * (logs - logs.mean()).square().sum()).sqrt())
    )


@dataclass(frozen=True)
class HeadDeviation:
    """``plain``: variance of the weight over its rows (divisor: rows), averaged over columns;
    ``normalised``: over the mean square of the weight, 0 for equal rows, 1 for rows that sum to
    zero."""

    plain: float
    normalised: float


def head_weight_deviation(weight: Tensor) -> HeadDeviation:
    """How far the rows of a head ``(3, hidden)``, one for each axis of space, are from each other
    (the quantity that 2512.02303 follows in training; it asks for no data).

    Raises ``InputError`` for another shape or a weight of zeros.
    """
    if weight.ndim != 2 or len(weight) < 2:
        raise InputError(
            "the weight of a head is (rows, hidden) with a row for each axis, got"
            f" {tuple(weight.shape)}"
        )
    w = weight.detach().double()
    size = float(w.square().mean())
    if size == 0:
        raise InputError("the weight is zero throughout: its rows have no deviation to compare")
    plain = float(w.var(0, unbiased=False).mean())
    return HeadDeviation(plain, plain / size)
