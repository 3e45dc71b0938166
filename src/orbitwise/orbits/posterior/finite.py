"""Finite groups (enumerate), products with a finite factor, and finite sets of reference
conformers."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

import torch
from torch import Tensor

from orbitwise.errors import NoClosedFormError
from orbitwise.groups.base import Element, Group, Ndim
from orbitwise.groups.item_permutations import entries
from orbitwise.groups.permutation import PointPermutation
from orbitwise.groups.product import Product
from orbitwise.groups.torus import PeriodicTranslation
from orbitwise.orbits.posterior.dispatch import exact, mode
from orbitwise.orbits.posterior.noise import WrappedProcess
from orbitwise.orbits.posterior.question import Question
from orbitwise.orbits.posterior.result import OrbitPosterior
from orbitwise.orbits.posterior.sums import Clouds, best_of, fixed_point, sum_over
from orbitwise.orbits.posterior.torus.gibbs import mode_torus_permutations
from orbitwise.orbits.posterior.torus.permutations import sum_over_permutations


def images(
    group: Group, question: Question, label: Callable[[Element, Element], Element]
) -> Clouds:
    """The images of ``x1`` under all elements of a finite group; ``label`` makes an element of the
    whole from this group's and the inner one. A group may differ from item to item
    (``ItemPermutations``)."""
    x1 = question.x1
    table, log_haar = group.enumerate(device=x1.device, dtype=x1.dtype)

    def at(index: Tensor) -> Element:
        return _elements(table, index, group.element_ndim)

    return Clouds(
        x1.shape,
        log_haar,
        pick=lambda index: group.act(at(index), x1, mask=question.mask),
        label=lambda index, inner: label(at(index), inner),
    )


def _elements(table: Element, index: Tensor, element_ndim: Ndim) -> Element:
    """The entries of enumerated elements, for products part by part."""
    if isinstance(element_ndim, tuple):
        return tuple(_elements(part, index, n) for part, n in zip(table, element_ndim, strict=True))
    return entries(table, index, element_ndim)


@exact.register(Group)
def exact_finite(group: Group, question: Question) -> OrbitPosterior:
    """Any group that can be enumerated."""
    if not group.finite:
        raise NoClosedFormError(
            f"no closed form is known for the posterior over {group!r}, and it cannot be"
            " enumerated; use method='snis', or for permutations 'gibbs' or 'mode'"
        )
    clouds = images(group, question, lambda g, _: g)
    return sum_over(clouds, lambda x: fixed_point(question.about(x)), question)


@mode.register(Group)
def mode_finite(group: Group, question: Question) -> OrbitPosterior:
    """The most probable element of a group that can be enumerated."""
    if not group.finite:
        raise NoClosedFormError(
            f"no way to the mode over {group!r} is known; use method='exact' or 'snis'"
        )
    clouds = images(group, question, lambda g, _: g)
    return best_of(clouds, lambda x: fixed_point(question.about(x)))


@singledispatch
def summed(inside: Group, outside: Group, clouds: Clouds, question: Question) -> OrbitPosterior:
    """The exact posterior over ``inside`` × the finite ``outside``, whose images of ``x1`` are the
    ``clouds``."""
    return sum_over(clouds, lambda x: exact(inside, question.about(x)), question)


@summed.register
def summed_on_the_torus(
    inside: PeriodicTranslation, outside: Group, clouds: Clouds, question: Question
) -> OrbitPosterior:
    """Permutations of points share the nodes of the shifts; other groups are summed over as
    usual."""
    if isinstance(outside, PointPermutation):
        return sum_over_permutations(inside, outside, clouds, question)
    return summed.dispatch(Group)(inside, outside, clouds, question)


@exact.register(Product)
def exact_product(group: Product, question: Question) -> OrbitPosterior:
    """One factor in closed form, the finite other one summed over."""
    inside, outside, clouds = split(group, question)
    return summed(inside, outside, clouds, question)


@mode.register(Product)
def mode_product(group: Product, question: Question) -> OrbitPosterior:
    """The best over the finite factor of the other's mode; with permutations that cannot be
    enumerated on the torus, the best that a search finds."""
    if len(group.factors) == 2 and not any(factor.finite for factor in group.factors):
        return mode_torus_permutations(group, question)
    inside, _, clouds = split(group, question)
    return best_of(clouds, lambda x: mode(inside, question.about(x)))


def split(group: Product, question: Question) -> tuple[Group, Group, Clouds]:
    """The factor to solve in closed form, the other one, and the images of ``x1`` under that."""
    if len(group.factors) == 1:
        x1 = question.x1
        one = torch.zeros(1, dtype=x1.dtype, device=x1.device)
        alone = Clouds(x1.shape, one, lambda index: x1[None], lambda index, g: (g,))
        return group.factors[0], group, alone
    first, second = group.factors
    if second.finite:
        return first, second, images(second, question, lambda h, g: (g, h))
    if first.finite:
        return second, first, images(first, question, lambda h, g: (h, g))
    kinds = {PeriodicTranslation, PointPermutation}
    chains = isinstance(question.process, WrappedProcess) and all(
        any(isinstance(factor, kind) for factor in group.factors) for kind in kinds
    )
    raise NoClosedFormError(
        f"{group!r}: a product has a closed form when one factor has one and the other is finite;"
        " here neither can be enumerated; use method="
        + ("'gibbs' (chains) or 'mode'" if chains else "'snis', or a subgroup that can be")
    )


def conformers(x1: Tensor, log_prior: Tensor) -> Clouds:
    """Reference conformers ``x1: (C, *B, N, D)`` with prior log-weights ``(C)``."""
    return Clouds(
        x1.shape[1:],
        log_prior,
        pick=lambda index: torch.take_along_dim(x1, index[..., None, None], 0),
        label=lambda index, g: (index, g),
    )
