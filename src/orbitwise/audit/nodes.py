"""Which group elements an audit evaluates: blocks of them, every block by itself unbiased for the
Haar mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.base import Element, Group
from orbitwise.groups.polyhedral import icosahedral, octahedral, tetrahedral
from orbitwise.groups.product import Product
from orbitwise.groups.so3 import O3, SO3
from orbitwise.groups.translation import Translation
from orbitwise.orbits.posterior.result import map_element

_POLYHEDRA = {"tetrahedral": tetrahedral, "octahedral": octahedral, "icosahedral": icosahedral}
ENUMERATED = 120  # larger finite groups are sampled unless asked for


class Nodes(Protocol):
    """``blocks`` independent blocks of ``size(group)`` elements. ``draw`` gives them for B items,
    ``(blocks · size, B, *E)``, block by block; every item has elements of its own."""

    blocks: int

    def size(self, group: Group) -> int: ...
    def draw(
        self, group: Group, count: int, generator: torch.Generator | None, like: Tensor
    ) -> Element: ...


@dataclass(frozen=True)
class Haar:
    """``blocks`` ≥ 2 independent elements."""

    blocks: int = 24

    def __post_init__(self):
        if self.blocks < 2:
            raise InputError(
                "two independent elements are the least that can be told apart: Haar(blocks=2)"
            )

    def size(self, group: Group) -> int:
        return 1

    def draw(
        self, group: Group, count: int, generator: torch.Generator | None, like: Tensor
    ) -> Element:
        return _sample(group, (self.blocks, count), generator, like)


@dataclass(frozen=True)
class Quadrature:
    """``blocks`` ≥ 2 copies of a polyhedral rotation group (12, 24 or 60 elements), each turned as
    a whole by a random rotation: low degrees of the prediction are integrated exactly, the mean
    over a block is unbiased for all.

    Of ``O3`` every rotation comes with its rotoreflection. In a ``Product`` the rotations are of
    this kind, the other factors are drawn from Haar measure for every element.
    """

    polyhedron: Literal["tetrahedral", "octahedral", "icosahedral"] = "tetrahedral"
    blocks: int = 2

    def __post_init__(self):
        if self.polyhedron not in _POLYHEDRA:
            raise InputError(
                f"unknown polyhedron {self.polyhedron!r}; use one of {', '.join(_POLYHEDRA)}"
            )
        if self.blocks < 2:
            raise InputError(
                "two independent blocks are the least that can be told apart: blocks=2"
            )

    def size(self, group: Group) -> int:
        rotations = {"tetrahedral": 12, "octahedral": 24, "icosahedral": 60}[self.polyhedron]
        return rotations * (2 if any(isinstance(f, O3) for f in _factors(group)) else 1)

    def draw(
        self, group: Group, count: int, generator: torch.Generator | None, like: Tensor
    ) -> Element:
        if isinstance(group, Product):
            return tuple(self._part(f, group, count, generator, like) for f in group.factors)
        return self._part(group, group, count, generator, like)

    def _part(self, factor: Group, group: Group, count: int, generator, like: Tensor) -> Element:
        total = self.blocks * self.size(group)
        if not isinstance(factor, SO3):
            if factor is group:
                raise InputError(
                    f"quadrature is for rotations, not {type(group).__name__}; use Haar(K)"
                )
            return _sample(factor, (total, count), generator, like)
        corners = _POLYHEDRA[self.polyhedron]().matrices.to(like)
        if isinstance(factor, O3):
            corners = torch.cat([corners, -corners])
        turn = _sample(factor, (self.blocks, 1, count), generator, like)
        return (turn @ corners[:, None]).flatten(0, 1)


@dataclass(frozen=True)
class Shifts:
    """``blocks`` ≥ 2 independent normal shifts of ``width`` (in units of x) for ``Translation``,
    whose group has no uniform distribution: the split of the loss then holds for this distribution
    of shifts."""

    width: float
    blocks: int = 8

    def __post_init__(self):
        if self.blocks < 2 or not self.width > 0:
            raise InputError(
                f"shifts need a positive width and two blocks, got {self.width} and {self.blocks}"
            )

    def size(self, group: Group) -> int:
        return 1

    def draw(
        self, group: Group, count: int, generator: torch.Generator | None, like: Tensor
    ) -> Element:
        if not isinstance(group, Translation):
            raise InputError(f"shifts are for Translation, not {type(group).__name__}; use Haar(K)")
        where = like.device if generator is None else generator.device
        shape = (self.blocks, count, group.dim)
        return self.width * torch.randn(
            shape, generator=generator, device=where, dtype=_real(like)
        ).to(like.device)


@dataclass(frozen=True)
class Enumerate:
    """All elements of a finite group: no error of sampling."""

    blocks: int = 1

    def size(self, group: Group) -> int:
        return len(group.enumerate()[1])

    def draw(
        self, group: Group, count: int, generator: torch.Generator | None, like: Tensor
    ) -> Element:
        g, log_haar = group.enumerate(device=like.device, dtype=_real(like))
        if log_haar.ndim > 1 or float(log_haar.max() - log_haar.min()) > 1e-6:
            raise InputError(
                "the elements of this group differ in weight or from item to item; use Haar(K)"
            )
        return map_element(lambda part: part[:, None].expand(len(part), count, *part.shape[1:]), g)


def nodes_for(group: Group) -> Nodes:
    """What is best without another wish: all elements of a small finite group, quadrature for
    rotations (24 evaluations, 48 with reflections), 24 Haar elements for the rest."""
    if group.finite and Enumerate().size(group) <= ENUMERATED:
        return Enumerate()
    if any(isinstance(f, SO3) for f in _factors(group)):
        return Quadrature()
    if isinstance(group, Translation):
        raise InputError(
            "translations have no uniform distribution; say how far to shift: nodes=Shifts(width)"
        )
    return Haar()


def _factors(group: Group) -> Sequence[Group]:
    return group.factors if isinstance(group, Product) else (group,)


def _sample(group: Group, shape: tuple[int, ...], generator, like: Tensor) -> Element:
    return group.sample(shape, generator=generator, device=like.device, dtype=_real(like))


def _real(like: Tensor) -> torch.dtype:
    return like.dtype if like.dtype.is_floating_point else torch.get_default_dtype()
