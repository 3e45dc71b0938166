"""Particles that interact by a double well in their distance (DW4)."""

from __future__ import annotations

from torch import Tensor

from orbitwise.energies.pairwise import PairEnergy


class DoubleWell(PairEnergy):
    """``U = Σ_{i<j} quartic (r - offset)⁴ + quadratic (r - offset)²`` at temperature 1; x: ``(*B,
    N, D)``.

    The defaults are DW4, four particles in the plane (Köhler, Klein and Noé 2020, arXiv
    2006.02425). Its ``log_z`` = 29.665 ± 0.005 counts labelled particles in the 6-dimensional
    subspace of zero centre of mass.
    """

    def __init__(
        self,
        n_points: int = 4,
        dim: int = 2,
        quartic: float = 0.9,
        quadratic: float = -4.0,
        offset: float = 4.0,
    ):
        super().__init__(n_points, dim, neutral_r2=offset**2)
        self.quartic, self.quadratic, self.offset = float(quartic), float(quadratic), float(offset)
        self.at_zero = offset**2 * (quartic * offset**2 + quadratic)
        if (n_points, dim, quartic, quadratic, offset) == (4, 2, 0.9, -4.0, 4.0):
            self.log_z = 29.665

    def pair(self, r2: Tensor) -> tuple[Tensor, Tensor]:
        r = r2.sqrt()
        d = r - self.offset
        d2 = d * d
        u = d2 * (self.quartic * d2 + self.quadratic)
        # du/d(r²) = u'(r) / (2r)
        return u, d * (2.0 * self.quartic * d2 + self.quadratic) / r
