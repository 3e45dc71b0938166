"""Which of the stages is the answer: a rule, and words for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from orbitwise.methods.conformers.mixing import MIXED, Mixing
from orbitwise.methods.conformers.search import Pooled
from orbitwise.methods.conformers.weights import Weighed, Worth
from orbitwise.search.weights import systematic


@dataclass(frozen=True)
class Choice:
    """The stage that is delivered, whether it has ``converged``, and why it was chosen."""

    source: Literal["search", "weights"]
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


@dataclass(frozen=True)
class Delivered:
    """The final ensemble, as few structures as stand for it: ``x: (m, N, 3)``, ``energy: (m,)``,
    ``weight: (m,)`` that add up to one, ``block: (m,)`` which of them belong together."""

    x: Tensor
    energy: Tensor
    weight: Tensor
    block: Tensor

    @property
    def log_weight(self) -> Tensor:
        return self.weight.log()


def of_search(pooled: Pooled, count: int) -> Delivered:
    """About ``count`` of all frames, as often as they weigh."""
    return _combed(pooled.x, pooled.energy, pooled.log_weight, pooled.block, count)


def of_weights(weighed: Weighed, energy: Tensor, count: int) -> Delivered:
    """The learner's paths by their weights; every path stands for itself."""
    own = torch.arange(len(weighed.x))
    return _combed(weighed.x, energy, weighed.log_weight.cpu().log_softmax(0), own, count)


def _combed(x: Tensor, energy: Tensor, log_weight: Tensor, block: Tensor, count: int) -> Delivered:
    """A comb over the weights; block by block, lest its teeth and the columns fall in step."""
    order = block.argsort(stable=True)
    drawn = systematic(log_weight[order].exp(), count, torch.Generator().manual_seed(0))
    chosen, times = drawn.unique(return_counts=True)
    rows = order[chosen]
    there = rows.to(x.device)
    return Delivered(x[there], energy[there], times.double() / count, block[rows])


def fewer(whole: Delivered, count: int, seed: int) -> Tensor:
    """Of ``whole`` the rows of ``count`` samples, each as often as it is drawn, ``(count,)``."""
    return systematic(whole.weight, count, torch.Generator().manual_seed(seed))
