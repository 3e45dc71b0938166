"""Random network distillation (Burda et al. 2018, arXiv 1810.12894): a trained network imitates a
fixed random one on what it is shown; where it fails, it has seen nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Distillation(nn.Module):
    """``target``, fixed, and ``predictor``, which learns it: two networks that ``make`` draws."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.target = make().requires_grad_(False)
        self.predictor = make()

    def error(self, *inputs: Tensor) -> Tensor:
        """``‖f - f_φ‖²`` of networks with answers ``(*B, out)``, ``(*B)``."""
        return (self.target(*inputs) - self.predictor(*inputs)).square().sum(-1)


class RandomWaves(nn.Module):
    """``z -> W_3 silu(W_2 √2 cos(Ω z + b) + b_2)`` of vectors ``(*B, size)``, ``(*B, out)``; smooth
    as forces must be.

    Cosines of random frequencies make the random network equally rough everywhere, bound it, and
    set the ``length`` on which it varies, in units of ``z``.
    """

    def __init__(
        self, size: int, hidden: int, out: int, length: float, generator: torch.Generator | None
    ) -> None:
        super().__init__()

        def normal(*shape: int, scale: float) -> nn.Parameter:
            device = None if generator is None else generator.device
            return nn.Parameter(scale * torch.randn(shape, generator=generator, device=device))

        self.frequency = normal(size, hidden, scale=1.0 / length)
        self.phase = nn.Parameter(normal(hidden, scale=1.0).detach() * math.pi)
        self.inner = normal(hidden, hidden, scale=(2.0 / hidden) ** 0.5)
        self.bias = normal(hidden, scale=0.1)
        self.outer = normal(hidden, out, scale=(1.0 / hidden) ** 0.5)

    def forward(self, z: Tensor) -> Tensor:
        wave = math.sqrt(2.0) * torch.cos(z @ self.frequency + self.phase)
        return nn.functional.silu(wave @ self.inner + self.bias) @ self.outer
