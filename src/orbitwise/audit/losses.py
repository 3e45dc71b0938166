"""Losses that an audit splits: convex in the prediction, one number per item."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from orbitwise.errors import InputError

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def squared(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of the squared differences over the components of real points: ``(M, …) -> (M,)``."""
    return _mean((prediction - target).square(), mask)


def l1(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute difference of the components."""
    return _mean((prediction - target).abs(), mask)


def huber(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over components of ``e²/2`` up to ``|e| = 1``, ``|e| - 1/2`` beyond (Huber 1964)."""
    size = (prediction - target).abs()
    return _mean(torch.where(size < 1, 0.5 * size.square(), size - 0.5), mask)


def norm(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over points of the length of the difference; of ``(M, …)`` the last axis holds a
    vector."""
    length = torch.linalg.vector_norm(prediction - target, dim=-1)
    return _mean(length, mask)


LOSSES: dict[str, Loss] = {"squared": squared, "l1": l1, "huber": huber, "norm": norm}


def loss_named(loss: str | Loss) -> Loss:
    """A loss of ``LOSSES`` by name, or one's own ``(prediction, target, mask) -> (M,)`` as it
    is."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise InputError(f"unknown loss {loss!r}; use one of {', '.join(LOSSES)}, or a function")
    return LOSSES[loss]


def _mean(value: Tensor, mask: Tensor | None) -> Tensor:
    """Over everything but the first axis; where ``mask: (M, N)`` fits the value, over its real
    points."""
    if mask is None or value.shape[: mask.ndim] != mask.shape:
        return value.flatten(1).mean(1) if value.ndim > 1 else value
    real = mask.reshape(*mask.shape, *[1] * (value.ndim - mask.ndim)).expand_as(value)
    return torch.where(real, value, 0).flatten(1).sum(1) / real.flatten(1).sum(1).clamp(min=1)
