"""A model's answers along the orbit of its input, brought back: ``F(g) = g⁻¹ f(g x)``, constant for
equivariant f."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from orbitwise.audit.batch import AuditBatch, pick
from orbitwise.errors import InputError
from orbitwise.groups.base import Element, Group
from orbitwise.groups.product import Product
from orbitwise.orbits.posterior.result import map_element

Kind = Literal["vector", "point", "invariant", "scalar", "tensor", "field"]
Outputs = Kind | Mapping[str, Kind]
KINDS = ("vector", "point", "invariant", "scalar", "tensor", "field")


def kind_of(outputs: Outputs, name: str) -> Kind:
    """How the output of this name moves. Raises ``InputError`` where it is not said, or unknown."""
    kind = outputs if isinstance(outputs, str) else outputs.get(name)
    if kind not in KINDS:
        raise InputError(
            f"outputs: say how {name!r} moves, one of {', '.join(KINDS)}; got {kind!r} in"
            f" {outputs!r}"
        )
    return kind


def bring_back(
    group: Group, g: Element, y: Tensor, kind: Kind, mask: Tensor | None = None
) -> Tensor:
    """``g⁻¹·y`` for an output ``y: (*S, B, …)`` of one kind.

    ``vector`` and ``point``: ``(B, N, D)``; ``invariant``: any shape, not moved; ``scalar``: one
    number per point ``(B, N)``, which permutations move; ``tensor``: of rank two, ``(B, D, D)``, as
    a stress; ``field``: a grid, as the group acts on inputs.
    """
    if kind == "invariant":
        return y
    back = group.inverse(g)
    if kind in ("vector", "point"):
        return group.act(back, y, mask=mask, kind=kind)
    if kind == "field":
        return group.act(back, y)
    if kind == "scalar":
        return _rename(group, back, y, mask)
    return _both_sides(group, back, y)


def over_orbit(
    model: Callable[..., Any],
    group: Group,
    g: Element,
    batch: AuditBatch,
    outputs: Outputs = "vector",
    *,
    chunk: int | None = None,
) -> dict[str, Tensor]:
    """``F(g)`` of every output for elements ``g: (K, B, *E)``: ``(K, B, …)`` in float64.

    ``model(x, *moved, *args)`` gets the K·B inputs as one batch, or ``chunk`` of them at a time.
    Raises ``InputError`` for outputs of the wrong shape or with values that are not finite.
    """
    size = len(batch)
    x = group.act(g, batch.x, mask=batch.mask)
    K = len(x)
    moved = [_turn(group, g, value).flatten(0, 1) for value in batch.moved]
    x, mask, item = x.flatten(0, 1), batch.mask, torch.arange(size, device=batch.x.device).repeat(K)
    parts: list[dict[str, Tensor]] = []
    for index in torch.arange(len(x), device=x.device).split(chunk or len(x)):
        args = [pick(value, item[index], size) for value in batch.args]
        answer = model(x[index], *[value[index] for value in moved], *args)
        parts.append(_answers(answer, batch, len(index)))

    found = {}
    for name in batch.targets:
        y = torch.cat([part[name] for part in parts]).double().unflatten(0, (K, size))
        if not torch.isfinite(_real(y, mask)).all():
            bad = (
                (~torch.isfinite(_real(y, mask)).flatten(2).all(2))
                .any(0)
                .nonzero()
                .flatten()
                .tolist()
            )
            raise InputError(
                f"the model's {name} is not finite for items {bad[:8]} of a batch; look at these"
                " inputs"
            )
        found[name] = bring_back(group, _double(g), y, kind_of(outputs, name), mask)
    return found


def _answers(answer: Any, batch: AuditBatch, count: int) -> dict[str, Tensor]:
    answers = answer if isinstance(answer, Mapping) else {"prediction": answer}
    for name, target in batch.targets.items():
        y = answers.get(name)
        if not isinstance(y, Tensor):
            given = (
                ", ".join(map(str, answers))
                if isinstance(answer, Mapping)
                else type(answer).__name__
            )
            raise InputError(
                f"the model gives {given}; the audit needs a tensor {name!r} as the target has it"
            )
        if y.shape != (count, *target.shape[1:]):
            raise InputError(
                f"the model's {name} has shape {tuple(y.shape)}, the target asks for"
                f" {(count, *target.shape[1:])}"
            )
    return {name: answers[name] for name in batch.targets}


def _real(y: Tensor, mask: Tensor | None) -> Tensor:
    """Padded points read as zero."""
    if mask is None or y.shape[1:3] != mask.shape:
        return y
    return torch.where(mask.reshape(1, *mask.shape, *[1] * (y.ndim - 3)), y, 0)


def _double(g: Element) -> Element:
    return map_element(lambda part: part.double() if part.dtype.is_floating_point else part, g)


def _turn(group: Group, g: Element, value: Tensor) -> Tensor:
    """Vectors that belong to the item, not to its points: only what moves space moves them."""
    if isinstance(group, Product):
        for factor, part in zip(group.factors, g, strict=True):
            if factor.axis == "space":
                return factor.act(part, value, kind="vector")
        return value.expand(len(g[0]), *value.shape)
    if group.axis == "space":
        return group.act(g, value, kind="vector")
    return value.expand(len(g), *value.shape)


def _rename(group: Group, back: Element, y: Tensor, mask: Tensor | None) -> Tensor:
    if isinstance(group, Product):
        for factor, part in zip(group.factors, back, strict=True):
            y = _rename(factor, part, y, mask)
        return y
    return y if group.axis == "space" else group.act(back, y[..., None], mask=mask)[..., 0]


def _both_sides(group: Group, back: Element, y: Tensor) -> Tensor:
    """``A y Aᵀ`` of the spatial factor: its action on rows, twice."""
    if isinstance(group, Product):
        for factor, part in zip(group.factors, back, strict=True):
            if factor.axis == "space":
                return _both_sides(factor, part, y)
        return y
    if group.axis != "space":
        return y
    half = group.act(back, y, kind="vector")
    return group.act(back, half.mT, kind="vector").mT
