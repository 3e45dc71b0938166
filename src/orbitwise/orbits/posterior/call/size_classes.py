"""Flat items of very different sizes, solved class by class: padding all of them to the largest
would take memory and time for points that are not there. Items of very different groups:
``order_classes``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from orbitwise.groups.base import Element, Group
from orbitwise.groups.permutation import PointPermutation
from orbitwise.orbits.posterior.call.coupling import factors
from orbitwise.orbits.posterior.result import OrbitPosterior

WASTE = 4  # padded to real points, above which classes pay
SMALL = 2**16  # padded points of a batch that is never worth more than one call


@dataclass(frozen=True)
class Class:
    """Items of about one size: which they are ``(b)``, their points ``(m)`` among all, and the item
    of each of those, ``(m)`` from 0 to b − 1."""

    items: Tensor
    points: Tensor
    batch: Tensor


def class_of(items: Tensor, batch: Tensor, count: int) -> Class:
    """``items (b)`` of ``count`` with their points, ``batch (M)`` long."""
    place = torch.full((count,), -1, device=batch.device)
    place[items] = torch.arange(len(items), device=batch.device)
    points = (place[batch] >= 0).nonzero()[:, 0]
    return Class(items, points, place[batch[points]])


def size_classes(batch: Tensor, group: Group, process: object) -> list[Class]:
    """Classes whose items differ in size by less than a factor of 2; one class, or none, where that
    does not pay, or group or process know the items by their place."""
    placed = hasattr(process, "whiten") or any(
        isinstance(part, PointPermutation) for part in factors(group)
    )
    few = len(batch) ** 2 <= 4 * SMALL  # B + N ≤ M + 1, so B·N is no more than that either way
    if placed or few or batch.ndim != 1 or batch.dtype != torch.long or batch.min() < 0:
        return []
    counts = torch.bincount(batch)
    if len(counts) * int(counts.max()) <= max(SMALL, WASTE * len(batch)) or not counts.all():
        return []
    level = counts.double().log2().floor().long()
    every = ((level == size).nonzero()[:, 0] for size in level.unique())
    return [class_of(items, batch, len(counts)) for items in every]


def shared_out(
    given: tuple[Any, ...], group: Group, process: object
) -> tuple[list[Class], list[tuple[Any, ...]]]:
    """The classes of a call, and what each is given: arguments as ``Asked.of`` takes them.

    None where sizes are told (nothing may wait), or where something does not fit, which is then
    said by who looks at the whole.
    """
    batch, sizes = given[4:6]
    if not isinstance(batch, Tensor) or sizes is not None:
        return [], []
    return shares_of(size_classes(batch, group, process), given)


def shares_of(
    classes: list[Class], given: tuple[Any, ...]
) -> tuple[list[Class], list[tuple[Any, ...]]]:
    """What each of the classes of flat points is given; nothing where something does not fit."""
    x1, xt, t, mask, batch, _, weights, x0, check = given
    flat = [x for x in (x1, xt, batch, weights, x0) if x is not None]
    if not classes or not all(isinstance(x, Tensor) for x in flat):
        return [], []
    points, items = len(batch), sum(len(c.items) for c in classes)
    fits = xt.ndim == 2 and x1.ndim in (2, 3) and x1.shape[-2] == points and mask is None
    fits &= all(len(x) == points for x in (xt, weights, x0) if x is not None)
    t = torch.as_tensor(t)
    each = t.flatten() if t.numel() > 1 else t.reshape(())
    if not fits or (each.ndim and len(each) not in (points, items)):
        return [], []

    def share(c: Class) -> tuple[Any, ...]:
        some = (None if x is None else x[c.points.to(x.device)] for x in (weights, x0))
        time = each
        if each.ndim:
            of_points = len(each) == points
            time = each[(c.points if of_points else c.items).to(each.device)]
            if of_points and len(c.points) == len(c.items):  # would be taken as one per item
                time = time[c.batch.argsort().to(each.device)]
        return x1[..., c.points, :], xt[c.points], time, None, c.batch, None, *some, check

    return classes, [share(c) for c in classes]


@dataclass(frozen=True)
class Together:
    """The ``context`` of a posterior put together from those of classes."""

    classes: Sequence[Class]
    parts: Sequence[OrbitPosterior]

    def of_points(self, pick: Callable[[OrbitPosterior], Tensor]) -> Tensor:
        """``(M, D)`` from ``(m, D)`` of each class."""
        return self._merged([pick(p) for p in self.parts], [c.points for c in self.classes], 0)

    def of_items(self, values: Sequence[Tensor], axis: int = 0) -> Tensor:
        """``(*K, B, *E)`` from ``(*K, b, *E)`` of each class; ``axis`` is that of b."""
        return self._merged(values, [c.items for c in self.classes], axis)

    def later(self, name: str) -> Tensor | Callable[[], Tensor]:
        """Of the parts' score or evidence, once somebody reads it; at once where autograd has to
        see it."""

        def merged() -> Tensor:
            if name == "score":
                return self.of_points(lambda part: part.score)
            return self.of_items([part.log_evidence for part in self.parts])

        waiting = (callable(part.__dict__[name]) for part in self.parts)
        return merged if all(waiting) else merged()

    def derived(self, name: str) -> Tensor:
        return self.of_points(lambda part: getattr(part, name))

    def draw(self, K: int, generator: torch.Generator | None) -> Element:
        drawn = [part.sample(K, generator) for part in self.parts]
        return self._elements(drawn)

    def _elements(self, drawn: Sequence[Any]) -> Element:
        if isinstance(drawn[0], tuple):
            return tuple(self._elements(part) for part in zip(*drawn, strict=True))
        return None if drawn[0] is None else self.of_items(drawn, 1)

    @staticmethod
    def _merged(values: Sequence[Tensor], places: Sequence[Tensor], axis: int) -> Tensor:
        order = torch.cat(list(places)).argsort()
        return torch.cat(list(values), axis).index_select(axis, order)


def together(classes: Sequence[Class], parts: Sequence[OrbitPosterior]) -> OrbitPosterior:
    """One posterior over all items."""
    all_of = Together(classes, parts)
    sizes = [part.ess for part in parts if part.ess is not None]
    return OrbitPosterior(
        mean=all_of.of_points(lambda part: part.mean),
        log_evidence=all_of.later("log_evidence"),
        score=all_of.later("score"),
        method=parts[0].method,
        exact=all(part.exact for part in parts),
        draw=all_of.draw,
        ess=all_of.of_items(sizes) if len(sizes) == len(parts) else None,
        context=all_of,
    )
