"""Lennard-Jones clusters in a harmonic trap (LJ13, LJ55)."""

from __future__ import annotations

import torch
from torch import Tensor

from orbitwise.energies.pairwise import PairEnergy


class LennardJones(PairEnergy):
    """``U = ε Σ_{i≠j} [(r_m/r)¹² - 2 (r_m/r)⁶] + ½ trap Σ_i |x_i - x̄|²`` at temperature 1.

    The sum runs over ordered pairs, so every pair counts twice: the convention of the published
    LJ13 and LJ55 samples (Klein, Krämer and Noé 2023, arXiv 2306.15030), for which ⟨x·∇U⟩ = 3(N-1).
    Positions ``(*B, n_points, 3)`` in units of r_m. The trap acts on centred coordinates, so U
    ignores a common shift.
    """

    def __init__(
        self, n_points: int = 13, epsilon: float = 1.0, r_min: float = 1.0, trap: float = 1.0
    ):
        # u = 0 where (r_m/r)⁶ = 2
        super().__init__(n_points, 3, neutral_r2=r_min**2 * 2.0 ** (-1.0 / 3.0), trap=trap)
        self.epsilon, self.r_min = float(epsilon), float(r_min)

    def floor(self, dtype: torch.dtype) -> float:
        steepest = torch.finfo(dtype).max / (100 * (1 + self.epsilon) * (1 + self.r_min**-2))
        return self.r_min**2 * steepest ** (-1 / 7)  # the slope grows as r^-14

    def pair(self, r2: Tensor) -> tuple[Tensor, Tensor]:
        s = self.r_min**2 / r2
        s3 = s * s * s
        # Both orders of a pair: u = 2ε (s⁶ - 2 s³), du/d(r²) = -12 ε s (s⁶ - s³) / r_m².
        u = (2.0 * self.epsilon) * s3 * (s3 - 2.0)
        return u, (-12.0 * self.epsilon / self.r_min**2) * s * s3 * (s3 - 1.0)
