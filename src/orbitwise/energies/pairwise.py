"""Energies that are a sum of one function over all pairs: distances, gradient and trap in one
place."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from orbitwise.energies.base import Energy


class PairEnergy(Energy, ABC):
    """``U(x) = Σ_{i<j} u(r_ij²) + ½ trap Σ_i |x_i - x̄|²`` for ``x: (*B, N, D)``, in kT; invariant
    under rotations, translations and permutations.

    A subclass defines ``pair`` and gives ``neutral_r2``, a squared distance at which ``u`` is zero:
    it stands on the diagonal of the distance matrix, so that no mask is needed.

    Coincident points have the energy ``at_zero`` and no gradient, for they have no direction; that
    of nearly coincident ones is finite.
    """

    zero_com = True
    at_zero = math.inf

    def __init__(self, n_points: int, dim: int, *, neutral_r2: float, trap: float = 0.0):
        super().__init__()
        self.event_shape = (n_points, dim)
        self.trap = float(trap)
        self.neutral_r2 = float(neutral_r2)
        self.register_buffer("eye", torch.eye(n_points), persistent=False)

    @abstractmethod
    def pair(self, r2: Tensor) -> tuple[Tensor, Tensor]:
        """``(u, du/d(r²))`` at squared distances ``r2``, in tensors of their own."""

    def floor(self, dtype: torch.dtype) -> float:
        """The squared distance below which autograd takes points for coincident: the slope of
        ``pair`` is finite there."""
        return torch.finfo(dtype).tiny

    def _distances(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # Coordinates first: the long axis of every operation is then contiguous (2-3x faster on a
        # CPU), and differences, unlike the Gram matrix, keep float32 accuracy.
        y = x.transpose(-1, -2).contiguous()
        difference = y.unsqueeze(-1) - y.unsqueeze(-2)  # (*B, D, N, N): x_i - x_j
        r2 = sum(d * d for d in difference.unbind(-3))
        return difference, r2.add(self.eye.to(x.dtype), alpha=self.neutral_r2)

    def _total(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        centred = x - x.mean(-2, keepdim=True)
        value = 0.5 * u.sum((-1, -2))
        if self.trap:
            value = value + 0.5 * self.trap * centred.square().sum((-1, -2))
        return value, centred

    def forward(self, x: Tensor) -> Tensor:
        _, r2 = self._distances(x)
        floor = self.floor(x.dtype)
        u = self.pair(r2.clamp_min(floor))[0].masked_fill(r2 < floor, self.at_zero)
        return self._total(u, x)[0]

    @torch.no_grad()
    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        difference, r2 = self._distances(x)
        u, slope = self.pair(r2)
        largest = torch.finfo(x.dtype).max  # an infinite slope times no distance would be NaN
        slope.clamp_(-largest, largest)
        value, centred = self._total(u, x)
        # ∂U/∂x_i = Σ_j u'(r_ij²) 2 (x_i - x_j) + trap (x_i - x̄); the diagonal has difference 0.
        grad = 2.0 * (slope.unsqueeze(-3) * difference).sum(-1).transpose(-1, -2)
        if self.trap:
            grad = grad + self.trap * centred
        return value, grad
