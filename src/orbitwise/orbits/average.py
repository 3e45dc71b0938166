"""Averaging a model over a group (the twirl): the nearest equivariant model, from any backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.base import Element, Group, unrounded
from orbitwise.groups.finite import Finite
from orbitwise.groups.so3 import O3, SO3
from orbitwise.orbits.posterior.result import map_element

Output = Literal["point", "vector", "invariant"]


@dataclass(frozen=True)
class Twirled:
    """``x -> Σ_k w_k g_k⁻¹·model(g_k·x, …)``; made by ``twirl`` and ``framed``.

    ``elements(x, mask)``: the group elements ``(K, *B, *E)`` (or ``(K, 1, …, *E)``: the same for
    every item) and their weights ``(K,)``.
    """

    model: Callable[..., Tensor]
    group: Group
    elements: Callable[[Tensor, Tensor | None], tuple[Element, Tensor]]
    output: Output
    chunk: int | None

    def __post_init__(self) -> None:
        if self.output not in ("point", "vector", "invariant"):
            raise InputError(f"output {self.output!r} is none of 'point', 'vector', 'invariant'")

    def __call__(self, x: Tensor, *args: Any, mask: Tensor | None = None) -> Tensor:
        """``x: (*B, N, D)``; ``args`` go to the model as they are; ``mask: (*B, N)``, True = real
        point."""
        g, weights = self.elements(x, mask)
        call = torch.vmap(
            lambda y: self.model(y, *args), randomness="different", chunk_size=self.chunk
        )
        y = call(self.group.act(g, x, mask=mask))
        if y.is_floating_point():  # what autocast made of it is not averaged in 8 bits
            y = y.to(torch.promote_types(y.dtype, torch.float32))
        if self.output != "invariant":
            y = self.group.act(self.group.inverse(g), y, mask=mask, kind=self.output)
        with unrounded(y):
            return torch.einsum("k,k...->...", weights.to(y), y)


def twirl(
    model: Callable[..., Tensor],
    group: Group,
    K: int | None = None,
    *,
    nodes: Finite | None = None,
    output: Output = "vector",
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Twirled:
    """The model averaged over the group: ``(twirled)(x, …) = mean_g g⁻¹·model(g·x, …)``.

    ``K=None``: over all elements of a finite group, which makes the result exactly equivariant.
    ``K``: over that many Haar elements per item, drawn anew at each call: unbiased for the exact
    average, equivariant up to Monte-Carlo noise. ``nodes``, for ``SO3`` and ``O3``: a finite group
    of matrices (``octahedral()`` and the others of ``groups.polyhedral``) turned as a whole by
    ``K`` (default 1) Haar elements per item: as unbiased, with ``K·len(nodes)`` model calls, and
    without noise for the part of ``g -> g⁻¹·model(g·x)`` of degree up to 2, 3, 5 in g for 12, 24,
    60 rotations (a prediction that is a polynomial of degree d in x gives a vector of degree d+1,
    an invariant of degree d).

    ``model(x, …)``: ``(*B, N, D) -> (*B, N, D)`` (of ``VoxelRotations``: grids to grids), or any
    shape ``(*B, …)`` with ``output="invariant"``; all group elements go through it in one call of
    ``torch.vmap``, ``chunk`` of them at a time. ``output`` says what the prediction is:
    ``"vector"`` (velocities, scores, forces), ``"point"`` (positions, which translations move), or
    ``"invariant"`` (energies: averaged as they are). Gradients pass.

    Raises ``NoClosedFormError`` for ``K=None`` and a group that cannot be enumerated,
    ``InputError`` for another ``output``, ``K < 1``, or ``nodes`` that do not lie in the group.
    >>> import torch
    >>> import orbitwise as ow
    >>> from orbitwise.groups.polyhedral import octahedral
    >>> group = octahedral()
    >>> model = ow.twirl(lambda x: torch.sin(x).cumsum(-1), group)
    >>> x, g = torch.randn(5, 3), torch.tensor(7)
    >>> torch.allclose(model(group.act(g, x)), group.act(g, model(x)), atol=1e-5)
    True
    """
    if K is not None and K < 1:
        raise InputError(f"K must be at least 1, not {K}")
    if nodes is not None:
        _inside(nodes, group)
    draws = 1 if K is None else K

    def all_of_them(x: Tensor, mask: Tensor | None) -> tuple[Element, Tensor]:
        g, log_haar = group.enumerate(device=x.device, dtype=x.dtype)
        if log_haar.ndim > 1:
            raise NoClosedFormError(
                f"{group!r} differs from item to item: give K to average over K of its elements"
            )
        return _for_every_item(g, x.ndim - group.event_ndim), log_haar.exp()

    def haar(x: Tensor, mask: Tensor | None) -> tuple[Element, Tensor]:
        batch = x.shape[: x.ndim - group.event_ndim]
        g = group.sample((draws, *batch), generator=generator, device=x.device, dtype=x.dtype)
        return g, x.new_full((draws,), 1 / draws)

    def turned(nodes: Finite, x: Tensor, mask: Tensor | None) -> tuple[Element, Tensor]:
        h = group.sample(
            (draws, 1, *x.shape[:-2]), generator=generator, device=x.device, dtype=x.dtype
        )
        g = group.compose(_for_every_item(nodes.matrices.to(x), x.ndim - 2), h).flatten(0, 1)
        return g, x.new_full((len(g),), 1 / len(g))

    elements = all_of_them if K is None else haar
    if nodes is not None:
        elements = partial(turned, nodes)
    return Twirled(model, group, elements, output, chunk)


def _for_every_item(g: Element, batch_ndim: int) -> Element:
    """Elements ``(K, *E)`` with a dimension of 1 for each batch dimension."""
    ones = [1] * batch_ndim
    return map_element(lambda part: part.reshape(len(part), *ones, *part.shape[1:]), g)


def _inside(nodes: Finite, group: Group) -> None:
    A = nodes.matrices
    if not isinstance(group, SO3):
        raise InputError(f"nodes are for SO3 and O3, not {group}: leave them out and give K")
    if A.shape[-1] != 3 or (A @ A.mT - torch.eye(3).to(A)).abs().max() > 1e-6:
        raise InputError(
            f"the nodes are {nodes}, and they must be orthogonal 3x3 matrices to lie in {group}"
        )
    if not isinstance(group, O3) and torch.linalg.det(A).min() < 0:
        raise InputError(
            "the nodes hold reflections, which are not in SO3: twirl over O3, or give rotations"
        )
