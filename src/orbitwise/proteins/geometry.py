"""Backbone geometry: bond lengths, angles and torsions, clashes, size, and the handedness of
helical turns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.metrics.torus import dihedral
from orbitwise.metrics.transport import wasserstein_1d

CLASH, APART = (
    3.0,
    2,
)  # Å; Cα of residues at least so many places apart that are nearer than this clash
TURN, TWIST = (
    (4.5, 6.5),
    (30.0, 75.0),
)  # Å from Cα i to i + 3 and |dihedral| in degrees of a helical turn


@dataclass(frozen=True)
class Quantity:
    """A distance (two points), angle (three) or torsion (four) along the backbone: ``points`` as
    (atom, residues ahead). ``name`` as in files, ``label`` as in figures."""

    name: str
    label: str
    points: tuple[tuple[str, int], ...]

    @property
    def unit(self) -> str:
        return "Å" if len(self.points) == 2 else "°"

    @property
    def circular(self) -> bool:
        return len(self.points) == 4


TRACE = (
    Quantity("ca_ca", "Cα–Cα", (("CA", 0), ("CA", 1))),
    Quantity("ca_ca_ca", "Cα–Cα–Cα", (("CA", 0), ("CA", 1), ("CA", 2))),
    Quantity("ca_torsion", "Cα torsion", (("CA", 0), ("CA", 1), ("CA", 2), ("CA", 3))),
)
BACKBONE = (
    *TRACE,
    Quantity("n_ca", "N–Cα", (("N", 0), ("CA", 0))),
    Quantity("ca_c", "Cα–C", (("CA", 0), ("C", 0))),
    Quantity("c_n", "C–N", (("C", 0), ("N", 1))),
    Quantity("n_ca_c", "N–Cα–C", (("N", 0), ("CA", 0), ("C", 0))),
    Quantity("ca_c_n", "Cα–C–N", (("CA", 0), ("C", 0), ("N", 1))),
    Quantity("c_n_ca", "C–N–Cα", (("C", 0), ("N", 1), ("CA", 1))),
    Quantity("phi", "φ", (("C", 0), ("N", 1), ("CA", 1), ("C", 1))),
    Quantity("psi", "ψ", (("N", 0), ("CA", 0), ("C", 0), ("N", 1))),
    Quantity("omega", "ω", (("CA", 0), ("C", 0), ("N", 1), ("CA", 1))),
)


def quantities(atoms: int) -> tuple[Quantity, ...]:
    """What can be measured on chains with 1 (Cα) or 3 (N, Cα, C) atoms per residue."""
    if atoms not in (1, 3):
        raise InputError(f"a residue has 1 (Cα) or 3 (N, Cα, C) atoms, got {atoms}")
    return TRACE if atoms == 1 else BACKBONE


def measure(x: Tensor, mask: Tensor, quantity: Quantity) -> tuple[Tensor, Tensor]:
    """The quantity at every residue where it begins, ``(B, L')``, and where all its points are
    real.

    ``x: (B, L, A, 3)`` Å, ``mask: (B, L)``. Å or degrees; torsions in (−180, 180].
    """
    names = ("CA",) if x.shape[2] == 1 else ("N", "CA", "C")
    width = x.shape[1] - max(ahead for _, ahead in quantity.points)
    if width <= 0:
        return x.new_zeros(len(x), 0), mask.new_zeros(len(x), 0)
    points = torch.stack(
        [x[:, ahead : ahead + width, names.index(atom)] for atom, ahead in quantity.points], -2
    )
    real = torch.stack([mask[:, ahead : ahead + width] for _, ahead in quantity.points]).all(0)
    return _internal(points.double()), real


def _internal(points: Tensor) -> Tensor:
    """Distance, angle or torsion of ``points: (..., 2|3|4, 3)``."""
    count = points.shape[-2]
    if count == 4:
        return torch.rad2deg(dihedral(points, [(0, 1, 2, 3)])[..., 0])
    if count == 2:
        return (points[..., 1, :] - points[..., 0, :]).norm(dim=-1)
    a, b = points[..., 0, :] - points[..., 1, :], points[..., 2, :] - points[..., 1, :]
    return torch.rad2deg(torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(-1)))


def deviation(a: Tensor, b: Tensor, quantity: Quantity) -> float:
    """``W_1`` in the unit of the quantity between two sets of its values; torsions on the
    circle."""
    if not quantity.circular:
        return wasserstein_1d(a, b)
    import ot

    if not len(a) or not len(b):
        raise InputError("a distance between distributions needs at least one value on either side")
    turns = [(v.double() / 360).remainder(1).cpu().numpy() for v in (a, b)]
    return 360 * float(ot.wasserstein_circle(*turns, p=1)[0])


def clashes(ca: Tensor, mask: Tensor) -> Tensor:
    """Pairs of Cα nearer than 3 Å whose residues are at least two places apart, ``(B,)``. In the
    PDB there are hardly any: bonded neighbours are 3.8 Å apart (2.9 Å with a cis peptide). ``ca:
    (B, L, 3)``, ``mask: (B, L)``."""
    place = torch.arange(ca.shape[1], device=ca.device)
    pairs = (place[None] - place[:, None] >= APART) & mask[:, None] & mask[..., None]
    return ((torch.cdist(ca, ca) < CLASH) & pairs).sum((-2, -1))


def radius_of_gyration(ca: Tensor, mask: Tensor) -> Tensor:
    """Root mean square distance of the Cα from their centre in Å, ``(B,)``."""
    weight = mask[..., None].to(ca.dtype)
    count = weight.sum(-2).clamp_min(1)
    centre = (ca * weight).sum(-2) / count
    return (((ca - centre[:, None]).square() * weight).sum((-2, -1)) / count[:, 0]).sqrt()


@dataclass(frozen=True)
class SizeLaw:
    """``R_g = scale · length^power`` Å by least squares in logarithms, and the ``spread`` of ln R_g
    around it."""

    scale: float
    power: float
    spread: float

    @staticmethod
    def of(lengths: Tensor, radii: Tensor) -> SizeLaw:
        """Fitted to chains ``(C,)``, power 0 where all have one length; raises ``InputError`` for
        fewer than two."""
        x, y = lengths.double().log(), radii.double().log()
        if len(x) < 2:
            raise InputError("a law of sizes needs two chains at least")
        square = float((x - x.mean()).square().sum())
        power = float(((x - x.mean()) * (y - y.mean())).sum()) / square if square > 1e-12 else 0.0
        rest = y - y.mean() - power * (x - x.mean())
        return SizeLaw(
            math.exp(float(y.mean()) - power * float(x.mean())), power, float(rest.std())
        )

    def excess(self, lengths: Tensor, radii: Tensor) -> Tensor:
        """``ln(R_g / law)`` of chains, ``(C,)``: above 0 is more extended."""
        return (radii.double() / (self.scale * lengths.double() ** self.power)).log()


@dataclass(frozen=True)
class Handedness:
    """Helical turns by their sense. L-amino acids make right-handed helices."""

    right: int
    left: int

    @property
    def share_right(self) -> float:
        """Not a number where there is no turn."""
        return self.right / (self.right + self.left) if self.right + self.left else math.nan


def handedness(ca: Tensor, mask: Tensor) -> Handedness:
    """Right- and left-handed helical turns: four consecutive Cα with the ends 4.5 to 6.5 Å apart
    and a torsion of 30° to 75° in size; a positive torsion is right-handed (α-helix: 5.0 Å, +50°).
    ``ca: (B, L, 3)``, ``mask: (B, L)``."""
    x = ca[:, :, None]
    ends, real = measure(x, mask, Quantity("turn", "", (("CA", 0), ("CA", 3))))
    twist, _ = measure(x, mask, TRACE[2])
    turn = (
        real
        & (ends > TURN[0])
        & (ends < TURN[1])
        & (twist.abs() > TWIST[0])
        & (twist.abs() < TWIST[1])
    )
    return Handedness(int((turn & (twist > 0)).sum()), int((turn & (twist < 0)).sum()))
