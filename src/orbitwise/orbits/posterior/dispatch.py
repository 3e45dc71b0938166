"""Which code solves which group: generic functions, one registration per group in the file that
solves it.

A solver gets checked input, all in float64: ``xt: (*B, N, D)``, ``x1: (*L, *B, N, D)`` with any
number of extra leading axes ``L`` (finite outer sums), ``t: (*B)``, ``mask: (*B, N)`` or None;
padded rows of both clouds are 0, and both are centred when ``process.zero_com``. It returns an
``OrbitPosterior`` whose fields have the batch ``(*L, *B)``, still in float64 (``orbit_posterior``
converts back to the dtype of the input).
"""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from orbitwise.errors import NoClosedFormError
from orbitwise.groups.base import Group
from orbitwise.orbits.posterior.result import OrbitPosterior


@singledispatch
def exact(
    group: Group, process, x1: Tensor, xt: Tensor, t: Tensor, mask: Tensor | None = None
) -> OrbitPosterior:
    """The exact posterior."""
    raise NoClosedFormError(f"{type(group).__name__} has no closed form here; use method='snis'")


@singledispatch
def mode(
    group: Group, process, x1: Tensor, xt: Tensor, t: Tensor, mask: Tensor | None = None
) -> OrbitPosterior:
    """The posterior concentrated on its most probable element (alignment): biased at every noise
    level."""
    raise NoClosedFormError(
        f"no known mode for {type(group).__name__}; use method='exact' or 'snis'"
    )


@singledispatch
def snis(
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
    """Self-normalised importance sampling from Haar proposals: biased, O(1/proposals)."""
    raise NoClosedFormError(
        f"{type(group).__name__} has no uniform distribution; use method='exact'"
    )


@singledispatch
def gibbs(
    group: Group,
    process,
    x1: Tensor,
    xt: Tensor,
    t: Tensor,
    mask: Tensor | None = None,
    *,
    proposals: int = 256,
    generator: torch.Generator | None = None,
) -> OrbitPosterior:
    """Markov chains over the group's elements, ``proposals`` states in all."""
    raise NoClosedFormError(
        f"Gibbs sampling is for permutations, not {type(group).__name__}; use method='exact' or"
        " 'snis'"
    )
