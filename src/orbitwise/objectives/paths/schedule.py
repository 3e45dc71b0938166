"""Times at which a controlled Brownian motion is stepped: where its noise is spent.

Time is the Brownian clock: between t and t' a motion of total variance ``noise²`` gains ``noise²
(t' - t)``, so a decaying noise schedule with equal steps and these times with constant noise are
the same thing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from orbitwise.errors import InputError


class NoiseSchedule(Protocol):
    """``schedule(generator) -> (steps + 1,)`` ascending times, float64, the last one 1.

    The first is 0 for a start at the origin (Dirac), ``start`` > 0 for a start from a Gaussian.
    """

    steps: int

    def __call__(self, generator: torch.Generator | None = None) -> Tensor: ...


def _check(steps: int, start: float) -> None:
    if steps < 2 or not 0 <= start < 1:
        raise InputError(
            f"a noise schedule needs steps >= 2 and 0 <= start < 1, got {steps} and {start}"
        )


@dataclass(frozen=True)
class Uniform:
    """Equal steps: constant noise (PIS, Zhang and Chen 2111.15141)."""

    steps: int = 100
    start: float = 0.0

    def __post_init__(self):
        _check(self.steps, self.start)

    def __call__(self, generator: torch.Generator | None = None) -> Tensor:
        return torch.linspace(self.start, 1.0, self.steps + 1, dtype=torch.float64)


@dataclass(frozen=True)
class Random:
    """Steps ∝ U(1, ``spread``), drawn anew for every batch (SGDS, 2505.19552); equal without a
    generator."""

    steps: int = 100
    start: float = 0.0
    spread: float = 10.0

    def __post_init__(self):
        _check(self.steps, self.start)

    def __call__(self, generator: torch.Generator | None = None) -> Tensor:
        if generator is None:
            return Uniform(self.steps, self.start)()
        device = generator.device
        u = torch.rand(self.steps, generator=generator, device=device, dtype=torch.float64).cpu()
        reached = (1 + (self.spread - 1) * u).cumsum(0)
        # by the last itself: another sum of the widths may round otherwise, and time end beyond 1
        share = torch.cat([torch.zeros(1, dtype=torch.float64), reached / reached[-1]])
        return self.start + (1 - self.start) * share


@dataclass(frozen=True)
class Decaying:
    """Equal steps in log(t / (1 - t)): geometric noise, fine at both ends.

    ``first`` is the time after the first step (from the origin), ``last`` what is left before the
    last one: its noise, ``noise √last``, should be no larger than the finest detail of the target.
    """

    steps: int = 100
    start: float = 0.0
    first: float = 1e-2
    last: float = 1e-3

    def __post_init__(self):
        _check(self.steps, self.start)
        if not (self.first > 0 and self.last > 0 and self.first + self.last < 1):
            raise InputError(
                f"first and last must be positive with a sum below 1, got {self.first}, {self.last}"
            )

    def __call__(self, generator: torch.Generator | None = None) -> Tensor:
        low = self.start or self.first
        ends = math.log(low / (1 - low)), math.log((1 - self.last) / self.last)
        inner = self.steps if self.start else self.steps - 1
        t = torch.linspace(*ends, inner, dtype=torch.float64).sigmoid()
        first, one = (
            torch.tensor([self.start], dtype=torch.float64),
            torch.ones(1, dtype=torch.float64),
        )
        return torch.cat([first, t[1:] if self.start else t, one])


SCHEDULES = {"uniform": Uniform, "random": Random, "decaying": Decaying}
