"""Items of different sizes behind one another: flat points ``(M, D)`` with the item of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.errors import InputError


@dataclass(frozen=True)
class Packing:
    """Where each of ``M`` flat points stands among ``B`` padded items of ``N`` points.

    ``slot: (M)``, index into ``B·N``; ``mask: (B, N)``, True = real point; ``item: (M)``.
    """

    slot: Tensor
    mask: Tensor
    item: Tensor

    @classmethod
    def of(cls, batch: Tensor, graphs: int | None = None, largest: int | None = None) -> Packing:
        """From the item of each point, ``(M)`` long, in any order; ``graphs``: B, ``largest``: N.

        Where both are given nothing waits for the device, and nothing is checked against them.
        """
        if batch.ndim != 1 or batch.is_floating_point() or batch.dtype == torch.bool:
            raise InputError(
                "batch must hold the item of each point, (M) whole numbers, not"
                f" {tuple(batch.shape)} of {batch.dtype}"
            )
        item = batch.long()
        if not len(item):
            raise InputError("batch is empty: there is no point at all")
        if graphs is None or largest is None:
            low, high = (int(end) for end in torch.aminmax(item))
            if low < 0 or (graphs is not None and high >= graphs):
                raise InputError(
                    f"batch runs from {low} to {high}; items are numbered from 0"
                    + ("" if graphs is None else f" to {graphs - 1} (t has {graphs} entries)")
                )
            graphs = high + 1 if graphs is None else graphs
        counts = item.new_zeros(graphs).scatter_add_(0, item, torch.ones_like(item))
        if largest is None:
            least, largest = (int(end) for end in torch.aminmax(counts))
            if least == 0:
                empty = (counts == 0).nonzero()[0].item()
                raise InputError(f"item {empty} of the batch has no points; number items densely")

        order = item.argsort(stable=True)
        rank = (
            torch.arange(len(item), device=item.device) - (counts.cumsum(0) - counts)[item[order]]
        )
        place = torch.empty_like(item).scatter_(0, order, rank)
        mask = torch.arange(largest, device=item.device) < counts[:, None]
        return cls(item * largest + place, mask, item)

    @property
    def graphs(self) -> int:
        return len(self.mask)

    def pack(self, name: str, x: Tensor, trailing: int = 1) -> Tensor:
        """``(*L, M, *E)`` -> ``(*L, B, N, *E)`` with ``trailing`` axes E, 0 in padded rows."""
        axis = x.ndim - trailing - 1
        if axis < 0 or x.shape[axis] != len(self.slot):
            raise InputError(
                f"{name} has shape {tuple(x.shape)}, and batch tells of {len(self.slot)} points"
            )
        B, N = self.mask.shape
        empty = x.new_zeros(*x.shape[:axis], B * N, *x.shape[axis + 1 :])
        padded: Tensor = empty.index_copy(axis, self.slot, x).unflatten(axis, (B, N))
        return padded

    def flat(self, x: Tensor) -> Tensor:
        """Back: ``(*L, B, N, D)`` -> ``(*L, M, D)``."""
        return x.flatten(-3, -2).index_select(-2, self.slot)

    def times(self, t: Tensor, check: bool = True) -> Tensor:
        """One time per item, from times per item ``(B)`` or per point ``(M)``.

        Raises ``InputError`` where the points of one item have different times.
        """
        t = t.reshape(()) if t.numel() == 1 else t.flatten() if t.shape[:1] == (t.numel(),) else t
        if t.ndim == 0 or t.shape == (self.graphs,):
            return t
        if t.shape != self.item.shape:
            raise InputError(
                f"t must be one number, one per item ({self.graphs}) or one per point"
                f" ({len(self.item)}), not {tuple(t.shape)}"
            )
        each = t.new_zeros(self.graphs).index_copy(0, self.item, t)
        if check and not (each[self.item] == t).all():
            wrong = self.item[each[self.item] != t][0].item()
            raise InputError(
                f"the points of item {wrong} have different times; noise has one t per item"
            )
        return each
