"""The loss terms on a plane of parameter space, and how much of their roughness is noise of the
evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.audit.landscape.loss_surface import TERMS, LossTerms
from orbitwise.errors import InputError


@dataclass(frozen=True)
class QuadraticFit:
    """Least-squares quadratic through a grid of values.

    ``curvatures: (2,)`` second derivatives along the two axes, with standard errors
    ``curvature_errors`` (as of white noise); ``r_squared``; ``residual``: standard deviation of
    what is left, ``relative_residual``: over the mean of the values; ``neighbour_correlation``: of
    residuals of neighbouring points, near 1 for a smooth surface that is not a quadratic, near 0
    for noise drawn anew at every point (NaN where nothing is left).
    """

    curvatures: Tensor
    curvature_errors: Tensor
    r_squared: float
    residual: float
    relative_residual: float
    neighbour_correlation: float
    fitted: Tensor


@dataclass(frozen=True)
class Landscape:
    """Values ``(count, count)`` of the terms, first index along the first direction; ``axis:
    (count,)`` the steps from the point along the unit directions, in units of parameters.
    ``fresh``: whether every point had items and group elements of its own."""

    axis: Tensor
    total: Tensor
    twirled: Tensor
    equivariance: Tensor
    fresh: bool

    def fit(self, term: str) -> QuadraticFit:
        """The quadratic nearest to one term."""
        return quadratic_fit(self.axis, getattr(self, term))


def loss_landscape(
    loss: LossTerms,
    directions: Tensor,
    *,
    span: float | None = None,
    count: int = 21,
    fresh: torch.Generator | None = None,
) -> Landscape:
    """Both terms on a square grid around the model along two ``directions: (P, 2)``, as
    ``Spectrum.extreme_directions``, made orthonormal.

    ``span``: half the side, in units of parameters; None: where the quadratic of the first
    direction has doubled the total loss. The same items and group elements serve every point.
    ``fresh``: draw both anew at every point, as published landscapes do, to see how much of their
    roughness that makes.

    Raises ``InputError`` for parallel directions, or where no span can be chosen.
    """
    if directions.shape != (loss.dimension, 2):
        raise InputError(
            f"directions: ({loss.dimension}, 2) for these parameters, got {tuple(directions.shape)}"
        )
    if count < 4:
        raise InputError(f"count: at least 4 points along each axis, got {count}")
    axes, upper = torch.linalg.qr(directions.double())
    if upper.diagonal().abs().min() < 1e-6 * upper.abs().max():
        raise InputError(
            "the two directions are parallel: choose eigenvectors of different eigenvalues"
        )
    axes = (axes * upper.diagonal().sign()).to(loss.point)
    if span is None:
        span = _span(loss, axes[:, 0])
    axis = torch.linspace(-span, span, count, dtype=torch.float64)
    values = torch.empty(3, count, count, dtype=torch.float64)
    with torch.no_grad():
        for i, a in enumerate(axis.tolist()):
            for j, b in enumerate(axis.tolist()):
                here = loss if fresh is None else loss.redrawn(fresh)
                found = here(loss.point + a * axes[:, 0] + b * axes[:, 1])
                values[:, i, j] = torch.stack([getattr(found, term) for term in TERMS]).cpu()
    return Landscape(axis, *values, fresh=fresh is not None)


def quadratic_fit(axis: Tensor, values: Tensor) -> QuadraticFit:
    """Of ``values: (n, n)`` on the square grid of ``axis: (n,)``."""
    scale = float(axis.abs().max())
    a, b = torch.meshgrid(axis.double() / scale, axis.double() / scale, indexing="ij")
    design = torch.stack([torch.ones_like(a), a, b, a * a / 2, b * b / 2, a * b], -1).flatten(0, 1)
    y = values.double().flatten()
    inverse = torch.linalg.pinv(design)
    coefficients = inverse @ y
    fitted = (design @ coefficients).reshape(values.shape)
    left = values.double() - fitted
    spread = float((y - y.mean()).square().sum())
    remains = float(left.square().sum())
    noise = math.sqrt(remains / (len(y) - design.shape[1]))
    errors = noise * inverse.square().sum(1).sqrt()
    pairs = [torch.stack([left[1:].flatten(), left[:-1].flatten()])]
    pairs.append(torch.stack([left[:, 1:].flatten(), left[:, :-1].flatten()]))
    joined = torch.cat(pairs, 1)
    rounding = 1e-13 * float(y.abs().max())
    return QuadraticFit(
        curvatures=coefficients[3:5] / scale**2,
        curvature_errors=errors[3:5] / scale**2,
        r_squared=1 - remains / spread if spread > 0 else math.nan,
        residual=noise,
        relative_residual=noise / abs(float(y.mean())) if float(y.mean()) != 0 else math.nan,
        neighbour_correlation=float(torch.corrcoef(joined)[0, 1]) if noise > rounding else math.nan,
        fitted=fitted,
    )


def _span(loss: LossTerms, direction: Tensor) -> float:
    """Where ``total + λ s²/2`` is twice the total."""
    with torch.no_grad():
        height = float(loss().total)
    bend = float((loss.weights * loss.curvature("total", direction).cpu()).sum())
    if not (bend > 0 and height > 0):
        raise InputError(
            f"the loss does not curve upwards along the first direction ({bend:.3g}): give a span"
        )
    return math.sqrt(2 * height / bend)
