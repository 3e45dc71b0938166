"""Importance weights of chains: normalised, their effective number, resampling, the normaliser they
estimate."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def normalised(log_weight: Tensor) -> Tensor:
    """``log_weight: (C,)`` as shares that add up to 1."""
    return (log_weight - log_weight.logsumexp(0)).exp()


def effective(log_weight: Tensor) -> float:
    """Kish's effective sample size ``(Σ w)² / Σ w²``; 0 where all weights are zero."""
    if not torch.isfinite(log_weight).any():
        return 0.0
    return 1.0 / normalised(log_weight).square().sum().item()


def systematic(weight: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """``count`` indices, each drawn ``count·weight`` times on average and never off by one or more.

    ``weight: (C,)`` adds up to 1. One uniform number shifts a regular comb over the cumulative
    weights.
    """
    device = weight.device if generator is None else generator.device
    shift = torch.rand((), generator=generator, device=device, dtype=torch.float64).to(
        weight.device
    )
    comb = (torch.arange(count, device=weight.device, dtype=torch.float64) + shift) / count
    cumulative = weight.double().cumsum(0)
    index = torch.searchsorted(cumulative / cumulative[-1], comb, right=True)
    # Rounding at the upper end must not reach a point of weight zero.
    return index.clamp_max(int(weight.nonzero()[-1]))


def log_mean(log_weight: Tensor) -> float:
    """Logarithm of the mean weight."""
    return log_weight.logsumexp(0).item() - math.log(len(log_weight))


def log_mean_error(log_weight: Tensor, ancestor: Tensor) -> float:
    """Standard error of ``log_mean`` by the delta method.

    Chains that descend from one start are one observation (Chan and Lai, Ann. Statist. 41, 2877,
    2013); without resampling every chain is its own ancestor and this is the relative standard
    error of the mean weight. ``ancestor: (C,)`` long, below C. Not to be trusted where few
    ancestors or a small effective number are left.
    """
    count = len(log_weight)
    if count < 2:
        return math.inf
    family = torch.zeros(count, dtype=torch.float64, device=log_weight.device)
    family.index_add_(0, ancestor, normalised(log_weight))
    return ((family - 1 / count).square().sum() * count / (count - 1)).sqrt().item()
