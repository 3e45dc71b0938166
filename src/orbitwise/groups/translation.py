"""Translations of Euclidean space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from orbitwise.errors import NoClosedFormError
from orbitwise.groups.base import Device, Group, Kind


class Translation(Group):
    """Translations of R^dim. Elements ``(*S, dim)`` act as ``x -> x + g``; vectors stay as they
    are.

    The group is not compact: it has no uniform distribution, so ``sample`` raises. Its posterior is
    exact all the same (a flat measure integrates the centre of mass out); for rotations *and*
    translations use the rotations alone, with a process made with ``zero_com=True``.
    >>> import torch
    >>> import orbitwise as ow
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    >>> ow.Translation(2).act(torch.tensor([5.0, 5.0]), x).tolist()
    [[5.0, 5.0], [6.0, 7.0]]
    >>> ow.Translation(2).act(torch.tensor([5.0, 5.0]), x, kind="vector").tolist()
    [[0.0, 0.0], [1.0, 2.0]]
    """

    element_ndim = 1
    axis = "space"

    def __init__(self, dim: int = 3):
        self.dim = dim

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Raises ``NoClosedFormError``: there is no uniform translation of R^dim."""
        raise NoClosedFormError(
            "translations of R^n have no uniform distribution to sample from; integrate them out"
            " with a process made with zero_com=True, or use PeriodicTranslation for a periodic"
            " cell"
        )

    def identity(
        self, shape: Sequence[int] = (), *, device: Device = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        return torch.zeros(*shape, self.dim, device=device, dtype=dtype)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return g + h

    def inverse(self, g: Tensor) -> Tensor:
        return -g

    def act(self, g: Tensor, x: Tensor, mask: Tensor | None = None, kind: Kind = "point") -> Tensor:
        shift = g.to(x.dtype)[..., None, :]
        if kind == "vector":  # only the shape broadcasts
            shift = torch.zeros_like(shift)
        moved = x + shift
        return moved if mask is None else torch.where(mask[..., None], moved, x)

    def __repr__(self) -> str:
        return f"Translation({self.dim})"
