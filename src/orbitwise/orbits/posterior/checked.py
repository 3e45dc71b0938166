"""What ``orbit_posterior`` is given, checked and made ready for the solvers."""

from __future__ import annotations

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.orbits.posterior.noise import Process, WrappedProcess, zero_com
from orbitwise.orbits.posterior.question import Question


def checked(question: Question, log_weights: Tensor | None) -> tuple[Question, Tensor | None]:
    """Input in float64, padded rows 0, centred where the process is, with the log prior of
    conformers; or ``InputError``."""
    x1, xt, mask = question.x1, question.xt, question.mask
    t, batch = question.t, xt.shape[:-2]
    if xt.ndim < 2 or x1.shape[-xt.ndim :] != xt.shape or x1.ndim > xt.ndim + 1:
        raise InputError(
            "x1 must have the shape of xt, or one more leading axis of conformers; x1 is"
            f" {tuple(x1.shape)}, xt {tuple(xt.shape)} (points are (*B, N, D))"
        )
    if not (x1.is_floating_point() and xt.is_floating_point()):
        raise InputError(f"x1 and xt must be floating point, not {x1.dtype} and {xt.dtype}")
    if t.ndim and t.shape != batch:
        raise InputError(
            f"t must be one number or have the batch shape of xt, {tuple(batch)}, not"
            f" {tuple(t.shape)}"
        )
    if mask is not None and (mask.dtype != torch.bool or mask.shape != xt.shape[:-1]):
        raise InputError(
            f"mask must be bool of shape {tuple(xt.shape[:-1])}, not {mask.dtype} of"
            f" {tuple(mask.shape)}"
        )
    if not xt.shape[-2] or (mask is not None and not mask.any(-1).all()):
        raise InputError(
            "every item needs at least one real point; the mask (or xt) is empty for some"
        )

    process = question.process
    clean, noised = _prepare(process, x1, mask), _prepare(process, xt, mask)
    answerable = Question(process, clean, noised, t.expand(batch), mask)
    log_prior = _log_prior(log_weights, x1, xt)
    for name, value in (("x1", answerable.x1), ("xt", answerable.xt), ("t", answerable.t)):
        if not torch.isfinite(value.sum()):  # a sum is quicker, and as telling in float64
            raise InputError(f"{name} holds values that are not finite (NaN or infinite)")
    return answerable, log_prior


def _log_prior(log_weights: Tensor | None, x1: Tensor, xt: Tensor) -> Tensor | None:
    """Normalised weights ``(C)`` of conformers ``x1: (C, *B, N, D)``; None for one cloud."""
    conformers = x1.ndim == xt.ndim + 1
    if log_weights is not None and (not conformers or log_weights.shape != x1.shape[:1]):
        raise InputError(
            "log_weights are prior weights of conformers, one per leading entry of x1; got shape "
            f"{tuple(log_weights.shape)} for x1 of shape {tuple(x1.shape)}"
        )
    if not conformers:
        return None
    weights = xt.new_zeros(len(x1)) if log_weights is None else log_weights
    log_prior = torch.log_softmax(weights.to(xt.device, torch.float64), 0)
    if log_prior.isnan().any():
        raise InputError("log_weights must not be NaN, +inf or all -inf")
    return log_prior


def _prepare(process: Process | WrappedProcess, x: Tensor, mask: Tensor | None) -> Tensor:
    x = x.double() if mask is None else torch.where(mask[..., None], x.double(), 0.0)
    if not zero_com(process):
        return x
    if mask is None:
        return x - x.mean(-2, keepdim=True)
    return x - mask[..., None] * (x.sum(-2, keepdim=True) / mask.sum(-1)[..., None, None])
