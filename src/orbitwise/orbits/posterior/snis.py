"""Self-normalised importance sampling with uniform proposals: the estimator of the literature."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from orbitwise.groups.base import Element, Group
from orbitwise.groups.permutation import Permutation
from orbitwise.groups.product import Product
from orbitwise.groups.so3 import SO3
from orbitwise.orbits.posterior.dispatch import snis
from orbitwise.orbits.posterior.question import Question, Sampling
from orbitwise.orbits.posterior.result import OrbitPosterior, map_element
from orbitwise.orbits.posterior.rotations import base_of, parameter, turn
from orbitwise.orbits.posterior.sums import Clouds, categorical, fixed_point, sum_over


def propose(group: Group, x1: Tensor, sampling: Sampling) -> Element:
    """Haar elements ``(proposals, *B, *E)``, the first of them the identity if asked for."""
    shape = (sampling.proposals, *x1.shape[:-2])
    g = group.sample(shape, generator=sampling.generator, device=x1.device, dtype=x1.dtype)
    if not sampling.include_identity:
        return g
    first = group.identity((1, *shape[1:]), device=x1.device, dtype=x1.dtype)
    flat, start = iter(_leaves(g)), iter(_leaves(first))
    return map_element(lambda _: torch.cat([next(start), next(flat)[1:]]), g)


def _leaves(g: Element) -> list[Tensor]:
    return [leaf for part in g for leaf in _leaves(part)] if isinstance(g, tuple) else [g]


@snis.register(Group)
def snis_by_images(group: Group, question: Question, sampling: Sampling) -> OrbitPosterior:
    """Any group with a uniform distribution, as published: images of ``x1`` compared with
    ``x_t``."""
    g = propose(group, question.x1, sampling)
    uniform = question.x1.new_full((sampling.proposals,), -math.log(sampling.proposals))
    return estimate(group, g, uniform, question)


def estimate(group: Group, g: Element, log_weights: Tensor, question: Question) -> OrbitPosterior:
    """The posterior over proposed elements ``g: (proposals, *B, *E)`` with weights before ``x_t``
    is looked at: ``log_weights: (proposals)`` or ``(proposals, *B)``, uniform or 1 / (proposals ×
    proposal density)."""
    x1 = question.x1
    batch = x1.ndim - 2

    def at(index: Tensor) -> Element:
        return map_element(lambda part: torch.take_along_dim(part, _beside(index, part), 0), g)

    def _beside(index: Tensor, part: Tensor) -> Tensor:
        return index.reshape(*index.shape, *[1] * (part.ndim - 1 - batch))

    clouds = Clouds(
        x1.shape,
        log_weights,
        pick=lambda index: group.act(at(index), x1, mask=question.mask),
        label=lambda index, _: at(index),
    )
    return sum_over(clouds, lambda x: fixed_point(question.about(x)), question, method="snis")


@snis.register(Product)
def snis_product(group: Product, question: Question, sampling: Sampling) -> OrbitPosterior:
    """Uniform elements of every factor; permutations only of real points."""
    if question.mask is not None:
        restricted = (
            f.restricted(question.mask) if isinstance(f, Permutation) else f for f in group.factors
        )
        group = Product(*restricted)
    return snis_by_images(group, question, sampling)


@snis.register(SO3)
def snis_rotations(group: SO3, question: Question, sampling: Sampling) -> OrbitPosterior:
    """SO3 and O3: the same estimate with the weights taken from the 3×3 matrix ``F``, much
    cheaper."""
    F = parameter(question)
    g = propose(group, question.x1, sampling)
    logits = torch.einsum("k...ij,...ij->k...", g, F)
    weights = torch.softmax(logits, 0)
    mean = turn(torch.einsum("k...,k...ij->...ij", weights, g), question.x1)

    def draw(K: int, generator: torch.Generator | None) -> Tensor:
        return torch.take_along_dim(g, categorical(weights, K, generator)[..., None, None], 0)

    return OrbitPosterior(
        mean=mean,
        log_evidence=lambda: (
            base_of(question) + torch.logsumexp(logits, 0) - math.log(sampling.proposals)
        ),
        score=lambda: question.gaussian.score(mean, question.xt),
        method="snis",
        exact=False,
        draw=draw,
        ess=1 / weights.square().sum(0),
    )
