"""The audit: how much of a model's loss is imperfect symmetry (2512.02303, corrected for finite
samples)."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from orbitwise.audit.batch import AuditBatch, checked_batches
from orbitwise.audit.estimate import Terms, loss_terms
from orbitwise.audit.landscape.gradients import gradient_norms, term_gradients
from orbitwise.audit.losses import Loss, loss_named, squared
from orbitwise.audit.nodes import Nodes, nodes_for
from orbitwise.audit.orbit import Outputs, over_orbit
from orbitwise.audit.result import Audit, AuditReport, Estimate
from orbitwise.errors import InputError
from orbitwise.groups.base import Group

_STATEFUL = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
ROUNDING = 300.0  # in units of the precision of the inputs: what a deep network makes of it


def audit_equivariance(
    model: Callable[..., Any],
    group: Group,
    batches: AuditBatch | tuple[Tensor, Tensor] | Iterable,
    loss: str | Loss | Mapping[str, str | Loss] = "squared",
    *,
    outputs: Outputs = "vector",
    nodes: Nodes | None = None,
    gradients: bool = False,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
    budget_seconds: float | None = None,
) -> AuditReport:
    """Total loss = twirled prediction error + equivariance error, with standard errors.

    ``model(x, *moved, *args) -> (B, …)`` or a dictionary of such; any callable. ``batches``: see
    ``AuditBatch``; rows come per output and ``level``. ``loss``: ``squared``, ``l1``, ``huber``,
    ``norm``, or ``(prediction, target, mask) -> (M,)`` convex in the prediction, one for all or one
    per output. ``outputs``: how each moves: ``vector``, ``point``, ``invariant``, ``scalar``,
    ``tensor`` or ``field``. ``nodes``: ``Haar``, ``Quadrature``, ``Enumerate`` or ``Shifts``; by
    default all elements of a small finite group, else quadrature for rotations. ``gradients``: also
    the gradient norms of both terms (an ``nn.Module``; at least two batches per level for honest
    ones).

    Cost: ``nodes`` answers per item and two more. ``chunk``: most items in one call of the model.
    ``budget_seconds``: no batch is begun after this time, and the report says what was left out. A
    module is audited as in evaluation (dropout and batch statistics off) and left as it was.
    Estimates are unbiased for the squared loss: see ``loss_terms``. Raises ``InputError`` for
    inputs, targets or answers that are not finite or do not fit, and for a model that answers the
    same input differently.
    >>> import torch
    >>> import orbitwise as ow
    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(50, 4, 3, generator=generator)
    >>> crooked = lambda x: x * torch.tensor([1.0, 1.0, 0.5])
    >>> report = ow.audit_equivariance(crooked, ow.SO3(), (x, x), generator=generator)
    >>> row = report.rows[0]
    >>> round((row.twirled.value + row.equivariance.value) / row.total.value, 4)
    1.0
    >>> report = ow.audit_equivariance(lambda x: 0.5 * x, ow.SO3(), (x, x), generator=generator)
    >>> round(report.rows[0].equivariance.value, 6)
    0.0
    """
    begin = time.monotonic()
    nodes = nodes or nodes_for(group)
    terms: dict[tuple, list[_Part]] = defaultdict(list)
    slopes: dict[tuple, list[dict[str, Tensor]]] = defaultdict(list)
    warnings, evaluations, skipped, eps = [], 0, 0, 0.0
    with _evaluating(model, warnings), torch.set_grad_enabled(gradients):
        for number, batch in enumerate(checked_batches(batches)):
            if budget_seconds is not None and number and time.monotonic() - begin > budget_seconds:
                skipped += 1
                continue
            plain = _as_given(model, group, batch, outputs, chunk)
            if number == 0:
                _check_still(plain, _as_given(model, group, batch, outputs, chunk))
                warnings += _cautions(model, group, batch, outputs, plain)
            g = nodes.draw(group, len(batch), generator, batch.x)
            answers = over_orbit(model, group, g, batch, outputs, chunk=chunk)
            evaluations += len(batch) * (len(next(iter(answers.values()))) + (1 if number else 3))
            eps = max(
                eps, torch.finfo(batch.x.dtype).eps if batch.x.dtype.is_floating_point else 0.0
            )
            for name, F in answers.items():
                own = loss.get(name, "squared") if isinstance(loss, Mapping) else loss
                found = loss_terms(
                    F, batch.targets[name], loss_named(own), nodes.blocks, batch.mask
                )
                if gradients:
                    slopes[name, batch.level].append(term_gradients(model, found))
                given = loss_named(own)(
                    plain[name], batch.targets[name].to(plain[name]), batch.mask
                )
                terms[name, batch.level].append(_Part(found, given, F, batch.mask))

    if skipped:
        warnings.append(
            f"{skipped} batches were left out: the budget of {budget_seconds:g} s was used up"
        )

    rows = [
        _row(name, level, parts, eps, slopes.get((name, level)))
        for (name, level), parts in terms.items()
    ]
    warnings += [text for row in rows for text in _doubts(row)]
    return AuditReport(rows, list(dict.fromkeys(warnings)), evaluations, time.monotonic() - begin)


class _Part:
    """What one batch leaves of one output, without a graph."""

    def __init__(self, terms: Terms, given: Tensor, answers: Tensor, mask: Tensor | None):
        detached = {k: v.detach() for k, v in vars(terms).items()}
        self.terms, self.given, self.nodes = Terms(**detached), given.detach(), len(answers)
        answers = answers.detach()
        centre = answers.mean(0)
        flat = answers.flatten(0, 1)
        masks = None if mask is None else mask.repeat(self.nodes, 1)
        about = centre.expand_as(answers).flatten(0, 1)
        self.spread = squared(flat, about, masks).mean()
        self.size = squared(flat, torch.zeros_like(flat), masks).mean()


def _row(name: str, level, parts: list[_Part], eps: float, slopes) -> Audit:
    def joined(attribute: str) -> Tensor:
        return torch.cat([getattr(part.terms, attribute) for part in parts])

    total, twirled, error = joined("total"), joined("twirled"), joined("equivariance")
    n, scale = len(total), float(total.mean())
    share = float(error.mean()) / scale if scale > 0 else float("nan")
    off = (error - share * total).square().sum() / max(
        n - 1, 1
    )  # delta method for a ratio of means
    size = sum(float(p.size) for p in parts) / len(parts)
    deviation = sum(float(p.spread) for p in parts) / len(parts)
    relative = (deviation / size) ** 0.5 if size > 0 else 0.0
    return Audit(
        output=name,
        level=level,
        items=n,
        nodes=parts[0].nodes,
        total=Estimate.mean(total),
        twirled=Estimate.mean(twirled),
        equivariance=Estimate.mean(error),
        percent=Estimate(
            100 * share,
            100 * float((off / n).sqrt()) / scale if n > 1 and scale > 0 else float("nan"),
        ),
        as_given=Estimate.mean(torch.cat([part.given for part in parts])),
        monte_carlo=float(joined("variance").sum().sqrt()) / n,
        relative_deviation=relative,
        rounding=relative <= ROUNDING * eps,
        gradients=None if slopes is None else gradient_norms(slopes),
    )


def _as_given(model, group: Group, batch: AuditBatch, outputs: Outputs, chunk: int | None):
    with torch.no_grad():
        same = group.identity((1, len(batch)), device=batch.x.device, dtype=batch.x.dtype)
        return {
            k: v[0] for k, v in over_orbit(model, group, same, batch, outputs, chunk=chunk).items()
        }


@contextmanager
def _evaluating(model: Callable[..., Any], warnings: list[str]):
    """A module in evaluation mode, and back as every part of it was."""
    modules = [m for m in model.modules() if m.training] if isinstance(model, nn.Module) else []
    held = sorted({type(m).__name__ for m in modules if isinstance(m, _STATEFUL)})
    if held:
        warnings.append(
            f"the model was in training mode with {', '.join(held)}; it is audited as in"
            " evaluation, since their noise would count as equivariance error"
        )
    try:
        for m in modules:
            m.training = False
        yield
    finally:
        for m in modules:
            m.training = True


def _check_still(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    for name, y in first.items():
        scale = y.abs().max()
        if not torch.allclose(y, second[name], rtol=1e-4, atol=1e-5 * float(scale) + 1e-30):
            raise InputError(
                f"the model gives another {name} when asked twice (largest difference"
                f" {(y - second[name]).abs().max():.3g}): switch off dropout, sampling and running"
                " statistics, or give it a fixed seed; their noise would count as equivariance"
                " error"
            )


def _cautions(
    model, group: Group, batch: AuditBatch, outputs: Outputs, plain: dict[str, Tensor]
) -> list[str]:
    """What makes the numbers mean something else than they seem to."""
    found = []
    if len(batch) > 1:
        half = batch[torch.arange((len(batch) + 1) // 2, device=batch.x.device)]
        alone = _as_given(model, group, half, outputs, None)
        for name, y in alone.items():
            full = plain[name][: len(y)]
            if not torch.allclose(y, full, rtol=1e-3, atol=1e-4 * float(full.abs().max()) + 1e-30):
                found.append(
                    f"{name} of an item depends on the other items of its batch (batch"
                    " statistics?): the audit turns every item by itself, so this counts as"
                    " equivariance error"
                )
        for name, y in plain.items():
            if y.numel() and float((y - y[:1]).abs().max()) <= 1e-7 * float(y.abs().max()):
                found.append(
                    f"{name} is the same for all items of the first batch: of a constant model the"
                    " split says nothing"
                )
    return found


def _doubts(row: Audit) -> list[str]:
    where = row.output if row.level is None else f"{row.output} at {row.level}"
    if row.total.value <= 0:
        return [f"{where}: the loss is zero, so there is no share to speak of"]
    if row.rounding:
        return []
    if row.items < 20:
        return [f"{where}: errors rest on {row.items} items only"]
    if row.equivariance.error > 0.5 * abs(row.equivariance.value):
        return [
            f"{where}: the equivariance error is not resolved; take more nodes (nodes=) or items"
        ]
    return []
