"""Regression of vectors on points under a symmetry: forces on positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.base import Element, Group
from orbitwise.orbits.posterior.result import map_element


@dataclass(frozen=True)
class Regression:
    """``(model, batch, generator) -> losses (B,)``: mean of ``|model(g·x) − g·y|²/scale²`` over
    some group elements.

    A deterministic target leaves no posterior over g to average over: given ``g·x``, the target
    ``g·y`` is certain, so the targets of augmentation are exact already. What augmentation adds is
    the scatter of the *loss* over g. It is lowered by averaging over more elements per item:
    ``copies`` Haar elements (0: the orientation of the data, no augmentation; 1: augmentation), or
    ``nodes``, a finite set of elements turned as a whole by one Haar element per item (a subgroup:
    randomised quadrature, unbiased, and free of scatter from what the subgroup integrates exactly).
    The expected gradient is the same for all of them but ``copies=0``; the cost is their number of
    evaluations.

    ``batch``: ``x (B, N, 3)`` and ``target (B, N, 3)``; ``model(x) -> (B, N, 3)``; ``nodes (M,
    *E)``.
    """

    group: Group
    copies: int = 1
    nodes: Element | None = None
    scale: float = 1.0

    def __post_init__(self):
        if self.copies < 0 or not self.scale > 0:
            raise InputError(
                f"copies must be >= 0 and scale > 0, got {self.copies} and {self.scale}"
            )

    @property
    def evaluations(self) -> int:
        """Evaluations of the model per item."""
        return max(self.copies, 1) if self.nodes is None else len(self._leaf())

    def __call__(self, model, batch: Any, generator: torch.Generator | None = None) -> Tensor:
        x, y = batch.x[None], batch.target[None]
        if self.copies or self.nodes is not None:
            with torch.no_grad():
                g = self._elements(batch.x, generator)
                x, y = self.group.act(g, batch.x), self.group.act(g, batch.target, kind="vector")
        K, B = x.shape[:2]
        square = (model(x.flatten(0, 1)) - y.flatten(0, 1)).square().flatten(1).mean(1)
        return square.unflatten(0, (K, B)).mean(0) / self.scale**2

    def _elements(self, x: Tensor, generator: torch.Generator | None) -> Element:
        several = self.copies if self.nodes is None else 1
        h = self.group.sample(
            (several, len(x)), generator=generator, device=x.device, dtype=x.dtype
        )
        if self.nodes is None:
            return h
        return self.group.compose(h, map_element(lambda part: part[:, None].to(x), self.nodes))

    def _leaf(self) -> Tensor:
        part = self.nodes
        while isinstance(part, tuple):
            part = part[0]
        return part
