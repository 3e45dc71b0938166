"""Rotations times finitely many permutations of points: one matrix Fisher law for every
permutation, and those that cannot matter left out.

    F_h = (alpha/sigma²) Σ_i x_{t,i} x_{1,h(i)}ᵀ,    w_h ∝ prior(h) c(F_h),
    E[g·x1 | x_t]_i = Σ_h w_h E_h[R] x_{1,h(i)}

The largest root of ``many_rotations`` bounds ``log c(F_h)`` from above. A permutation is left out
where that bound lies below the evidence of another one by so much that all those of an item
together hold less than ``LEFT_OUT`` of its evidence.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from orbitwise.groups.base import Group
from orbitwise.groups.permutation import PointPermutation
from orbitwise.groups.so3 import O3, SO3
from orbitwise.orbits.posterior.dispatch import exact
from orbitwise.orbits.posterior.finite import summed
from orbitwise.orbits.posterior.many_rotations import Fishers
from orbitwise.orbits.posterior.matrix_fisher import MatrixFisher
from orbitwise.orbits.posterior.question import Question
from orbitwise.orbits.posterior.result import OrbitPosterior
from orbitwise.orbits.posterior.rotations import base_of, scale_of
from orbitwise.orbits.posterior.sums import Clouds, draws

LEFT_OUT = 1e-17  # share of the evidence, below what float64 resolves
SLACK = 3e-5  # relative, for the rounding of a largest root that is nearly a triple one
LAWS = 2**14  # at a time


@summed.register
def summed_rotations(
    inside: SO3, outside: Group, clouds: Clouds, question: Question
) -> OrbitPosterior:
    """The exact posterior over ``inside`` × ``outside``: permutations as above, other groups image
    by image, as all are where nothing may be looked at (``check=False`` on an accelerator)."""
    looks = question.check or question.x1.device.type == "cpu"
    if not looks or not isinstance(outside, PointPermutation):
        return summed.dispatch(Group)(inside, outside, clouds, question)

    x1, mask = question.x1, question.mask
    batch, points = x1.shape[:-2], x1.shape[-2]
    scale = scale_of(question)
    xt = (scale[..., None, None] * question.xt).expand(x1.shape).reshape(-1, points, 3)
    tables, log_haar = outside.enumerate(device=x1.device, dtype=x1.dtype)
    if mask is not None:
        _keep_padding_apart(outside, tables, points, mask)
    renamings = _renamings(tables, log_haar, points)
    step = max(1, LAWS // len(tables))
    parts = [
        _over_both(renamings, item, xt[item], x1.reshape(xt.shape)[item], isinstance(inside, O3))
        for item in torch.arange(len(xt), device=xt.device).split(step)
    ]

    mean, log_norm, weights = (torch.cat(part, -1) for part in zip(*parts, strict=True))
    mean = mean.movedim(-1, 0).reshape(x1.shape)
    return OrbitPosterior(
        mean=mean,
        log_evidence=lambda: base_of(question) + log_norm.reshape(batch),
        score=lambda: question.gaussian.score(mean, question.xt),
        method="exact",
        exact=True,
        draw=draws(clouds, lambda x: exact(inside, question.about(x)), weights.view(-1, *batch)),
        ess=1 / weights.square().sum(0).reshape(batch),
    )


class Renamings(Protocol):
    """Permutations of items; a law for each that an item has."""

    images: int

    def laws(self, item: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the items ``(s)`` the permutation, the place among ``item`` and the log prior of each
        law, all ``(T)``."""

    def parameters(self, item: Tensor, xt: Tensor, x1: Tensor) -> Tensor:
        """``Σ_i x_{t,i} x_{1,h(i)}ᵀ``, ``(9, T)``."""

    def mean(self, item: Tensor, turns: Tensor, x1: Tensor) -> Tensor:
        """``Σ_h turns_h x_{1,h(i)}``, ``(s, N, 3)``; ``turns: (9, T)``."""


