"""Permutations of points: index tables and the symmetric group, whole or within equal labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations, product

import torch
from torch import Tensor

from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.base import Device, Group, Kind


class PointPermutation(Group):
    """A group of permutations of ``n`` points. An element is an index table ``(*S, n)``, long:

    ``act(g, x)[i] = x[g[i]]``, row i of the result is row g[i] of the points. For this to be a left
    action the product reads ``compose(g, h)[i] = h[g[i]]``. Points beyond the first ``n`` stay
    where they are.
    """

    element_ndim = 1
    axis = "points"
    n: int
    max_order: int

    def identity(
        self, shape: Sequence[int] = (), *, device: Device = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """``0 … n-1``, shape ``(*shape, n)``; ``dtype`` has no effect, tables are long."""
        return torch.arange(self.n, device=device).expand(*shape, self.n).clone()

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """``h[g]``; shapes broadcast."""
        g, h = torch.broadcast_tensors(g, h)
        return h.gather(-1, g)

    def inverse(self, g: Tensor) -> Tensor:
        """The table that undoes ``g``."""
        return torch.empty_like(g).scatter_(
            -1, g, torch.arange(g.shape[-1], device=g.device).expand_as(g)
        )

    def act(self, g: Tensor, x: Tensor, mask: Tensor | None = None, kind: Kind = "point") -> Tensor:
        """``x[g]`` along the points; ``g: (*S, n)``, ``x: (*B, N, D)``, N >= n; vectors move as
        points do. Raises ``InputError`` as ``on`` does."""
        g = self.on(g, x.shape[-2], mask)
        shape = torch.broadcast_shapes((*g.shape, 1), x.shape)
        return x.expand(shape).gather(-2, g.unsqueeze(-1).expand(shape))

    def on(self, g: Tensor, points: int, mask: Tensor | None = None) -> Tensor:
        """The tables ``g: (*S, n)`` as tables ``(*S, points)`` whose last rows stay in place.

        Raises ``InputError`` when there are fewer points than ``n``, and when ``g`` would move a
        padded row into a real one (``mask``): give the padding negative labels
        (``Permutation.restricted``), or order the points so that the padding comes last.
        """
        n = g.shape[-1]
        if points < n:
            raise InputError(f"{type(self).__name__} permutes {n} points, the input has {points}")
        if points > n:
            rest = torch.arange(n, points, device=g.device)
            g = torch.cat([g, rest.expand(*g.shape[:-1], points - n)], -1)
        if mask is not None:
            g, real = torch.broadcast_tensors(g, mask)
            if (real.gather(-1, g) != real).any():
                raise InputError(
                    "a permutation moves padded points among real ones; give padding negative"
                    " labels (Permutation(n).restricted(mask))"
                )
        return g


class Permutation(PointPermutation):
    """The symmetric group on ``n`` points, or with ``labels`` the permutations within equal labels.

    ``labels``: ``(n,)`` whole numbers (species), or ``(*B, n)`` one set per item of a batch; points
    with a negative label never move (padding). Finite (``enumerate`` works) for one set of labels
    and an order of at most ``max_order``; beyond that posteriors need ``method="gibbs"``,
    ``"mode"`` or ``"snis"``.
    >>> import torch
    >>> import orbitwise as ow
    >>> methane = ow.Permutation(5, labels=[6, 1, 1, 1, 1])
    >>> round(methane.log_order.exp().item())
    24
    >>> methane.act(torch.tensor([0, 2, 1, 3, 4]), torch.arange(5.0)[:, None]).flatten().tolist()
    [0.0, 2.0, 1.0, 3.0, 4.0]
    """

    def __init__(self, n: int, labels: Tensor | Sequence[int] | None = None, max_order: int = 5040):
        self.n, self.max_order = int(n), max_order
        if self.n < 1:
            raise InputError(f"Permutation needs n >= 1, got {n}")
        fixed = -1 - torch.arange(self.n)  # a label of its own for every point that must not move
        labels = (
            torch.zeros(self.n, dtype=torch.long) if labels is None else torch.as_tensor(labels)
        )
        if labels.is_floating_point() or labels.ndim < 1 or labels.shape[-1] != self.n:
            raise InputError(
                f"labels must be whole numbers (..., {self.n}); got {tuple(labels.shape)} of"
                f" {labels.dtype}"
            )
        self.labels = torch.where(labels < 0, fixed.to(labels.device), labels.long())
        self._finite = (  # looked at once: an accelerator has to wait for it
            self.labels.ndim == 1 and self.log_order.item() < math.log(max_order + 0.5)
        )
        self._tables: dict[torch.device, Tensor] = {}

    def __repr__(self) -> str:
        return f"Permutation({self.n}, order=exp({self.log_order.max().item():.4g}))"

    @property
    def log_order(self) -> Tensor:
        """log of the number of elements, ``(*B)`` (a scalar for one set of labels)."""
        size = (self.labels.unsqueeze(-1) == self.labels.unsqueeze(-2)).sum(-1).double()
        return (torch.lgamma(size + 1) / size).sum(-1)  # each class of size s counted s times

    @property
    def finite(self) -> bool:
        return self._finite

    def restricted(self, mask: Tensor) -> Permutation:
        """The subgroup that leaves padded points alone, item by item; ``mask: (*B, N)``, False =
        padded."""
        return Permutation(
            self.n,
            torch.where(mask[..., : self.n], self.labels.to(mask.device), -1),
            self.max_order,
        )

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Uniform tables ``(*shape, n)``; labels ``(*B, n)`` need ``shape`` to end in ``*B``."""
        batch = self.labels.shape[:-1]
        if tuple(shape[len(shape) - len(batch) :]) != tuple(batch):
            raise InputError(
                f"labels of shape {(*batch, self.n)} cannot give permutations of shape"
                f" {tuple(shape)}"
            )
        where = generator.device if generator is not None else device or self.labels.device
        keys = torch.rand((*shape, self.n), generator=generator, device=where, dtype=torch.float64)
        labels = self.labels.to(where)
        slots = labels.argsort(dim=-1, stable=True).expand(
            keys.shape
        )  # the points, class after class
        drawn = keys.argsort(-1)
        by_class = labels.expand(keys.shape).gather(-1, drawn).argsort(dim=-1, stable=True)
        drawn = drawn.gather(-1, by_class)  # the same classes in the same order, each shuffled
        return torch.empty_like(drawn).scatter_(-1, slots, drawn).to(device or where)

    def enumerate(
        self, *, device: Device = None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """All tables ``(M, n)``, the identity first, and ``-log M``. Raises ``NoClosedFormError``
        if not ``finite``."""
        if not self.finite:
            raise NoClosedFormError(
                f"{self!r} is too large to enumerate (max_order={self.max_order}) or has one set of"
                " labels per item (where all are small, take ItemPermutations.within(labels)); use"
                " method='gibbs', 'mode' or 'snis'"
            )
        where = torch.device(device or self.labels.device)
        if where not in self._tables:
            with torch.inference_mode(False):  # for later calls too, whatever their mode
                self._tables[where] = self._all().to(where)
        tables = self._tables[where].clone()  # whoever writes into them writes into his own
        weights = torch.full((len(tables),), -math.log(len(tables)), device=device, dtype=dtype)
        return tables, weights

    def _all(self) -> Tensor:
        """The tables of ``enumerate``."""
        labels = self.labels.tolist()
        classes = [
            [i for i, k in enumerate(labels) if k == label] for label in dict.fromkeys(labels)
        ]
        slots = torch.tensor([i for c in classes for i in c])
        images = torch.tensor(
            [sum(choice, ()) for choice in product(*(permutations(c) for c in classes))]
        )
        tables = torch.empty_like(images)
        tables[:, slots] = images
        return tables
