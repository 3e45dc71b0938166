"""Items whose groups have very different orders, solved class by class: one item with thousands of
permutations would make all others wait for as many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from orbitwise.groups.base import Group
from orbitwise.groups.item_permutations import ItemPermutations
from orbitwise.groups.product import Product
from orbitwise.orbits.posterior.call.coupling import factors
from orbitwise.orbits.posterior.call.size_classes import SMALL, Class, class_of, shares_of

Shares = tuple[list[Class], list[tuple[Any, ...]], list[Group]]
ALONE: Shares = ([], [], [])


def shared_out_by_order(given: tuple[Any, ...], group: Group, process: object) -> Shares:
    """Classes whose orders differ by less than a factor of 2, with what each is given and its
    group; nothing where that does not pay, nothing may be looked at, the process knows the items by
    their place, or something does not fit."""
    x1, xt, _, _, batch, sizes, _, _, check = given
    own = [part for part in factors(group) if isinstance(part, ItemPermutations)]
    if len(own) != 1 or own[0].order.ndim != 1 or hasattr(process, "whiten"):
        return ALONE
    if not isinstance(xt, Tensor) or not isinstance(x1, Tensor) or sizes is not None:
        return ALONE
    if not check and xt.device.type != "cpu":
        return ALONE

    order = own[0].order
    level = order.double().log2().floor().long()
    every = [(level == size).nonzero()[:, 0] for size in level.unique()]
    needed = sum(len(items) * int(order[items].max()) for items in every)
    if (len(order) * int(order.max()) - needed) * own[0].n < SMALL:
        return ALONE

    groups = [_part(group, own[0][items]) for items in every]
    every = [items.to(xt.device) for items in every]
    if isinstance(batch, Tensor):
        if batch.ndim != 1 or not len(batch) or int(batch.max()) + 1 != len(order):
            return ALONE
        classes, shares = shares_of([class_of(i, batch, len(order)) for i in every], given)
        return (classes, shares, groups) if classes else ALONE
    if batch is not None or xt.ndim != 3 or len(xt) != len(order) or x1.shape[-3:] != xt.shape:
        return ALONE
    return [Class(i, i, i) for i in every], [_share(items, given) for items in every], groups


def _part(group: Group, own: ItemPermutations) -> Group:
    if not isinstance(group, Product):
        return own
    return Product(*(own if isinstance(f, ItemPermutations) else f for f in group.factors))


def _share(items: Tensor, given: Sequence[Any]) -> tuple[Any, ...]:
    """Of padded points; what is one for all items stays so."""
    x1, xt, t, mask, _, _, weights, x0, check = given
    time = t[items.to(t.device)] if isinstance(t, Tensor) and t.numel() == len(xt) else t
    some = [
        x[items.to(x.device)] if isinstance(x, Tensor) and x.ndim > 1 else x
        for x in (mask, weights, x0)
    ]
    return x1[..., items, :, :], xt[items], time, some[0], None, None, *some[1:], check
