"""Where annealing starts: a normalised density that can be sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError


@runtime_checkable
class Prior(Protocol):
    """An energy with a known normaliser and exact samples; ``GaussianMixture`` is one too."""

    event_shape: tuple[int, ...]
    log_z: float | None

    def sample(
        self, shape: Sequence[int], *, generator: torch.Generator | None = None
    ) -> Tensor: ...

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]: ...


class GaussianPrior(Energy):
    """``U = -log N(x; 0, scale² I)``, normalised: ``log_z = 0``; x: ``(*B, *event_shape)``.

    With ``zero_com`` the points ``(*B, N, D)`` are a Gaussian in the D(N-1)-dimensional subspace of
    zero centre of mass, and the density counts that dimension in orthonormal coordinates; a common
    shift does not matter. Samples have the dtype and device of the prior (``.to(...)``). Raises
    ``InputError`` for a scale that is not positive, and for ``zero_com`` without at least two
    points ``(N, D)``.
    """

    def __init__(self, event_shape: Sequence[int], scale: float = 1.0, zero_com: bool = False):
        super().__init__()
        if not scale > 0:
            raise InputError(f"the scale of a Gaussian must be positive, got {scale}")
        if zero_com and (len(event_shape) != 2 or event_shape[0] < 2):
            raise InputError(
                f"a centre of mass needs points of shape (N >= 2, D), got {tuple(event_shape)}"
            )
        self.event_shape = tuple(event_shape)
        self.zero_com = zero_com
        self.log_z = 0.0
        self.dim = math.prod(event_shape) - (event_shape[1] if zero_com else 0)
        self.register_buffer("scale", torch.tensor(float(scale)))

    def _centred(self, x: Tensor) -> Tensor:
        return x - x.mean(-2, keepdim=True) if self.zero_com else x

    def forward(self, x: Tensor) -> Tensor:
        z = self._centred(x) / self.scale.to(x.dtype)
        square = z.square().flatten(z.ndim - len(self.event_shape)).sum(-1)
        return 0.5 * square + self.dim * (
            self.scale.to(x.dtype).log() + 0.5 * math.log(2 * math.pi)
        )

    @torch.no_grad()
    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), self._centred(x) / self.scale.to(x.dtype).square()

    @torch.no_grad()
    def sample(self, shape: Sequence[int], *, generator: torch.Generator | None = None) -> Tensor:
        """Exact samples ``(*shape, *event_shape)``."""
        device = self.scale.device if generator is None else generator.device
        noise = torch.randn(
            (*shape, *self.event_shape), generator=generator, device=device, dtype=self.scale.dtype
        )
        return self.scale * self._centred(noise).to(self.scale.device)
