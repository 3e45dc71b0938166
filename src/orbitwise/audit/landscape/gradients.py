"""Gradient norms of the two loss terms, free of the noise that batches add to a squared norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from orbitwise.audit.estimate import Terms
from orbitwise.audit.result import Estimate, GradientNorms
from orbitwise.errors import InputError

TERMS = ("total", "twirled", "equivariance")


def term_gradients(model: nn.Module, terms: Terms) -> dict[str, Tensor]:
    """Gradients ``(P,)`` of the batch means of twirled error and equivariance error, and their
    sum."""
    if not isinstance(model, nn.Module):
        raise InputError("gradient norms need a torch.nn.Module; this model is another callable")
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters or not terms.total.requires_grad:
        raise InputError(
            "gradient norms: the loss does not depend on parameters that require gradients"
        )

    def flat(loss: Tensor, keep: bool) -> Tensor:
        found = torch.autograd.grad(
            loss, parameters, retain_graph=keep, allow_unused=True, materialize_grads=True
        )
        return torch.cat([g.flatten() for g in found]).double()

    twirled, error = flat(terms.twirled.mean(), True), flat(terms.equivariance.mean(), False)
    return {"total": twirled + error, "twirled": twirled, "equivariance": error}


def gradient_norms(found: list[dict[str, Tensor]]) -> GradientNorms:
    """From the gradients of independent batches.

    ``|E g|²`` is estimated by the mean of ``g_a · g_b`` over pairs of different batches; errors by
    the jackknife over batches. Of a single batch the plain norms, which noise makes too large,
    without errors.
    """
    n = len(found)
    products = {name: torch.stack([g[name] for g in found]) for name in TERMS}
    gram = {name: v @ v.T for name, v in products.items()}
    keep = torch.ones(n, dtype=torch.bool)
    whole = _norms(gram, keep)
    if n < 3:
        return GradientNorms(*(Estimate(v, math.nan) for v in whole), batches=n)
    left = torch.stack(
        [torch.tensor(_norms(gram, keep & (torch.arange(n) != j))) for j in range(n)]
    )
    error = ((n - 1) / n * (left - left.mean(0)).square().sum(0)).sqrt()
    return GradientNorms(
        *(Estimate(v, float(e)) for v, e in zip(whole, error, strict=True)), batches=n
    )


def _norms(gram: dict[str, Tensor], keep: Tensor) -> list[float]:
    """Norms of the three terms and the ratio of the last two."""
    size, found = int(keep.sum()), []
    for name in TERMS:
        part = gram[name][keep][:, keep]
        square = part.sum() if size == 1 else (part.sum() - part.trace()) / (size * (size - 1))
        found.append(math.sqrt(max(float(square), 0.0)))
    return [*found, found[2] / found[1] if found[1] > 0 else math.nan]
