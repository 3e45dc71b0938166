"""Importance sampling over periodic translations with proposals near the shift that made x_t, as in
DiffCSP with Orbit Diffusion (2502.09890, C.2; its class "wrapped normal")."""

from __future__ import annotations

import math

import torch

from orbitwise.errors import InputError
from orbitwise.groups.base import Group
from orbitwise.groups.torus import PeriodicTranslation, wrap, wrapped_normal
from orbitwise.orbits.posterior.noise import Wrapped
from orbitwise.orbits.posterior.question import Question, Sampling
from orbitwise.orbits.posterior.result import OrbitPosterior
from orbitwise.orbits.posterior.snis import estimate


def snis_near(group: Group, question: Question, sampling: Sampling) -> OrbitPosterior:
    """Shifts ``s ~ WN(0, (width σ)²)`` on every axis with weights ``p_t(x_t | x1 + s) / q(s)``.

    ``x1`` must be the very points that ``x_t`` was made from: the proposals lie around its own
    position, which is the first of them with ``include_identity`` (as published, with ``width=2``).
    The estimate then depends on that position, which is to be averaged away; by how much its mean
    over many ``x_t`` is off is not known in closed form.
    """
    noise, x1, width = question.noise, question.x1, sampling.proposal_width
    if not isinstance(group, PeriodicTranslation) or not isinstance(noise, Wrapped):
        raise InputError(
            "proposal_width is for PeriodicTranslation under wrapped-normal noise"
            f" (WrappedNormalProcess), not for {group!r} with {type(question.process).__name__};"
            " leave it out for uniform proposals"
        )
    if width is None or not 0 < width < math.inf:
        raise InputError(
            f"proposal_width must be a positive number (in units of sigma), not {width}"
        )
    batch = x1.shape[:-2]
    spread = (width * noise.sigma).unsqueeze(-1)  # (*B, 1)
    where = x1.device if sampling.generator is None else sampling.generator.device
    shape = (sampling.proposals, *batch, group.dim)
    normal = torch.randn(shape, generator=sampling.generator, device=where, dtype=x1.dtype)
    shift = spread * normal.to(x1.device)
    if sampling.include_identity:
        shift[0] = 0.0
    log_q = wrapped_normal(shift, spread).log_density.sum(-1)
    return estimate(group, wrap(shift), -log_q - math.log(sampling.proposals), question)
