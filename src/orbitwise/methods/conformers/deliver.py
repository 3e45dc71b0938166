"""Which of the stages is the answer: a rule, and words for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from orbitwise.methods.conformers.diffusion.weights import Weighed, Worth
from orbitwise.methods.conformers.exchange.mixing import MIXED, Mixing
from orbitwise.methods.conformers.exchange.pooled import Delivered, combed
from orbitwise.methods.conformers.levels import Levels

FEWEST = 30  # independent samples that populations may rest on


@dataclass(frozen=True)
class Choice:
    """The stage that is delivered, whether it has ``converged``, and why it was chosen."""

    source: Literal["search", "weights", "levels"]
    converged: bool
    reason: str


def choose(mixing: Mixing, worth: Worth | None, failed: str | None = None) -> Choice:
    """The search where it has mixed (split R-hat of every torsion and of the energy up to 1.05):
    it has no other error then than the one that it states. Else the learner's weighted paths where
    these are usable; else the search, which has not converged.

    A relaxed ensemble of the learner is never chosen: what it knows of populations is what it has
    learned from the search. ``failed``: why the learner left nothing.
    """
    state = f"split R-hat {mixing.rhat:.3f}, {mixing.effective_samples:,.0f} effective samples"
    learner = "" if failed is None else f" The learner left nothing: {failed}."
    if mixing.mixed:
        return Choice("search", True, f"The search has mixed ({state}) and is the answer.{learner}")
    if worth is not None and worth.usable:
        return Choice(
            "weights",
            True,
            f"The search has not mixed ({state}); the learner's importance weights are usable"
            f" ({worth.effective:.0f} effective paths) and are the answer.",
        )
    return Choice(
        "search",
        False,
        f"Nothing has converged: the search has not mixed ({state}; R-hat should be at most"
        f" {MIXED}). It is the best there is, and its populations may be off by more than their"
        f" errors.{learner}",
    )


def choose_carried(mixing: Mixing, carried: Levels, energy: str) -> Choice:
    """The samples carried to the better energy: those of the search are of another one. They have
    converged where the search has mixed and enough of its samples are left of them."""
    state = (
        f"split R-hat {mixing.rhat:.3f} of the search; {carried.ess:.0f} effective samples from"
        f" {carried.families:.0f} of it at {energy}"
    )
    if mixing.mixed and carried.complete and min(carried.ess, carried.families) >= FEWEST:
        return Choice("levels", True, f"Samples of the search, carried to {energy} ({state}).")
    return Choice(
        "levels",
        False,
        f"Nothing has converged at {energy} ({state}; R-hat should be at most {MIXED}, samples at"
        f" least {FEWEST}): populations may be off by more than their errors.",
    )


def of_weights(weighed: Weighed, energy: Tensor, count: int) -> Delivered:
    """The learner's paths by their weights; every path stands for itself."""
    own = torch.arange(len(weighed.x))
    return combed(weighed.x, energy, weighed.log_weight.cpu().log_softmax(0), own, count)


def of_levels(carried: Levels) -> Delivered:
    """Every carried sample by its weight; those of an island belong together."""
    weight = carried.log_weight.cpu().log_softmax(0).exp()
    kept = (weight > 0).nonzero().flatten()
    there = kept.to(carried.x.device)
    return Delivered(
        carried.x[there], carried.energy[there], weight[kept], carried.island.cpu()[kept]
    )
