"""Hamiltonian dynamics in batches: momenta, kinetic energy, leapfrog. Temperature 1 (energies are
in kT)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.search.metropolis import keep_centre, normal_like, over_event


@dataclass(frozen=True, eq=False)
class Mass:
    """Masses ``value``: None for 1, or a tensor that broadcasts against the event, for example
    ``(N, 1)``.

    With ``energy.zero_com`` momenta have zero total, so that motion is relative motion only: its
    kinetic energy then is that of 3(N-1) independent directions whatever the masses.
    """

    value: Tensor | None = None

    def momentum(self, x: Tensor, energy: Energy, generator: torch.Generator | None) -> Tensor:
        """``p ~ N(0, M)``, shape of ``x``."""
        p = normal_like(x, generator)
        if self.value is None:
            return p - p.mean(-2, keepdim=True) if energy.zero_com else p
        mass = self.value.to(x)
        p = mass.sqrt() * p
        if energy.zero_com:
            # p - m v̄ with the velocity v̄ of the centre of mass: the projection orthogonal in M⁻¹.
            p = p - mass * (
                p.sum(-2, keepdim=True) / mass.expand(x.shape[-2:]).sum(-2, keepdim=True)
            )
        return p

    def velocity(self, p: Tensor) -> Tensor:
        return p if self.value is None else p / self.value.to(p)

    def kinetic(self, p: Tensor, value: Tensor) -> Tensor:
        """``½ p·M⁻¹p``, ``(*B)``; ``value: (*B)`` tells where the batch ends."""
        return 0.5 * over_event(value, p * self.velocity(p))


def leapfrog(
    x: Tensor, p: Tensor, grad: Tensor, h: Tensor, steps: int, mass: Mass, energy: Energy
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``steps`` velocity-Verlet steps of size ``h`` (broadcasts against x): ``(x, p, U, ∇U)`` at
    the end.

    One gradient per step; time-reversible and volume-preserving, also with the centroid held in
    place.
    """
    begin = x
    drift = mass.velocity(h)
    p = torch.addcmul(p, h, grad, value=-0.5)
    for i in range(steps):
        x = torch.addcmul(x, drift, p)
        value, grad = energy.value_and_grad(x)
        p = torch.addcmul(p, h, grad, value=-1.0 if i < steps - 1 else -0.5)
    if (
        energy.zero_com
    ):  # with unequal masses the centroid moves against the centre of mass; U does not see it
        x = keep_centre(x, begin)
    return x, p, value, grad
