"""Finite permutation groups, one for each item of a batch: crystals or molecules of different kinds
together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.base import Device
from orbitwise.groups.permutation import Permutation, PointPermutation

Index = Tensor | slice | int | None


class ItemPermutations(PointPermutation):
    """One finite group of permutations for each item ``*B`` of a batch; elements as in
    ``PointPermutation``.

    ``tables: (M, *B, n)`` long, the elements of each item's group, the identity among them;
    ``present: (M, *B)`` bool, False where an item has fewer than M: such entries are replaced by
    the identity and have Haar weight 0. Batches of elements end in ``*B`` and act on points ``(*B,
    N, D)`` with ``N >= n``. ``group[index]`` is the group of a part of the batch. Raises
    ``InputError`` for shapes and rows that do not fit.
    >>> import torch
    >>> import orbitwise as ow
    >>> group = ow.ItemPermutations.within(torch.tensor([[1, 1, 1], [1, 1, 8]]))
    >>> group.order.tolist()
    [6, 2]
    >>> group[1:]
    ItemPermutations(items=(1,), n=3, order=2 to 2)
    """

    finite = True

    def __init__(self, tables: Tensor, present: Tensor):
        if tables.dtype != torch.long or tables.ndim < 2 or not tables.numel():
            raise InputError(
                f"tables must be long (M, *B, n), not {tuple(tables.shape)} of {tables.dtype}"
            )
        if present.dtype != torch.bool or present.shape != tables.shape[:-1]:
            raise InputError(
                f"present must be bool {tuple(tables.shape[:-1])}, not {tuple(present.shape)} of"
                f" {present.dtype}"
            )
        unit = torch.arange(tables.shape[-1], device=tables.device)
        if not torch.equal(tables.sort(-1).values, unit.expand_as(tables)):
            raise InputError(f"every row of tables must hold each of 0 … {len(unit) - 1} once")
        if not ((tables == unit).all(-1) & present).any(0).all():
            raise InputError("every item needs the identity among its permutations; some have none")
        self._fill(tables, present)

    def _fill(self, tables: Tensor, present: Tensor) -> None:
        """Those that are present first, no more entries than the largest group needs."""
        first = present.byte().argsort(dim=0, descending=True, stable=True)
        first = first[: int(present.sum(0).max()) if present.numel() else 1]
        self.n = tables.shape[-1]
        self.present = present.gather(0, first)
        tables = tables.gather(0, first[..., None].expand(*first.shape, self.n))
        self.tables = torch.where(
            self.present[..., None], tables, torch.arange(self.n, device=tables.device)
        )

    @classmethod
    def _of(cls, tables: Tensor, present: Tensor) -> ItemPermutations:
        """Without the checks, for tables made here."""
        group = cls.__new__(cls)
        group._fill(tables, present)
        return group

    def __repr__(self) -> str:
        span = (
            f"{int(self.order.min())} to {int(self.order.max())}" if self.order.numel() else "none"
        )
        return f"ItemPermutations(items={tuple(self.order.shape)}, n={self.n}, order={span})"

    @classmethod
    def within(cls, labels: Tensor, max_order: int = 5040) -> ItemPermutations:
        """All permutations among equal labels of each item. ``labels: (*B, n)`` whole numbers
        (species); points with a negative label never move (padding).

        Raises ``NoClosedFormError``, naming the item, where a group has more than ``max_order``
        elements: ``split`` sets such items apart.
        """
        if not labels.numel():
            raise InputError(
                f"there are no labels to permute within: their shape is {tuple(labels.shape)}"
            )

        whole = Permutation(labels.shape[-1], labels)
        if (large := ~_is_small(whole, max_order)).any():
            item = large.nonzero()[0].tolist()
            order = whole.log_order[tuple(item)].exp().item()
            raise NoClosedFormError(
                f"item {_name(item)}: {order:.6g} permutations within its labels, more than"
                f" max_order={max_order}; take such items out of the batch"
                " (ItemPermutations.split(labels) does), raise max_order, or use Permutation(n,"
                " labels) with method='gibbs', 'mode' or 'snis'"
            )

        batch, n = labels.shape[:-1], labels.shape[-1]
        ranked, points = whole.labels.reshape(-1, n).sort(dim=-1, stable=True)  # class after class
        blocks = (ranked != ranked.roll(1, -1)).index_fill(
            -1, torch.tensor(0, device=ranked.device), False
        )
        kinds, which = blocks.cumsum(-1).unique(
            dim=0, return_inverse=True
        )  # few, however many the items
        tables, present = _stacked([_of_blocks(tuple(kind)) for kind in kinds.tolist()], n)
        tables, present = tables.to(labels.device)[:, which], present.to(labels.device)[:, which]
        images = points.expand_as(tables).gather(-1, tables)
        moved = torch.empty_like(images).scatter_(-1, points.expand_as(images), images)
        return cls._of(moved.reshape(-1, *batch, n), present.reshape(-1, *batch))

    @classmethod
    def split(
        cls, labels: Tensor, max_order: int = 5040
    ) -> list[tuple[Tensor, ItemPermutations | Permutation]]:
        """The items of ``labels: (B, n)`` whose permutations can be enumerated, and the others:
        ``[(items, group), …]`` with ``items: (b)`` long, at most one of each kind. The first has an
        ``ItemPermutations`` (exact posteriors), the second a ``Permutation`` with one set of labels
        per item (``method="gibbs"``, ``"mode"`` or ``"snis"``).
        >>> import torch
        >>> import orbitwise as ow
        >>> labels = torch.tensor([[1] * 12, [1, 1, *range(2, 12)]])
        >>> for items, group in ow.ItemPermutations.split(labels):
        ...     print(items.tolist(), group)
        [1] ItemPermutations(items=(1,), n=12, order=2 to 2)
        [0] Permutation(12, order=exp(19.99))
        """
        if labels.ndim != 2 or not labels.numel():
            raise InputError(f"labels must be (B, n), one row per item, not {tuple(labels.shape)}")
        small = _is_small(Permutation(labels.shape[-1], labels), max_order)
        parts: list[tuple[Tensor, ItemPermutations | Permutation]] = []
        if (items := small.nonzero()[:, 0]).numel():
            parts.append((items, cls.within(labels[items], max_order)))
        if (items := (~small).nonzero()[:, 0]).numel():
            parts.append((items, Permutation(labels.shape[-1], labels[items])))
        return parts

    @classmethod
    def stack(cls, groups: Sequence[PointPermutation], n: int | None = None) -> ItemPermutations:
        """The groups of different molecules as one batch ``(len(groups),)``, on ``n`` points
        (default: as many as the largest has); points that a molecule does not have stay in place.

        Enumerates each group, so stack a data set once and index the result. Raises
        ``NoClosedFormError``, naming the item, for a group that cannot be enumerated,
        ``InputError`` for one on more than ``n`` points.
        """
        if not groups:
            raise InputError("there are no groups to stack")
        n = max(group.n for group in groups) if n is None else n
        tables = []
        for i, group in enumerate(groups):  # ragged input
            if group.n > n:
                raise InputError(f"item {i}: {group!r} permutes {group.n} points, more than n={n}")
            try:
                tables.append(group.enumerate(device="cpu")[0])
            except NoClosedFormError as error:
                raise NoClosedFormError(f"item {i}: {error}") from error
        return cls._of(*_stacked(tables, n))

    @property
    def order(self) -> Tensor:
        """Number of elements of each item's group, ``(*B)`` long."""
        return self.present.sum(0)

    @property
    def log_order(self) -> Tensor:
        """log of ``order``, float64."""
        return self.order.double().log()

    def __getitem__(self, index: Index | tuple[Index, ...]) -> ItemPermutations:
        """The groups of some items: ``index`` into ``*B``, as of a tensor."""
        index = index if isinstance(index, tuple) else (index,)
        return self._of(self.tables[:, *index], self.present[:, *index])

    def to(self, device: torch.device | str) -> ItemPermutations:
        """The same with its tables on another device."""
        return self._of(self.tables.to(device), self.present.to(device))

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Uniform elements ``(*shape, n)``; ``shape`` ends in ``*B``, else ``InputError``."""
        shape, batch = tuple(shape), tuple(self.order.shape)
        if shape[len(shape) - len(batch) :] != batch:
            raise InputError(
                f"the groups of items {batch} cannot give permutations of shape {shape}"
            )
        where = generator.device if generator is not None else device or self.tables.device
        u = torch.rand(shape, generator=generator, device=where, dtype=torch.float64)
        order = self.order.to(where)
        pick = (u * order).long().minimum(order - 1).to(self.tables.device)
        return entries(self.tables, pick, 1).to(device or where)

    def enumerate(
        self, *, device: Device = None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """All tables ``(M, *B, n)`` and their log Haar weights ``(M, *B)``: ``-log order`` of the
        item, -inf for the entries that it does not have."""
        dtype = dtype or torch.get_default_dtype()
        weights = torch.where(self.present, -self.log_order, -torch.inf)
        return self.tables.to(device or self.tables.device), weights.to(
            device or weights.device, dtype
        )


def entries(table: Tensor, index: Tensor, element_ndim: int) -> Tensor:
    """Of a table ``(M, *E)`` or ``(M, *B, *E)`` the entries at ``index: (*S, *B)``, its last axes
    the items of the table (or ones): ``(*S, *B, *E)``."""
    batch = table.shape[1 : table.ndim - element_ndim]
    items = [
        torch.arange(size, device=table.device).view(-1, *[1] * (len(batch) - k - 1))
        for k, size in enumerate(batch)
    ]
    return table[index, *items]


@lru_cache(maxsize=256)
def _of_blocks(blocks: tuple[int, ...]) -> Tensor:
    """All permutations within runs of equal labels ``0 0 1 …``, ``(order, n)``."""
    return Permutation(len(blocks), blocks, max_order=10**12).enumerate()[0]


def _stacked(tables: Sequence[Tensor], n: int) -> tuple[Tensor, Tensor]:
    """Tables ``(order, n_i)`` of each item as ``(M, items, n)`` and which entries are present."""
    most = max(map(len, tables))
    out = torch.arange(n).expand(most, len(tables), n).clone()
    for i, table in enumerate(tables):  # ragged input
        out[: len(table), i, : table.shape[-1]] = table
    orders = torch.tensor([len(table) for table in tables])
    return out, torch.arange(most)[:, None] < orders


def _is_small(group: Permutation, max_order: int) -> Tensor:
    """Which items have at most ``max_order`` permutations, ``(*B)``."""
    return group.log_order <= math.log(max_order + 0.5)


def _name(item: list[int]) -> str:
    return str(item[0]) if len(item) == 1 else str(tuple(item))
