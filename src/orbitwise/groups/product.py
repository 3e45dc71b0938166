"""Direct products of groups that move different things."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.base import Device, Group, Kind


class Product(Group):
    """``Product(SO3(), automorphisms)``: the direct product. Elements are tuples, one entry per
    factor.

    Factors must commute, so there is at most one per ``axis``: one that moves space, one that
    renames points. Raises ``InputError`` otherwise: rigid motions SE(3), for one, are no direct
    product of rotations and translations; take the rotations alone with a process of zero centre of
    mass (``zero_com=True``).
    >>> import torch
    >>> import orbitwise as ow
    >>> group = ow.Product(ow.SO3(), ow.Permutation(2))
    >>> rotation, order = group.sample((7,), generator=torch.Generator().manual_seed(0))
    >>> rotation.shape, order.shape
    (torch.Size([7, 3, 3]), torch.Size([7, 2]))
    >>> group.act((rotation, order), torch.randn(7, 2, 3)).shape
    torch.Size([7, 2, 3])
    """

    def __init__(self, *factors: Group):
        axes = [factor.axis for factor in factors]
        if not factors or len(set(axes)) < len(axes):
            names = ", ".join(type(factor).__name__ for factor in factors)
            raise InputError(
                f"Product({names}): factors must act on different axes, these act on {axes}. For"
                " rotations and translations together use SO3() or O3() with a process made with"
                " zero_com=True"
            )
        self.factors = tuple(factors)
        self.axis = axes[0] if len(axes) == 1 else "both"
        self.element_ndim = tuple(factor.element_ndim for factor in factors)

    @property
    def finite(self) -> bool:
        return all(factor.finite for factor in self.factors)

    def enumerate(
        self, *, device: Device = None, dtype: torch.dtype | None = None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """All combinations, the last factor running fastest, and their log Haar weights ``(M,)``;
        ``(M, *B)`` where a factor has groups of its own for items ``*B``."""
        if not self.finite:
            endless = [type(factor).__name__ for factor in self.factors if not factor.finite]
            raise NoClosedFormError(
                f"{', '.join(endless)} cannot be enumerated; draw elements with .sample"
            )
        parts = [factor.enumerate(device=device, dtype=dtype) for factor in self.factors]
        grid = torch.meshgrid(
            *[torch.arange(len(w), device=device) for _, w in parts], indexing="ij"
        )
        index = [i.flatten() for i in grid]
        weights = [w[i] for (_, w), i in zip(parts, index, strict=True)]
        batch = max(w.ndim for w in weights)
        weights = [w.reshape(*w.shape, *[1] * (batch - w.ndim)) for w in weights]
        elements = tuple(g[i] for (g, _), i in zip(parts, index, strict=True))
        return elements, torch.stack(torch.broadcast_tensors(*weights)).sum(0)

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, ...]:
        """Haar-distributed elements: a tuple with one batch ``(*shape, *E)`` per factor."""
        return tuple(
            f.sample(shape, generator=generator, device=device, dtype=dtype) for f in self.factors
        )

    def identity(
        self, shape: Sequence[int] = (), *, device: Device = None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, ...]:
        return tuple(factor.identity(shape, device=device, dtype=dtype) for factor in self.factors)

    def compose(self, g: tuple[Tensor, ...], h: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(f.compose(a, b) for f, a, b in zip(self.factors, g, h, strict=True))

    def inverse(self, g: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(f.inverse(a) for f, a in zip(self.factors, g, strict=True))

    def act(
        self, g: tuple[Tensor, ...], x: Tensor, mask: Tensor | None = None, kind: Kind = "point"
    ) -> Tensor:
        for factor, part in zip(self.factors, g, strict=True):
            x = factor.act(part, x, mask=mask, kind=kind)
        return x

    def __repr__(self) -> str:
        return f"Product({', '.join(map(repr, self.factors))})"
