"""Importance sampling over periodic translations with proposals near the shift that made x_t, as in
DiffCSP with Orbit Diffusion (2502.09890, C.2; its class "wrapped normal")."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.base import Group
from orbitwise.groups.torus import PeriodicTranslation, wrap, wrapped_normal
from orbitwise.orbits.posterior.result import OrbitPosterior
from orbitwise.orbits.posterior.snis import estimate


def snis_near(
    group: Group,
    process,
    x1: Tensor,
    xt: Tensor,
    t: Tensor,
    mask: Tensor | None = None,
    *,
    width: float,
    proposals: int = 256,
    include_identity: bool = False,
    generator: torch.Generator | None = None,
) -> OrbitPosterior:
    """Shifts ``s ~ WN(0, (width σ)²)`` on every axis with weights ``p_t(x_t | x1 + s) / q(s)``.

    ``x1`` must be the very points that ``x_t`` was made from: the proposals lie around its own
    position, which is the first of them with ``include_identity`` (as published, with ``width=2``).
    The estimate then depends on that position, which is to be averaged away; by how much its mean
    over many ``x_t`` is off is not known in closed form.
    """
    if not isinstance(group, PeriodicTranslation) or not hasattr(process, "wrapped_sigma"):
        raise InputError(
            "proposal_width is for PeriodicTranslation under wrapped-normal noise"
            f" (WrappedNormalProcess), not for {group!r} with {type(process).__name__}; leave it"
            " out for uniform proposals"
        )
    if not 0 < width < math.inf:
        raise InputError(
            f"proposal_width must be a positive number (in units of sigma), not {width}"
        )
    batch = x1.shape[:-2]
    spread = (width * process.wrapped_sigma(t)).unsqueeze(-1)  # (*B, 1)
    where = x1.device if generator is None else generator.device
    noise = torch.randn(
        (proposals, *batch, group.dim), generator=generator, device=where, dtype=x1.dtype
    )
    shift = spread * noise.to(x1.device)
    if include_identity:
        shift[0] = 0.0
    log_q = wrapped_normal(shift, spread).log_density.sum(-1)
    return estimate(group, wrap(shift), -log_q - math.log(proposals), process, x1, xt, t, mask)
