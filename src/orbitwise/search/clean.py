"""Energies with something added, and the energies without it at the same points, never evaluated
twice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.search.base import Info, Kernel
from orbitwise.search.hmc import HMC
from orbitwise.search.langevin import AdjustedLangevin, Langevin
from orbitwise.search.mala import MALA
from orbitwise.search.metropolis import choose

# Kernels whose last evaluation of a step is its one proposal, which ``info.accepted`` takes or
# leaves.
ONE_PROPOSAL = (MALA, HMC, AdjustedLangevin, Langevin)


@dataclass(frozen=True)
class Clean:
    """``energy: (*B)`` [kT] and ``grad`` (shape of the points) of the energy alone."""

    energy: Tensor
    grad: Tensor

    def update(self, accepted: Tensor, new: Clean) -> Clean:
        """``new`` where a chain moved there."""
        return Clean(
            torch.where(accepted, new.energy, self.energy), choose(accepted, new.grad, self.grad)
        )


class Overlaid(Energy, ABC):
    """An energy on top of ``inner``; ``last`` holds U and ∇U of ``inner`` at the points of the last
    ``value_and_grad``. A subclass defines ``forward`` and ``overlay``."""

    def __init__(self, inner: Energy):
        super().__init__()
        self.inner = inner
        self.event_shape = inner.event_shape
        self.zero_com = inner.zero_com
        self.last: Clean | None = None

    @abstractmethod
    def overlay(self, x: Tensor, clean: Clean) -> tuple[Tensor, Tensor]:
        """Value and gradient of the whole, given those of ``inner``: without any call of
        ``inner``."""

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.last = Clean(*self.inner.value_and_grad(x))
        return self.overlay(x, self.last)


def needs_one_proposal(kernel: Kernel, allowed: tuple[type, ...], what: str) -> None:
    """Raises ``InputError`` for a kernel that is none of ``allowed``."""
    if not isinstance(kernel, allowed):
        names = ", ".join(k.__name__ for k in allowed)
        raise InputError(f"{what} takes one of the kernels {names}; got {type(kernel).__name__}")


class Follow:
    """An observer that carries the clean energy of every chain along and keeps every ``thin``-th.

    ``clean``: of the present states; ``kept``: list of ``Clean``.
    """

    def __init__(self, surface: Overlaid, clean: Clean, thin: int | None = None):
        self.surface, self.clean, self.thin = surface, clean, thin
        self.kept: list[Clean] = []

    def __call__(self, n: int, state, info: Info) -> None:
        self.clean = self.clean.update(info.accepted, self.surface.last)
        if self.thin and n % self.thin == 0:
            self.kept.append(self.clean)


def supported(clean: Clean) -> Clean:
    """Points whose energy or gradient is not finite are outside of the support: U = +inf, gradient
    0 there."""
    value, grad = clean.energy, clean.grad
    good = torch.isfinite(value) & torch.isfinite(grad.flatten(value.ndim)).all(-1)
    return Clean(torch.where(good, value, torch.inf), choose(good, grad, torch.zeros_like(grad)))
