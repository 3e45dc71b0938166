"""The terms of a molecular-mechanics energy for a batch of geometries, with hand-derived gradients.

The batch is the last, contiguous axis and every term is a row. All pairs of atoms have one
displacement and one distance; bonds, angles (by the law of cosines), Lennard-Jones, Coulomb and
solvent terms depend on distances alone and add to one array of slopes ``(dE/dr)/r`` per pair,
torsions add vectors to the gradients of displacements. One scatter at the end takes both to the
atoms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from orbitwise.molecules.openmm.generalised_born import SolventTables, add_solvent, solvent_tables
from orbitwise.molecules.openmm.parameters import OpenMMParameters

_NEAREST2 = 4e-4  # Å²: nearer atoms count as so far apart: a wall of finite height and slope


@dataclass(frozen=True)
class Tables:
    """The parameters as columns ``(rows, 1)`` of one dtype on one device, energies in kT, lengths
    in Å."""

    tail: Tensor
    head: Tensor
    lj12: Tensor
    lj6: Tensor
    coulomb: Tensor
    bonds: Tensor
    bond_r0: Tensor
    bond_k: Tensor
    angles: Tensor  # (3 na,): first arms, second arms, bases
    angle_theta0: Tensor
    angle_k: Tensor
    torsion_pairs: Tensor  # (3 nt,)
    torsion_sign: Tensor  # (3 nt, 1, 1)
    even: tuple[Tensor, ...]  # Σ_n cosine[n] cos nφ as a polynomial in cos φ, lowest power first
    odd: tuple[Tensor, ...]  # the same of Σ_n sine[n] sin nφ / sin φ; empty where it is zero
    improper_torsion: Tensor
    improper_k: Tensor
    improper_phi0: Tensor
    improper_period: Tensor
    cmap_torsions: Tensor  # (2 nc,)
    cmap_cells: Tensor  # (nc, 1): where a torsion pair's map begins in ``cmap``
    cmap_size: Tensor  # (nc, 1)
    cmap: Tensor  # (cells, 16)
    solvents: tuple[SolventTables, ...]


def tables(p: OpenMMParameters, kt: float, dtype: torch.dtype, device: torch.device) -> Tables:
    """``kt``: kJ/mol in one kT."""

    def column(a: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(a, dtype=np.float64))[..., None].to(
            device, dtype
        )

    def index(a: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(a, dtype=np.int64)).to(device)

    even, odd = _polynomials(p.torsion_cosine / kt, p.torsion_sine / kt)
    sizes = np.array([len(m) for m in p.maps], dtype=int)
    first = np.concatenate([[0], np.cumsum(sizes**2)]).astype(int)
    cells = np.concatenate(
        [_bicubic(m / kt).reshape(-1, 16) for m in p.maps] or [np.zeros((0, 16))]
    )
    return Tables(
        tail=index(p.pairs[:, 0]),
        head=index(p.pairs[:, 1]),
        lj12=column(p.lj12 / kt),
        lj6=column(p.lj6 / kt),
        coulomb=column(p.coulomb / kt),
        bonds=index(p.bonds),
        bond_r0=column(p.bond_r0),
        bond_k=column(p.bond_k / kt),
        angles=index(p.angles.T.ravel()),
        angle_theta0=column(p.angle_theta0),
        angle_k=column(p.angle_k / kt),
        torsion_pairs=index(p.torsion_pairs.T.ravel()),
        torsion_sign=column(p.torsion_sign.T.reshape(-1, 1)),
        even=tuple(column(c) for c in even),
        odd=tuple(column(c) for c in odd),
        improper_torsion=index(p.improper_torsion),
        improper_k=column(p.improper_k / kt),
        improper_phi0=column(p.improper_phi0),
        improper_period=column(p.improper_period),
        cmap_torsions=index(p.cmap_torsions.T.ravel()),
        cmap_cells=index(first[p.cmap_map])[:, None],
        cmap_size=index(sizes[p.cmap_map])[:, None],
        cmap=torch.from_numpy(cells).to(device, dtype),
        solvents=tuple(solvent_tables(s, p.pairs, kt, dtype, device) for s in p.solvents),
    )


def _polynomials(cosine: np.ndarray, sine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """cos nφ = T_n(cos φ) and sin nφ = sin φ U_{n-1}(cos φ) summed to one polynomial per
    torsion."""
    even, odd = np.zeros_like(cosine), np.zeros_like(sine)
    first, second = (
        np.zeros((2, len(cosine))),
        np.zeros((2, len(cosine))),
    )  # T_{n-1}, T_n and U_{n-1}, U_n
    if len(cosine):
        first[1, 0] = second[1, 0] = 1.0  # n = 0
    for n in range(len(cosine)):
        even += cosine[n] * first[1][:, None]
        odd += sine[n] * second[0][:, None]
        for chain, factor in ((first, 1.0 if n == 0 else 2.0), (second, 2.0)):
            chain[:] = chain[1], factor * np.roll(chain[1], 1) - chain[0]
    return even, odd[:-1] if odd.any() else odd[:0]


def _bicubic(grid: np.ndarray) -> np.ndarray:
    """Coefficients ``(size, size, 16)`` of ``(u^a v^b)``, a slow, in each cell of a periodic energy
    map.

    ``grid: (size, size)`` by the two angles from 0 in steps of 2π/size; u and v are the fractions
    of a step. The surface is the bicubic spline whose derivatives at the nodes are those of
    periodic cubic splines.
    """
    size = len(grid)
    steps = np.arange(size + 1.0)

    def slope(values: np.ndarray, axis: int) -> np.ndarray:
        closed = np.concatenate([values, values.take([0], axis)], axis)
        return CubicSpline(steps, closed, axis, bc_type="periodic")(steps[:-1], 1)

    along, across = slope(grid, 0), slope(grid, 1)
    nodes = np.stack(
        [[grid, across], [along, slope(along, 1)]]
    )  # (2, 2, size, size): derivatives in u and v
    # values at 0 and 1 and slopes at 0 and 1 -> powers 0..3
    hermite = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [-3, 3, -2, -1], [2, -2, 1, 1]], dtype=float)
    ends = np.stack([nodes, np.roll(nodes, -1, 2)], 1).reshape(
        4, 2, size, size
    )  # u: value 0, 1, slope 0, 1
    corners = np.stack([ends, np.roll(ends, -1, 3)], 2).reshape(4, 4, size, size)
    return np.einsum("au,bv,uvij->ijab", hermite, hermite, corners)


def evaluate(t: Tables, x: Tensor) -> tuple[Tensor, Tensor]:
    """Energies ``(B)`` [kT] and gradients ``(N, 3, B)`` [kT/Å] for positions ``(N, 3, B)``.

    Sums over terms are ``index_add_``, not products with 0/1 matrices: they keep full precision
    under autocast and under reduced-precision matrix products (TF32, bfloat16).
    """
    d = x.index_select(0, t.tail).sub_(x.index_select(0, t.head))
    r2 = _dot(d, d).clamp_min_(_NEAREST2)
    inv_r2 = r2.reciprocal()
    inv_r = inv_r2.sqrt()
    r = r2 * inv_r
    energy, slope = _nonbonded(t, inv_r2, inv_r)
    energy = energy + _bonds(t, r, slope)
    energy = energy + _angles(t, r2, inv_r, slope)
    for solvent in t.solvents:
        energy = energy + add_solvent(solvent, r, r2, inv_r, inv_r2, slope)
    gradient = None
    if len(t.torsion_pairs):
        arms = d.index_select(0, t.torsion_pairs).mul_(t.torsion_sign)
        more, on_arms = _torsions(t, arms)
        energy = energy + more
        gradient = on_arms.mul_(t.torsion_sign)
    d *= slope[:, None]
    if gradient is not None:
        d.index_add_(0, t.torsion_pairs, gradient)
    return energy, torch.zeros_like(x).index_add_(0, t.tail, d).index_add_(0, t.head, d, alpha=-1)


def _nonbonded(t: Tables, inv_r2: Tensor, inv_r: Tensor) -> tuple[Tensor, Tensor]:
    """Lennard-Jones and Coulomb terms of all pairs ``(P, B)``: energies ``(B)`` and (dE/dr)/r ``(P,
    B)``."""
    inv_r6 = (inv_r2 * inv_r2).mul_(inv_r2)
    coulomb = inv_r * t.coulomb
    repulsion = (inv_r6 * inv_r6).mul_(t.lj12)
    attraction = inv_r6.mul_(t.lj6)
    slope = (
        torch.add(coulomb, repulsion, alpha=12.0).sub_(attraction, alpha=6.0).mul_(inv_r2).neg_()
    )
    return coulomb.add_(repulsion).sub_(attraction).sum(0), slope


def _bonds(t: Tables, r: Tensor, slope: Tensor) -> Tensor:
    length = r.index_select(0, t.bonds)
    stretch = length - t.bond_r0
    force = stretch * t.bond_k
    slope.index_add_(0, t.bonds, force / length)
    return 0.5 * (force.mul_(stretch)).sum(0)


def _angles(t: Tables, r2: Tensor, inv_r: Tensor, slope: Tensor) -> Tensor:
    """½ k (θ - θ0)², cos θ = (a² + b² - c²) / 2ab with arms a, b and base c."""
    a2, b2, c2 = r2.index_select(0, t.angles).unflatten(0, (3, -1))
    inv_a, inv_b = inv_r.index_select(0, t.angles[: 2 * len(a2)]).unflatten(0, (2, -1))
    inv_ab = inv_a * inv_b
    cosine = (a2 + b2).sub_(c2).mul_(inv_ab).mul_(0.5)
    # (1 - cos²) from its two factors; a straight angle has no derivative in cos θ: bounded, not NaN
    sine = ((1 - cosine) * (1 + cosine)).clamp_min_(torch.finfo(cosine.dtype).eps ** 2).sqrt_()
    bend = torch.atan2(sine, cosine).sub_(t.angle_theta0)
    torque = bend * t.angle_k
    energy = 0.5 * (torque * bend).sum(0)
    torque.div_(sine)
    base = torque * inv_ab
    turn = torque.mul_(cosine)
    on_a = torch.addcmul(-base, turn, inv_a.square())
    on_b = torch.addcmul(-base, turn, inv_b.square())
    slope.index_add_(0, t.angles, torch.cat([on_a, on_b, base]))
    return energy


def _torsions(t: Tables, arms: Tensor) -> tuple[Tensor, Tensor]:
    """Energies ``(B)`` and their gradients by the arms ``(3 nt, 3, B)``: F = x0-x1, G = x1-x2, H =
    x3-x2.

    A. Blondel and M. Karplus, J. Comput. Chem. 17, 1132 (1996), eqs 5, 7 and 27: no singularity at
    φ = 0, π.
    """
    f, g, h = arms.unflatten(0, (3, -1)).unbind()
    a, b = torch.linalg.cross(f, g, dim=1), torch.linalg.cross(h, g, dim=1)
    tiny = torch.finfo(arms.dtype).tiny ** 0.5  # collinear atoms: bounded, not NaN
    inv_a2, inv_b2 = (
        _dot(a, a).clamp_min_(tiny).reciprocal_(),
        _dot(b, b).clamp_min_(tiny).reciprocal_(),
    )
    length = _dot(g, g).clamp_min_(tiny).sqrt_()
    scale = (inv_a2 * inv_b2).sqrt_()
    cosine = _dot(a, b).mul_(scale)
    sine = _dot(f, b).mul_(scale).mul_(length).neg_()

    value, by_cosine = _horner(t.even, cosine)
    torque = -sine * by_cosine  # dE/dφ
    energy = value.sum(0)
    if t.odd:
        value, by_cosine = _horner(t.odd, cosine)
        torque += cosine * value - sine.square().mul_(by_cosine)
        energy = energy + value.mul_(sine).sum(0)
    if len(t.improper_torsion) or len(t.cmap_cells):
        phi = torch.atan2(sine, cosine)
        energy = energy + _impropers(t, phi, torque) + _cmap(t, phi, torque)

    inv_length = length.reciprocal()
    along_f = _dot(f, g).mul_(inv_length).mul_(inv_a2).mul_(torque)
    along_h = _dot(h, g).mul_(inv_length).mul_(inv_b2).mul_(torque)
    torque *= length
    on_f = a * (torque * inv_a2).neg_()[:, None]
    on_h = b * (torque * inv_b2)[:, None]
    on_g = a.mul_(along_f[:, None]).sub_(b.mul_(along_h[:, None]))
    return energy, torch.cat([on_f, on_g, on_h])


def _impropers(t: Tables, phi: Tensor, torque: Tensor) -> Tensor:
    away = phi.index_select(0, t.improper_torsion) - t.improper_phi0
    away = away - t.improper_period * torch.round(away / (2 * math.pi))
    force = away * t.improper_k
    torque.index_add_(0, t.improper_torsion, force, alpha=2.0)
    return (force * away).sum(0)


def _cmap(t: Tables, phi: Tensor, torque: Tensor) -> Tensor:
    if not len(t.cmap_cells):
        return phi.new_zeros(phi.shape[1])
    turns = phi.index_select(0, t.cmap_torsions).unflatten(0, (2, -1)) / (2 * math.pi)
    place = (turns - turns.floor()) * t.cmap_size
    # NaN has no cell; its energy must be NaN all the same, which the fractions carry
    cell = torch.minimum(place.nan_to_num(0.0).floor().long(), t.cmap_size - 1)
    u, v = place - cell
    power_u, power_v = (torch.stack([torch.ones_like(w), w, w * w, w * w * w], -1) for w in (u, v))
    slope_u, slope_v = (
        torch.stack([0 * w, torch.ones_like(w), 2 * w, 3 * w * w], -1) for w in (u, v)
    )
    c = t.cmap[t.cmap_cells + cell[0] * t.cmap_size + cell[1]].unflatten(
        -1, (4, 4)
    )  # (nc, B, a, b)
    by_v = (c * power_v[..., None, :]).sum(-1)
    value = (by_v * power_u).sum(-1)
    on_u = (by_v * slope_u).sum(-1)
    on_v = ((c * slope_v[..., None, :]).sum(-1) * power_u).sum(-1)
    per_radian = t.cmap_size / (2 * math.pi)
    torque.index_add_(
        0, t.cmap_torsions, torch.cat([on_u * per_radian, on_v * per_radian]).to(torque)
    )
    return value.sum(0)


def _horner(coefficients: tuple[Tensor, ...], c: Tensor) -> tuple[Tensor, Tensor]:
    """A polynomial in ``c`` and its derivative."""
    value, slope = torch.zeros_like(c), torch.zeros_like(c)
    for coefficient in reversed(coefficients):
        slope = torch.addcmul(value, slope, c)
        value = torch.addcmul(coefficient, value, c)
    return value, slope


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar product of vectors ``(rows, 3, B)``."""
    (a0, a1, a2), (b0, b1, b2) = a.unbind(1), b.unbind(1)
    return (a0 * b0).addcmul_(a1, b1).addcmul_(a2, b2)
