"""Energies whose gradient is computed beside the value, not by autograd."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError


class _Value(torch.autograd.Function):
    """The value, with the gradient that came beside it as the backward pass."""

    @staticmethod
    def forward(ctx, x: Tensor, energy: AnalyticEnergy) -> Tensor:
        value, grad = energy.value_and_grad(x)
        ctx.save_for_backward(x, grad)
        return value

    @staticmethod
    def backward(ctx, upstream: Tensor):
        x, grad = ctx.saved_tensors
        return upstream.reshape(upstream.shape + (1,) * (x.ndim - upstream.ndim)) * _Slope.apply(
            x, grad
        ), None


class _Slope(torch.autograd.Function):
    """Stands between ``x`` and the gradient, so that a second derivative is an error and not a
    silent zero."""

    @staticmethod
    def forward(ctx, x: Tensor, grad: Tensor) -> Tensor:
        return grad.clone()

    @staticmethod
    def backward(ctx, upstream: Tensor):
        raise NotImplementedError(
            "this energy has analytic first derivatives only: no second derivatives"
        )


class AnalyticEnergy(Energy, ABC):
    """A subclass defines ``value_and_grad``; ``forward`` and its backward pass follow from it.

    Autograd goes through once; asking for second derivatives raises ``NotImplementedError``.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _Value.apply(x, self)

    @abstractmethod
    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(U, ∇U)``, shapes ``(*B)`` and that of ``x``; both detached."""

    def _check(self, x: Tensor) -> None:
        """Positions of the right shape, in float32 or float64."""
        k = len(self.event_shape)
        if x.shape[x.ndim - k :] != self.event_shape or x.ndim < k:
            want = ", ".join(map(str, self.event_shape))
            raise InputError(
                f"positions must have shape (*B, {want}) for this system, got {tuple(x.shape)}"
            )
        if x.dtype not in (torch.float32, torch.float64):
            raise InputError(f"positions must be float32 or float64, got {x.dtype}")
