"""What ``orbit_posterior`` is given, checked and made ready for the solvers."""

from __future__ import annotations

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.orbits.posterior.noise import Process, WrappedProcess, centred, zero_com
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
    if mask is not None and (mask.dtype != torch.bool or mask.shape != xt.shape[:-1]):
        raise InputError(
            f"mask must be bool of shape {tuple(xt.shape[:-1])}, not {mask.dtype} of"
            f" {tuple(mask.shape)}"
        )
    if not xt.shape[-2]:
        raise InputError("every item needs at least one real point; xt has none")

    process = question.process
    clean, noised = _prepare(process, x1, mask), _prepare(process, xt, mask)
    answerable = Question(process, clean, noised, t.expand(batch), mask, question.check)
    log_prior = _log_prior(log_weights, x1, xt, question.check)
    if question.check:
        _look_at_values(answerable)
    return answerable, log_prior


def _look_at_values(question: Question) -> None:
    """Raises ``InputError`` for values that are not finite, times outside the process's and items
    without points. One wait for the device if nothing is wrong."""
    values = {"x1": question.x1, "xt": question.xt, "t": question.t}
    # a sum is quicker, and as telling in float64
    right = [torch.isfinite(value.sum()) for value in values.values()]
    times = getattr(question.process, "times", None)
    if times is not None:
        right.append(times.hold(question.t).all())
    if question.mask is not None:
        right.append(question.mask.any(-1).all())
    if torch.stack(right).all():
        return

    if question.mask is not None and not question.mask.any(-1).all():
        raise InputError("every item needs at least one real point; the mask is empty for some")
    for name, value in values.items():
        if not torch.isfinite(value).all():
            raise InputError(f"{name} holds values that are not finite (NaN or infinite)")
    if times is not None and not times.hold(question.t).all():
        raise times.refusal(question.t)


def _log_prior(log_weights: Tensor | None, x1: Tensor, xt: Tensor, check: bool) -> Tensor | None:
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
    if check and log_prior.isnan().any():
        raise InputError("log_weights must not be NaN, +inf or all -inf")
    return log_prior


def _prepare(process: Process | WrappedProcess, x: Tensor, mask: Tensor | None) -> Tensor:
    if zero_com(process):
        return centred(x.double(), mask)
    return x.double() if mask is None else torch.where(mask[..., None], x.double(), 0.0)
