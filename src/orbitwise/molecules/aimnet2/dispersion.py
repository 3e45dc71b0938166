"""D3 dispersion with Becke-Johnson damping, without three-body terms.

S. Grimme, J. Antony, S. Ehrlich and H. Krieg, J. Chem. Phys. 132, 154104 (2010), eqs 15 and 16;
S. Grimme, S. Ehrlich and L. Goerigk, J. Comput. Chem. 32, 1456 (2011), eqs 5 and 6. The
parameters of ωB97M: A. Najibi and L. Goerigk, J. Chem. Theory Comput. 14, 5725 (2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BOHR_PER_ANGSTROM = 1.8897261258369282
EV_PER_HARTREE = 27.211386024367243
S6, S8, A1, A2 = 1.0, 0.3908, 0.566, 3.128  # A2 in bohr
K1, K3 = 16.0, 4.0
UNKNOWN = 1e-5  # a pair whose coordination is further from all references has no C6


@dataclass(frozen=True)
class DispersionTables:
    """Of one molecule, in atomic units. ``covalent: (N, N)`` sums of radii; ``most: (N,)`` the
    largest coordination number; ``reference: (N, 5)`` coordination numbers of the reference
    compounds; ``c6: (N, N, 5, 5)``; ``ratio: (N, N)`` C8/C6, ``radius: (N, N)`` of the damping."""

    covalent: Tensor
    most: Tensor
    reference: Tensor
    c6: Tensor
    ratio: Tensor
    radius: Tensor


def dispersion_tables(w: dict[str, Tensor], species: Tensor) -> DispersionTables:
    """From the reference data among the weights, for atomic numbers ``species: (N,)``."""
    pair = w["outputs.d3bj.c6ab"][species[:, None], species]
    covalent = w["outputs.d3bj.rcov"][species]
    size = w["outputs.d3bj.r4r2"][species]
    ratio = 3 * size[:, None] * size
    return DispersionTables(
        covalent=covalent[:, None] + covalent,
        most=w["outputs.d3bj.cnmax"][species],
        # of the first atom of a pair: the same whatever the second is
        reference=pair[:, 0, :, 0, 1],
        c6=pair[..., 0],
        ratio=ratio,
        radius=A1 * ratio.sqrt() + A2,
    )


def dispersion(t: DispersionTables, distance: Tensor, same: Tensor) -> Tensor:
    """The energy in eV ``(B,)`` from ``distance: (B, N, N)`` in Å; ``same: (N, N)`` the diagonal,
    which does not count."""
    d = BOHR_PER_ANGSTROM * distance
    close = (1 + (-K1 * (t.covalent / d - 1)).exp()).reciprocal()
    coordination = close.masked_fill(same, 0.0).sum(-1).minimum(t.most)

    like = (-K3 * (coordination[..., None] - t.reference).square()).exp()  # (B, N, 5)
    total = like.sum(-1)
    known = total[:, :, None] * total[:, None]
    c6 = torch.einsum("bir,ijrs,bjs->bij", like, t.c6, like) / known.clamp_min(UNKNOWN)
    c6 = c6.masked_fill(same | (known < UNKNOWN), 0.0)

    d2 = d * d
    d6, r6 = d2 * d2 * d2, t.radius**6
    damped = S6 / (d6 + r6) + S8 * t.ratio / (d6 * d2 + r6 * t.radius**2)
    return -0.5 * EV_PER_HARTREE * (c6 * damped).double().sum((-1, -2))
