"""What a model is audited on: inputs, the targets that move with them, and a label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from orbitwise.errors import InputError


@dataclass(frozen=True)
class AuditBatch:
    """One batch of B items.

    ``x: (B, N, D)`` points, or whatever the group's ``act`` takes, as grids ``(B, C, n, n, n)``;
    ``target``: ``(B, …)`` or a dictionary of them, in the orientation of ``x``; ``args`` go to the
    model behind ``x`` and are not moved (tensors and indexable objects of length B are repeated,
    everything else is passed on as it is); ``mask: (B, N)``, True = real point; ``moved``: further
    inputs ``(B, n, D)`` that turn as vectors do (cells, fields), which the model gets between ``x``
    and ``args``; ``level``: a label to report by (a noise level, a temperature).
    """

    x: Tensor
    target: Tensor | dict[str, Tensor]
    args: tuple[Any, ...] = ()
    mask: Tensor | None = None
    moved: tuple[Tensor, ...] = ()
    level: str | float | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def targets(self) -> dict[str, Tensor]:
        """By the name of the output; a lone tensor is called ``prediction``."""
        return self.target if isinstance(self.target, dict) else {"prediction": self.target}

    def __getitem__(self, index: Tensor) -> AuditBatch:
        """The items of a ``LongTensor`` or slice."""
        size = len(self)
        target = {k: v[index] for k, v in self.targets.items()}
        return AuditBatch(
            x=self.x[index],
            target=target if isinstance(self.target, dict) else target["prediction"],
            args=tuple(pick(value, index, size) for value in self.args),
            mask=None if self.mask is None else self.mask[index],
            moved=tuple(value[index] for value in self.moved),
            level=self.level,
        )


def pick(value: Any, index: Tensor, size: int) -> Any:
    """The items of something with ``size`` of them; anything else as it is."""
    if isinstance(value, (str, bytes, dict)) or not hasattr(value, "__len__"):
        return value
    if isinstance(value, Tensor) and value.ndim == 0:
        return value
    if len(value) != size:
        return value
    if isinstance(value, (list, tuple)):
        found = [value[i] for i in torch.arange(size)[index].tolist()]
        return tuple(found) if isinstance(value, tuple) else found
    return value[index]


def checked_batches(batches: Any) -> Iterator[AuditBatch]:
    """One batch, ``(x, target)``, or an iterable of either, one by one.

    Raises ``InputError`` for empty batches, values that are not finite, and shapes that do not fit.
    """
    number = 0
    for number, batch in enumerate(_each(batches), 1):
        where = f"audit batch {number}"
        if not isinstance(batch, AuditBatch):
            try:
                x, target = batch
            except (TypeError, ValueError):
                raise InputError(f"{where}: give an AuditBatch or a pair (x, target)") from None
            batch = AuditBatch(x, target)
        if len(batch) == 0:
            raise InputError(f"{where} is empty: give at least one item")
        _check(batch, where)
        yield batch
    if number == 0:
        raise InputError("there is nothing to audit: no batch was given")


def _each(batches: Any) -> Iterable:
    if isinstance(batches, AuditBatch):
        return [batches]
    if isinstance(batches, (tuple, list)) and len(batches) == 2 and isinstance(batches[0], Tensor):
        return [tuple(batches)]
    return batches


def _check(batch: AuditBatch, where: str) -> None:
    real = slice(None) if batch.mask is None else batch.mask
    if batch.mask is not None and batch.mask.shape != batch.x.shape[:2]:
        raise InputError(
            f"{where}: mask has shape {tuple(batch.mask.shape)}, x {tuple(batch.x.shape)}; they"
            " must share (B, N)"
        )
    if not torch.isfinite(batch.x[real]).all():
        raise InputError(f"{where}: x has values that are not finite; remove these items")
    for name, target in batch.targets.items():
        if len(target) != len(batch):
            raise InputError(f"{where}: target {name} has {len(target)} items, x has {len(batch)}")
        part = (
            target[batch.mask]
            if batch.mask is not None and target.shape[:2] == batch.mask.shape
            else target
        )
        if not torch.isfinite(part).all():
            raise InputError(
                f"{where}: target {name} has values that are not finite; remove these items"
            )
