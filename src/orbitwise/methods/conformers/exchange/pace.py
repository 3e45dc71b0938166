"""How long the search goes on: until it is precise or its time is over."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from orbitwise.methods.conformers.clock import Budget
from orbitwise.methods.conformers.exchange.found import Found
from orbitwise.methods.conformers.exchange.mixing import Mixing
from orbitwise.methods.conformers.system import Effort
from orbitwise.training import Progress

ROUND = 4.0  # seconds that a round is meant to take

FEWEST = 16  # steps that are made in any case


class Pace:
    """How many steps come next, from how fast they were and what is left of the ``budget``;
    ``spent`` seconds before, by an earlier run."""

    def __init__(self, budget: Budget, precision: float, spent: float):
        self.budget, self.precision, self.spent = budget, precision, spent
        self.begin = self.last = time.monotonic()
        self.rate: float | None = None
        self.left = 0.0
        self.looked, self.mixing = 0, Mixing(math.inf, 1.0)

    def made(self, steps: int) -> None:
        now = time.monotonic()
        self.rate, self.last = steps / max(now - self.last, 1e-6), now

    @property
    def elapsed(self) -> float:
        """Seconds of this stage."""
        return self.spent + time.monotonic() - self.begin

    def next_steps(self, effort: Effort, found: Found, mixing: Callable[[Found], Mixing]) -> int:
        """0 where it is enough."""
        self.last = time.monotonic()
        if effort.search_steps:
            missing = effort.search_steps - found.steps
            round_ = 50 if self.rate is None else max(1, int(ROUND * self.rate))
            self.left = missing / (self.rate or 1.0)
            return max(0, min(missing, round_))

        if found.info["steps"] < FEWEST:  # whatever the time: without frames there is no answer
            return FEWEST
        atoms = found.x.shape[-2]
        whole = self.budget.for_stage(effort.quenched or 0, atoms)
        room = whole - self.budget.elapsed - self.spent
        if self.rate is None:
            return FEWEST if room > 0 else 0

        if found.steps >= 1.1 * self.looked:  # looking costs the more the longer the search is
            self.looked, self.mixing = found.steps, mixing(found)
        now, self.last = self.mixing, time.monotonic()
        missing = 0.25 / self.precision**2 - now.effective_samples
        pace = now.effective_samples / max(self.elapsed, 1e-6)
        self.left = max(0.0, min(room, missing / max(pace, 1e-6)))
        steps = int(min(ROUND, room) * self.rate)
        return 0 if now.precise(self.precision) or steps < 1 else steps

    def progress(self, found: Found) -> Progress:
        """Steps made, of how many as far as can be told."""
        whole = self.elapsed + self.left
        steps = max(found.steps, round(found.steps * whole / max(self.elapsed, 1e-6)))
        return Progress(found.steps, steps, rate=self.rate, seconds_left=self.left)
