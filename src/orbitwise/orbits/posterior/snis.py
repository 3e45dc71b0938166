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
from orbitwise.orbits.posterior.noise import Gaussian, noise_of
from orbitwise.orbits.posterior.result import OrbitPosterior, map_element
from orbitwise.orbits.posterior.rotations import parameter, turn
from orbitwise.orbits.posterior.sums import Clouds, categorical, fixed_point, sum_over


def propose(group: Group, x1: Tensor, proposals: int, include_identity: bool, generator):
    """Haar elements ``(proposals, *B, *E)``, the first of them the identity if asked for."""
    shape = (proposals, *x1.shape[:-2])
    g = group.sample(shape, generator=generator, device=x1.device, dtype=x1.dtype)
    if not include_identity:
        return g
    first = group.identity((1, *shape[1:]), device=x1.device, dtype=x1.dtype)
    flat, start = iter(_leaves(g)), iter(_leaves(first))
    return map_element(lambda _: torch.cat([next(start), next(flat)[1:]]), g)


def _leaves(g) -> list[Tensor]:
    return [leaf for part in g for leaf in _leaves(part)] if isinstance(g, tuple) else [g]


@snis.register(Group)
def snis_by_images(
    group: Group,
    process,
    x1: Tensor,
    xt: Tensor,
    t: Tensor,
    mask: Tensor | None = None,
    *,
    proposals: int = 256,
    include_identity: bool = False,
    generator: torch.Generator | None = None,
) -> OrbitPosterior:
    """Any group with a uniform distribution, as published: images of ``x1`` compared with
    ``x_t``."""
    g = propose(group, x1, proposals, include_identity, generator)
    uniform = torch.full((proposals,), -math.log(proposals), dtype=x1.dtype, device=x1.device)
    return estimate(group, g, uniform, process, x1, xt, t, mask)


def estimate(
    group: Group,
    g: Element,
    log_weights: Tensor,
    process,
    x1: Tensor,
    xt: Tensor,
    t: Tensor,
    mask: Tensor | None,
) -> OrbitPosterior:
    """The posterior over proposed elements ``g: (proposals, *B, *E)`` with weights before ``x_t``
    is looked at: ``log_weights: (proposals)`` or ``(proposals, *B)``, uniform or 1 / (proposals ×
    proposal density)."""
    batch = len(x1.shape) - 2

    def at(index: Tensor) -> Element:
        return map_element(lambda part: torch.take_along_dim(part, _beside(index, part), 0), g)

    def _beside(index: Tensor, part: Tensor) -> Tensor:
        return index.reshape(*index.shape, *[1] * (part.ndim - 1 - batch))

    clouds = Clouds(
        x1.shape,
        log_weights,
        pick=lambda index: group.act(at(index), x1, mask=mask),
        label=lambda index, _: at(index),
    )
    inner = lambda x: fixed_point(process, x, xt, t, mask)  # noqa: E731
    return sum_over(clouds, inner, noise_of(process, xt, t, mask), xt, method="snis")


@snis.register(Product)
def snis_product(
    group: Product,
    process,
    x1: Tensor,
    xt: Tensor,
    t: Tensor,
    mask: Tensor | None = None,
    *,
    proposals: int = 256,
    include_identity: bool = False,
    generator: torch.Generator | None = None,
) -> OrbitPosterior:
    """Uniform elements of every factor; permutations only of real points."""
    if mask is not None:
        restricted = (
            f.restricted(mask) if isinstance(f, Permutation) else f for f in group.factors
        )
        group = Product(*restricted)
    options = {"proposals": proposals, "include_identity": include_identity, "generator": generator}
    return snis_by_images(group, process, x1, xt, t, mask, **options)


@snis.register(SO3)
def snis_rotations(
    group: SO3,
    process,
    x1: Tensor,
    xt: Tensor,
    t: Tensor,
    mask: Tensor | None = None,
    *,
    proposals: int = 256,
    include_identity: bool = False,
    generator: torch.Generator | None = None,
) -> OrbitPosterior:
    """SO3 and O3: the same estimate with the weights taken from the 3×3 matrix ``F``, much
    cheaper."""
    noise = Gaussian.of(process, xt, t, mask)
    F, base = parameter(noise, x1, xt)
    g = propose(group, x1, proposals, include_identity, generator)
    logits = torch.einsum("k...ij,...ij->k...", g, F)
    weights = torch.softmax(logits, 0)
    mean = turn(torch.einsum("k...,k...ij->...ij", weights, g), x1)

    def draw(K: int, generator: torch.Generator | None) -> Tensor:
        return torch.take_along_dim(g, categorical(weights, K, generator)[..., None, None], 0)

    return OrbitPosterior(
        mean,
        base + torch.logsumexp(logits, 0) - math.log(proposals),
        noise.score(mean, xt),
        "snis",
        False,
        draw,
        1 / weights.square().sum(0),
    )
