"""Noise whose width differs from point to point: ``sigma_i = sigma/√w_i``, as with masses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.base import Group
from orbitwise.groups.finite import Finite
from orbitwise.groups.permutation import Permutation, PointPermutation
from orbitwise.groups.so3 import SO3
from orbitwise.orbits.posterior.call.coupling import factors
from orbitwise.orbits.posterior.noise import (
    Process,
    WhitenedProcess,
    WrappedProcess,
    zero_com,
)


@dataclass(frozen=True)
class Weighted:
    """The noise of ``isotropic`` with weights ``(*B, N)``: in ``y_i = √w_i x_i`` it is isotropic.

    Rotations commute with that, and so do permutations of points of equal weight: a
    ``WhitenedProcess``.
    """

    isotropic: Process
    weights: Tensor

    def alpha(self, t: Tensor) -> Tensor:
        return self.isotropic.alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.isotropic.sigma(t)

    def whiten(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x * self.weights.to(x).sqrt()[..., None]

    def colour(self, y: Tensor) -> Tensor:
        return y * self.weights.to(y).rsqrt()[..., None]

    def log_volume(self, space: int = 3) -> Tensor:
        return 0.5 * space * self.weights.double().log().sum(-1)


def weighted(
    process: Process | WrappedProcess,
    group: Group,
    weights: Tensor,
    xt: Tensor,
    mask: Tensor | None,
    check: bool,
) -> Weighted:
    """``process`` with ``weights: (*B, N)`` or ``(N)``; padded points count as 1.

    Raises ``InputError`` for weights that are not positive, for processes that have more to their
    noise than one sigma, and for groups that do not commute with the weights.
    """
    if (
        not isinstance(process, Process)
        or isinstance(process, WhitenedProcess | WrappedProcess)
        or zero_com(process)
    ):
        raise InputError(
            "weights go with independent Gaussian noise in all of space (alpha(t) and sigma(t), no"
            f" zero_com), not with {process!r}"
        )
    if weights.shape not in (xt.shape[:-1], xt.shape[-2:-1]) or not weights.is_floating_point():
        raise InputError(
            f"weights must be floating point of shape {tuple(xt.shape[:-1])}, one per point, not"
            f" {weights.dtype} of {tuple(weights.shape)}"
        )
    if mask is not None:
        weights = torch.where(mask, weights, 1.0)
    if check:
        _must_fit(group, weights)
    return Weighted(process, weights)


def _must_fit(group: Group, weights: Tensor) -> None:
    if not ((weights > 0) & weights.isfinite()).all():
        raise InputError("weights must be positive and finite")
    for factor in factors(group):
        if isinstance(factor, SO3 | Finite):
            continue
        if not isinstance(factor, PointPermutation):
            raise InputError(
                f"weights do not go with {factor!r}: it moves points of any weight alike"
            )
        if not _keeps(factor, weights):
            raise InputError(
                f"{factor!r} exchanges points of different weight, under whose noise it is no"
                " symmetry; give weights that are equal where points are"
            )


def _keeps(group: PointPermutation, weights: Tensor) -> bool:
    """Whether only points of equal weight change places."""
    w = weights[..., : group.n]
    if isinstance(group, Permutation):
        same = group.labels[..., :, None] == group.labels[..., None, :]
        return not (same.to(w.device) & (w[..., :, None] != w[..., None, :])).any()
    tables, prior = group.enumerate(device=w.device)
    moved = w.expand(*tables.shape[1:-1], group.n).expand(*tables.shape).gather(-1, tables)
    kept = (moved == w).all(-1) if tables.ndim > 2 else None
    if kept is None:
        return bool((w[..., tables] == w[..., None, :]).all())
    return bool((kept | prior.isneginf()).all())
