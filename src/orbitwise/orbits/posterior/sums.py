"""Finite outer sums: the evidences of an inner posterior weigh the clouds of a finite set.

    E[g·x1 | x_t] = Σ_h w_h E_inner[· | h·x1],     w_h ∝ prior(h) · evidence_inner(h·x1)

The set holds the images of x1 under a finite group, reference conformers, or random images
(importance sampling); the inner posterior is that of the other factor of a product, or of the
trivial group.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.groups.base import Element
from orbitwise.groups.item_permutations import entries
from orbitwise.orbits.posterior.question import Question
from orbitwise.orbits.posterior.result import Draw, Method, OrbitPosterior, map_element

MEMORY = (
    2**25
)  # bytes of working memory that one chunk of an outer sum may take: more is slower on a CPU

Inner = Callable[[Tensor], OrbitPosterior]  # clouds (S, *B, N, D) -> posterior with batch (S, *B)


@dataclass(frozen=True)
class Clouds:
    """A finite set of ``M`` clouds per item.

    ``shape``: ``(*B, N, D)`` of one cloud per item; ``log_prior: (M)``, or one of its own for every
    item ``(M, *B)`` (any number of the last axes of ``*B``; -inf for a cloud that an item does not
    have). ``pick``: indices ``(S, *B)`` (or with ones for ``*B``) to clouds ``(S, *B, N, D)``.
    ``label``: indices ``(K, *B)`` and inner elements ``(K, *B, *E)`` to the elements that
    ``sample`` returns.
    """

    shape: torch.Size
    log_prior: Tensor
    pick: Callable[[Tensor], Tensor]
    label: Callable[[Tensor, Element], Element]

    def prior(self, index: Tensor) -> Tensor:
        """``log_prior`` of the clouds at ``index: (S, *B)`` (or with ones for ``*B``)."""
        return entries(self.log_prior, index, 0)

    def chunks(self) -> list[Tensor]:
        """All indices in pieces ``(S, 1, …)`` whose clouds and inner posteriors stay within
        ``MEMORY``."""
        *batch, points, space = self.shape
        each = (
            8 * math.prod(batch) * (6 * points * space + 640)
        )  # clouds, and the nodes of a quadrature
        step = max(1, MEMORY // max(each, 1))
        indices = torch.arange(len(self.log_prior), device=self.log_prior.device)
        return [index.view(-1, *[1] * len(batch)) for index in indices.split(step)]


def fixed_point(question: Question) -> OrbitPosterior:
    """The posterior of the trivial group."""
    noise, xt = question.noise, question.xt
    log_density, mean = noise.at(xt, question.x1)
    return OrbitPosterior(
        mean=mean,
        log_evidence=log_density,
        score=lambda: noise.score(mean, xt),
        method="exact",
        exact=True,
        draw=lambda K, generator: None,
    )


def sum_over(
    clouds: Clouds, inner: Inner, question: Question, method: Method = "exact"
) -> OrbitPosterior:
    """The posterior of the mixture; exact where the inner one and the set are. ``ess`` counts
    clouds."""
    xt = question.xt
    peak = torch.full(
        clouds.shape[:-2], torch.finfo(xt.dtype).min, dtype=xt.dtype, device=xt.device
    )
    mass, mean, logits = torch.zeros_like(peak), torch.zeros(clouds.shape).to(xt), []
    for index in clouds.chunks():  # a running softmax
        part = inner(clouds.pick(index))
        logits.append(part.log_evidence + clouds.prior(index))
        top = logits[-1].amax(0).maximum(peak)
        weight, decay = torch.exp(logits[-1] - top), torch.exp(peak - top)
        mass = decay * mass + weight.sum(0)
        mean = decay[..., None, None] * mean + torch.einsum("s...,s...nd->...nd", weight, part.mean)
        peak = top
    mean = mean / mass[..., None, None]
    weights = torch.softmax(torch.cat(logits), 0)

    return OrbitPosterior(
        mean=mean,
        log_evidence=peak + torch.log(mass),
        score=lambda: question.noise.score(mean, xt),
        method=method,
        exact=method == "exact",
        draw=draws(clouds, inner, weights),
        ess=1 / weights.square().sum(0),
    )


def draws(clouds: Clouds, inner: Inner, weights: Tensor) -> Draw:
    """``OrbitPosterior.draw`` of a mixture with ``weights: (M, *B)``: a cloud, then an element of
    its posterior."""

    def draw(K: int, generator: torch.Generator | None) -> Element:
        index = categorical(weights, K, generator)
        g = inner(clouds.pick(index)).sample(1, generator)
        return clouds.label(index, map_element(lambda part: part[0], g))

    return draw


def best_of(clouds: Clouds, inner: Inner) -> OrbitPosterior:
    """The most probable cloud with the most probable inner element; ``inner`` gives modes."""
    logits = [
        inner(clouds.pick(index)).log_evidence + clouds.prior(index) for index in clouds.chunks()
    ]
    best = torch.cat(logits).argmax(0)[None]
    part = inner(clouds.pick(best))

    def draw(K: int, generator: torch.Generator | None) -> Element:
        index = best.expand(K, *best.shape[1:])
        return clouds.label(index, map_element(lambda g: g[:, 0], part.sample(K, generator)))

    return OrbitPosterior(
        mean=part.mean[0],
        log_evidence=part.log_evidence[0],
        score=lambda: part.score[0],
        method="mode",
        exact=False,
        draw=draw,
    )


def categorical(weights: Tensor, K: int, generator: torch.Generator | None) -> Tensor:
    """``K`` indices per item, ``(K, *B)``, from ``weights: (M, *B)``."""
    where = weights.device if generator is None else generator.device
    flat = weights.reshape(len(weights), -1).mT.to(where)
    index = torch.multinomial(flat, K, replacement=True, generator=generator)
    return index.mT.reshape(K, *weights.shape[1:]).to(weights.device)
