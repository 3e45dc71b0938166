"""Averaging a model over a group (the twirl): the nearest equivariant model, from any backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.base import Element, Group
from orbitwise.orbits.result import map_element


@dataclass(frozen=True)
class Twirled:
    """``x -> mean_g g⁻¹·model(g·x, …)``; made by ``twirl``."""

    model: Callable[..., Tensor]
    group: Group
    K: int | None
    output: Literal["point", "vector", "invariant"]
    generator: torch.Generator | None
    chunk: int | None

    def __call__(self, x: Tensor, *args: Any, mask: Tensor | None = None) -> Tensor:
        """``x: (*B, N, D)``; ``args`` go to the model as they are; ``mask: (*B, N)``, True = real point."""
        g, weights = self._elements(x)
        call = torch.vmap(lambda y: self.model(y, *args), randomness="different", chunk_size=self.chunk)
        y = call(self.group.act(g, x, mask=mask))
        if self.output != "invariant":
            y = self.group.act(self.group.inverse(g), y, mask=mask, kind=self.output)
        return torch.einsum("k,k...->...", weights.to(y), y)

    def _elements(self, x: Tensor) -> tuple[Element, Tensor]:
        batch = x.shape[:-2]
        if self.K is not None:
            g = self.group.sample((self.K, *batch), generator=self.generator, device=x.device, dtype=x.dtype)
            return g, torch.full((self.K,), 1 / self.K, device=x.device)
        g, log_haar = self.group.enumerate(device=x.device, dtype=x.dtype)
        ones = [1] * len(batch)
        return map_element(lambda part: part.reshape(len(part), *ones, *part.shape[1:]), g), log_haar.exp()


def twirl(
    model: Callable[..., Tensor],
    group: Group,
    K: int | None = None,
    *,
    output: Literal["point", "vector", "invariant"] = "vector",
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Twirled:
    """The model averaged over the group: ``(twirled)(x, …) = mean_g g⁻¹·model(g·x, …)``.

    ``K=None``: over all elements of a finite group, which makes the result exactly equivariant. ``K``: over that
    many Haar elements per item, drawn anew at each call: unbiased for the exact average, equivariant up to
    Monte-Carlo noise.

    ``model(x, …)``: ``(*B, N, D) -> (*B, N, D)``, or any shape ``(*B, …)`` with ``output="invariant"``; all group
    elements go through it in one call of ``torch.vmap``, ``chunk`` of them at a time. ``output`` says what the
    prediction is: ``"vector"`` (velocities, scores, forces), ``"point"`` (positions, which translations move), or
    ``"invariant"`` (energies: averaged as they are). Gradients pass.

    Raises ``NoClosedFormError`` for ``K=None`` and a group that cannot be enumerated, ``InputError`` for another
    ``output`` or ``K < 1``.
    """
    if output not in ("point", "vector", "invariant"):
        raise InputError(f"output {output!r} is none of 'point', 'vector', 'invariant'")
    if K is not None and K < 1:
        raise InputError(f"K must be at least 1, not {K}")
    return Twirled(model, group, K, output, generator, chunk)
