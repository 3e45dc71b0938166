"""Which code solves which group: generic functions, one registration per group in the file that
solves it.

A solver gets a checked ``Question`` and returns an ``OrbitPosterior`` whose fields have the batch
``(*L, *B)``, still in float64 (``orbit_posterior`` converts back to the dtype of the input).
"""

from __future__ import annotations

from functools import singledispatch

from orbitwise.errors import NoClosedFormError
from orbitwise.groups.base import Group
from orbitwise.orbits.posterior.question import Question, Sampling
from orbitwise.orbits.posterior.result import OrbitPosterior


@singledispatch
def exact(group: Group, question: Question) -> OrbitPosterior:
    """The exact posterior."""
    raise NoClosedFormError(f"{type(group).__name__} has no closed form here; use method='snis'")


@singledispatch
def mode(group: Group, question: Question) -> OrbitPosterior:
    """The posterior concentrated on its most probable element (alignment): biased at every noise
    level."""
    raise NoClosedFormError(
        f"no known mode for {type(group).__name__}; use method='exact' or 'snis'"
    )


@singledispatch
def snis(group: Group, question: Question, sampling: Sampling) -> OrbitPosterior:
    """Self-normalised importance sampling from Haar proposals: biased, O(1/proposals)."""
    raise NoClosedFormError(
        f"{type(group).__name__} has no uniform distribution; use method='exact'"
    )


@singledispatch
def gibbs(group: Group, question: Question, sampling: Sampling) -> OrbitPosterior:
    """Markov chains over the group's elements, ``sampling.proposals`` states in all."""
    raise NoClosedFormError(
        f"Gibbs sampling is for permutations, not {type(group).__name__}; use method='exact' or"
        " 'snis'"
    )
