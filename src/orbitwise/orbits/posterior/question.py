"""What a solver is asked, and how it is to sample where it has to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from orbitwise.orbits.posterior.noise import Gaussian, Process, Wrapped, WrappedProcess, noise_of


@dataclass(frozen=True)
class Question:
    """Which elements g explain ``xt``, noised by ``process`` up to ``t`` from ``g·x1``?

    To solvers it comes checked, all in float64: ``xt: (*B, N, D)``, ``x1: (*L, *B, N, D)`` with any
    number of extra leading axes ``L`` (finite outer sums), ``t: (*B)``, ``mask: (*B, N)`` or None;
    padded rows of both clouds are 0, and both are centred when ``process.zero_com``. ``check``:
    whether values are looked at, for which an accelerator has to wait.
    """

    process: Process | WrappedProcess
    x1: Tensor
    xt: Tensor
    t: Tensor
    mask: Tensor | None = None
    check: bool = True

    def about(self, x1: Tensor) -> Question:
        """The same question about other clean points."""
        return replace(self, x1=x1)

    @cached_property
    def noise(self) -> Gaussian | Wrapped:
        """The law of ``xt`` around one point of the orbit."""
        return noise_of(self.process, self.xt, self.t, self.mask)

    @cached_property
    def gaussian(self) -> Gaussian:
        """The same, for solvers of Gaussian noise only; else ``NoClosedFormError``."""
        return Gaussian.of(self.process, self.xt, self.t, self.mask)


@dataclass(frozen=True)
class Sampling:
    """What ``orbit_posterior`` was told about sampling, under the same names there."""

    proposals: int = 256
    include_identity: bool = False
    proposal_width: float | None = None
    generator: torch.Generator | None = None
