"""The one public entrance: the posterior over a symmetry group given a noised sample."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.base import Group
from orbitwise.orbits import dispatch
from orbitwise.orbits.result import OrbitPosterior

Method = Literal["exact", "snis", "mode", "gibbs"]


@torch.no_grad()
def orbit_posterior(
    group: Group,
    process,
    x1: Tensor,
    xt: Tensor,
    t: Tensor | float,
    mask: Tensor | None = None,
    method: Method = "exact",
    *,
    proposals: int = 256,
    generator: torch.Generator | None = None,
    log_weights: Tensor | None = None,
) -> OrbitPosterior:
    """The posterior ``p(g | x_t, x1) ∝ p_t(x_t | g·x1) dμ(g)``."""
    if method == "exact":
        return dispatch.exact(group, process, x1, xt, t, mask)
    if method == "mode":
        return dispatch.mode(group, process, x1, xt, t, mask)
    if method == "gibbs":
        return dispatch.gibbs(group, process, x1, xt, t, mask, proposals=proposals, generator=generator)
    raise InputError(f"method {method!r} is none of 'exact', 'snis', 'mode', 'gibbs'")