def _over_both(
    renamings: Renamings, item: Tensor, xt: Tensor, x1: Tensor, reflections: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``(N, 3, s)``, log evidence ``(s)`` and weights ``(images, s)`` of the items."""
    image, place, prior = renamings.laws(item)
    F, number = renamings.parameters(item, xt, x1), len(prior)
    owner = place
    if reflections:  # the coset of -R, which is matrix Fisher with -F
        F, owner = torch.cat([F, -F], 1), torch.cat([place, place])
        prior = torch.cat([prior, prior]) - math.log(2)
    laws = Fishers.of(F)
    kept = _that_matter(laws, owner, prior, len(item))
    whole = len(kept) == len(owner)
    log_norm, turns = _moments(laws if whole else laws[kept])

    logits, owner = log_norm + prior[kept], owner[kept]
    peak = _most(logits, owner, len(item))
    mass = torch.exp(logits - peak[owner])
    total = torch.zeros_like(peak).index_add_(0, owner, mass)
    share = mass / total[owner]
    turns *= torch.where(kept < number, share, -share)
    if not whole or reflections:
        turns = turns.new_zeros(9, number).index_add_(1, kept % number, turns)
        share = share.new_zeros(number).index_add_(0, kept % number, share)
    weights = share.new_zeros(renamings.images, len(item))
    weights[image, place] = share
    mean = renamings.mean(item, turns, x1)
    return mean.movedim(0, -1), peak + total.log(), weights


def _that_matter(laws: Fishers, owner: Tensor, prior: Tensor, items: int) -> Tensor:
    """Which laws ``(T)`` can hold more than their part of ``LEFT_OUT``."""
    bound = laws.top * (1 + SLACK) + prior
    best = (bound == _most(bound, owner, items)[owner]).nonzero()[:, 0]
    reached = _most(_moments(laws[best])[0] + prior[best], owner[best], items)
    number = torch.bincount(owner, minlength=items).double()
    least = reached + math.log(LEFT_OUT) - number.log()
    return (bound >= least[owner]).nonzero()[:, 0]


def _most(values: Tensor, owner: Tensor, items: int) -> Tensor:
    """The largest of each item, ``(items)``."""
    least = values.new_full((items,), -torch.inf)
    return least.scatter_reduce_(0, owner, values, "amax")


def _moments(laws: Fishers) -> tuple[Tensor, Tensor]:
    """``log c(F): (T)`` and ``E[R]: (9, T)``, the hard ones by quadrature."""
    log_norm, turns, sure = laws.moments()
    hard = (~sure).nonzero()[:, 0]
    if len(hard):
        exactly, rotation = MatrixFisher.of(laws.F[:, hard].mT.unflatten(-1, (3, 3))).moments()
        log_norm = log_norm.index_copy(0, hard, exactly)
        turns = turns.index_copy(1, hard, rotation.flatten(-2).mT)
    return log_norm, turns


def _keep_padding_apart(group: PointPermutation, tables: Tensor, points: int, mask: Tensor) -> None:
    """Raises ``InputError`` where padded points come among real ones."""
    if tables.ndim == 2:  # all items alike: the pairs of points tell
        i, j = _pairs(tables)
        if (mask[..., i] == mask[..., j]).all():
            return
        tables = tables.view(len(tables), *[1] * (mask.ndim - 1), -1)
    group.on(tables, points, mask)


def _pairs(tables: Tensor) -> tuple[Tensor, Tensor]:
    """``i`` and ``j`` of all pairs for which an element brings j to i, where i ever moves."""
    n = tables.shape[-1]
    meets = torch.zeros(n, n, dtype=torch.bool, device=tables.device)
    meets[torch.arange(n, device=tables.device).expand_as(tables), tables] = True
    moves = meets.sum(-1) > 1
    i, j = (meets & moves[:, None]).nonzero().unbind(-1)
    return i, j


class SharedRenamings:
    """One group for all items. ``F_h`` is a sum over the pairs that h makes: a matrix product."""

    def __init__(self, tables: Tensor, log_prior: Tensor, points: int):
        self.images, self.log_prior = len(tables), log_prior
        self.i, self.j = _pairs(tables)
        self.makes = (tables[:, self.i] == self.j).to(log_prior)  # (M, P)
        self.stay = torch.ones(points, dtype=torch.bool, device=tables.device)
        self.stay[self.i] = False

    def laws(self, item: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image = torch.arange(self.images, device=item.device).repeat_interleave(len(item))
        place = torch.arange(len(item), device=item.device).repeat(self.images)
        return image, place, self.log_prior.repeat_interleave(len(item))

    def parameters(self, item: Tensor, xt: Tensor, x1: Tensor) -> Tensor:
        of_pairs = xt[:, self.i, :, None] * x1[:, self.j, None, :]
        of_rest = xt[:, self.stay].mT @ x1[:, self.stay]
        F = self.makes @ of_pairs.flatten(-2).permute(2, 1, 0) + of_rest.flatten(1).mT[:, None]
        return F.flatten(1)

    def mean(self, item: Tensor, turns: Tensor, x1: Tensor) -> Tensor:
        turns = turns.unflatten(1, (self.images, len(item)))
        of_all = turns.sum(1).mT.unflatten(-1, (3, 3))
        mean = torch.where(self.stay[:, None], x1 @ of_all.mT, 0.0)
        of_pairs = (self.makes.mT @ turns).permute(2, 1, 0).unflatten(-1, (3, 3))
        return mean.index_add(1, self.i, (of_pairs @ x1[:, self.j, :, None])[..., 0])


class OwnRenamings:
    """A group for each item, of orders as different as they are: a list of all (item, element)."""

    def __init__(self, tables: Tensor, log_prior: Tensor, points: int):
        self.images = len(tables)
        self.tables, self.log_prior = tables.flatten(1, -2), log_prior.flatten(1)
        self.rest = torch.arange(tables.shape[-1], points, device=tables.device)

    def laws(self, item: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        prior = self._of(self.log_prior, item)
        image, place = (prior > -torch.inf).nonzero().unbind(-1)
        return image, place, prior[image, place]

    def parameters(self, item: Tensor, xt: Tensor, x1: Tensor) -> Tensor:
        moved, place = self._moved(item, x1)
        return (xt[place].mT @ moved).flatten(1).mT.contiguous()

    def mean(self, item: Tensor, turns: Tensor, x1: Tensor) -> Tensor:
        moved, place = self._moved(item, x1)
        turned = moved @ turns.mT.unflatten(-1, (3, 3)).mT
        return torch.zeros_like(x1).index_add_(0, place, turned)

    def _moved(self, item: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
        """``x_{1,h(i)}``, ``(T, N, 3)``, and the place of its item."""
        image, place, _ = self.laws(item)
        table = self._of(self.tables, item)[image, place]
        table = torch.cat([table, self.rest.expand(len(table), -1)], 1)
        return x1[place[:, None], table], place

    @staticmethod
    def _of(table: Tensor, item: Tensor) -> Tensor:
        """Conformers stand before the items."""
        return table[:, item % table.shape[1]]


def _renamings(tables: Tensor, log_prior: Tensor, points: int) -> Renamings:
    kind = SharedRenamings if tables.ndim == 2 else OwnRenamings
    return kind(tables, log_prior, points)
