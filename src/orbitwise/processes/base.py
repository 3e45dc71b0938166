"""What a noising process is: a conditional law p_t(x_t | x_1), with t = 0 noise and t = 1 data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from orbitwise.processes.times import SPAN, Times


class Process(ABC):
    """A noising process. ``t: (*B)``; points ``(*B, N, D)``; ``mask: (*B, N)``; extra axes may
    stand in front. ``times``: the first and the last time it is defined at, which
    ``ow.orbit_posterior`` keeps to."""

    times: ClassVar[Times] = SPAN

    @abstractmethod
    def perturb(
        self,
        x1: Tensor,
        t: Tensor,
        *,
        generator: torch.Generator | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Draw ``x_t ~ p_t(. | x_1)``, shape of ``x1``."""

    @abstractmethod
    def log_density(self, xt: Tensor, x1: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        """``log p_t(x_t | x_1)``, shape ``(*B)``; ``xt`` and ``x1`` broadcast."""

    @abstractmethod
    def score(self, xt: Tensor, x1: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        """``∇_{x_t} log p_t(x_t | x_1)``, shape of ``xt``."""
