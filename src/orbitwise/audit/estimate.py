"""The split of a convex loss along an orbit, corrected for the finite number of group elements.

With ``F(g) = g⁻¹ f(g x)`` and the twirled prediction ``f̄ = E_g F(g)``,

    E_g ℓ(F(g), y)  =  ℓ(f̄, y)  +  E_g [ℓ(F(g), y) - ℓ(f̄, y)]
      total            twirled      equivariance error

The last term is ≥ 0 for convex ℓ (Jensen) and equals ``E_g B(F(g), f̄)``, B the Bregman divergence
of ``ℓ(·, y)``, whose linear part has mean zero; for the squared loss it is the variance ``E_g |F(g)
- f̄|²`` (2512.02303, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.audit.losses import Loss


@dataclass(frozen=True)
class Terms:
    """Estimates per item, ``(B,)`` each: ``total = twirled + equivariance``; ``variance``: of
    ``equivariance`` over the draw of the group elements, to first order (0 where all of them were
    taken, NaN of two blocks, which leave none)."""

    total: Tensor
    twirled: Tensor
    equivariance: Tensor
    variance: Tensor


def loss_terms(
    answers: Tensor, target: Tensor, loss: Loss, blocks: int, mask: Tensor | None = None
) -> Terms:
    """Of answers ``F: (K, B, …)`` in ``blocks`` independent blocks of ``K / blocks`` elements.

    ``f̄`` is known through means over blocks only, which makes ``ℓ(f̄)`` too large; the jackknife
    over blocks takes this away, exactly for the squared loss (it is then the product of means of
    *different* blocks, unbiased for any number of blocks ≥ 2) and to second order in 1/blocks for
    others (Quenouille, Biometrika 43, 353, 1956). One block: all elements of a finite group, where
    nothing is to be corrected.
    """
    K = len(answers)
    target = target.to(answers)
    many = _over(loss, answers, target, mask)  # (K, B)
    means = answers.unflatten(0, (blocks, K // blocks)).mean(1)  # (M, B, …)
    centre = means.mean(0)
    total, whole = many.mean(0), loss(centre, target, mask)
    if blocks == 1:
        return Terms(total, whole, total - whole, torch.zeros_like(total))
    without = (blocks * centre - means) / (blocks - 1)
    left = _over(loss, without, target, mask)  # (M, B): ℓ of the mean without block j
    twirled = blocks * whole - (blocks - 1) * left.mean(0)
    own = many.unflatten(0, (blocks, K // blocks)).mean(1)
    pseudo = (
        own - blocks * whole + (blocks - 1) * left
    )  # Tukey's pseudo-values of the equivariance error
    variance = pseudo.var(0) / blocks if blocks > 2 else torch.full_like(total, torch.nan)
    return Terms(total, twirled, total - twirled, variance)


def _over(loss: Loss, predictions: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """``ℓ`` of ``(n, B, …)`` against ``(B, …)``: ``(n, B)``."""
    n, B = predictions.shape[:2]
    repeated = target.expand_as(predictions).flatten(0, 1)
    masks = None if mask is None else mask.expand(n, *mask.shape).flatten(0, 1)
    return loss(predictions.flatten(0, 1), repeated, masks).unflatten(0, (n, B))
