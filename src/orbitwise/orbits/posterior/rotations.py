"""The posterior over rotations (and reflections) under isotropic Gaussian noise: matrix Fisher."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.so3 import O3, SO3
from orbitwise.orbits.posterior.dispatch import exact
from orbitwise.orbits.posterior.matrix_fisher import MatrixFisher
from orbitwise.orbits.posterior.noise import square_of
from orbitwise.orbits.posterior.question import Question
from orbitwise.orbits.posterior.result import OrbitPosterior


def parameter(question: Question) -> Tensor:
    """``F`` of ``log p_t(x_t | R·x1) = base + tr(Fᵀ R)``: ``F = (alpha/sigma²) Σ_i x_{t,i}
    x_{1,i}ᵀ``, ``(*L, *B, 3, 3)``."""
    return scale_of(question)[..., None, None] * (question.xt.mT @ question.x1)


def scale_of(question: Question) -> Tensor:
    """``alpha/sigma²``, ``(*B)``."""
    if question.xt.shape[-1] != 3:
        raise InputError(
            f"SO3 and O3 act on points in 3 dimensions, these have {question.xt.shape[-1]}"
        )
    noise = question.gaussian
    return noise.alpha / noise.variance


def base_of(question: Question) -> Tensor:
    """``base`` of ``parameter``, ``(*L, *B)``, the same for all elements."""
    noise = question.gaussian
    square = square_of(question.xt) + noise.alpha.square() * square_of(question.x1)
    return noise.log_norm - 0.5 * square / noise.variance


def turn(rotation: Tensor, x: Tensor) -> Tensor:
    """``E[R]`` is no rotation, but acts like one: rows ``x -> x @ R.mT``."""
    return x @ rotation.mT


@exact.register(SO3)
def exact_so3(group: SO3, question: Question) -> OrbitPosterior:
    """Exact, from ``E[R]`` and ``c(F)``."""
    law = MatrixFisher.of(parameter(question))
    log_norm, rotation = law.moments()
    mean = turn(rotation, question.x1)
    return OrbitPosterior(
        mean=mean,
        log_evidence=lambda: base_of(question) + log_norm,
        score=lambda: question.gaussian.score(mean, question.xt),
        method="exact",
        exact=True,
        draw=law.sample,
    )


@exact.register(O3)
def exact_o3(group: O3, question: Question) -> OrbitPosterior:
    """Exact: the coset ``-SO(3)`` is matrix Fisher with ``-F``; both are mixed by their
    evidences."""
    proper = MatrixFisher.of(parameter(question))
    improper = proper.opposite()
    (log_proper, rotation), (log_improper, opposite) = proper.moments(), improper.moments()
    chance = torch.sigmoid(log_proper - log_improper)  # of the element being a rotation
    weight = chance[..., None, None]
    mean = turn(weight * rotation - (1 - weight) * opposite, question.x1)
    log_norm = torch.logaddexp(log_proper, log_improper) - math.log(2)

    def draw(K: int, generator: torch.Generator | None) -> Tensor:
        where = chance.device if generator is None else generator.device
        u = torch.rand((K, *chance.shape), generator=generator, device=where, dtype=chance.dtype)
        rotates = (u.to(chance.device) < chance)[..., None, None]
        return torch.where(rotates, proper.sample(K, generator), -improper.sample(K, generator))

    return OrbitPosterior(
        mean=mean,
        log_evidence=lambda: base_of(question) + log_norm,
        score=lambda: question.gaussian.score(mean, question.xt),
        method="exact",
        exact=True,
        draw=draw,
    )
