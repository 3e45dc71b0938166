"""MMFF94 and MMFF94s for a batch of geometries of one molecule, with hand-derived gradients.

T. A. Halgren, J. Comput. Chem. 17, 490-519 (1996): bond stretching (eq 2), angle bending (eqs 3, 4), stretch-bend
(eq 5), out-of-plane (eq 6), torsion (eq 7), buffered 14-7 van der Waals (eqs 8-11) and buffered electrostatics
(eq 13, constant dielectric 1). No cutoff.

How it is evaluated: the batch is the last, contiguous axis and every term is a row, so one torch operation does a
term type for the whole batch. All bonded terms depend on the coordinates only through bond lengths and scalar
products of two unit bond vectors (see ``MMFFParameters``): neither cross products nor dihedral angles are formed,
and the chain rule back to the atoms is taken once for all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.energies.mmff_parameters import MMFFParameters, mmff_parameters
from orbitwise.errors import InputError

KCAL_PER_MOL_K = 8.31446261815324 / 4184.0  # the gas constant, exact in SI
MDYNE_A = 143.9325  # kcal/mol in 1 md Å
COULOMB = 332.0716  # kcal/mol Å/e²
DEGREE = math.pi / 180.0
CUBIC_BEND = -0.006981317  # 1/degree: -0.4 per radian
CUBIC_STRETCH = -2.0  # 1/Å
BUFFER_CHARGE = 0.05  # Å
# Eq 8 with ρ' = ρ / 1.12^(1/7) and both of its constants moved into the two factors' denominators.
RHO_SCALE = 1.12 ** (-1.0 / 7.0)
BUFFER_R = 0.07 * RHO_SCALE
BUFFER_RHO7 = 0.12 / 1.12
CHUNK = 1 << 17  # elements of one row-by-batch array on a CPU: what stays in its cache between operations


@dataclass(frozen=True)
class _Scatter:
    """Adds rows of terms to rows of targets: ``out[target[t]] += sign[t] · source[t]``."""

    target: Tensor
    matrix: Tensor  # (targets, terms)

    @staticmethod
    def build(
        target: np.ndarray, sign: np.ndarray, size: int, dtype: torch.dtype, device: torch.device
    ) -> _Scatter:
        matrix = torch.zeros(size, len(target), dtype=dtype)
        matrix[torch.from_numpy(target), torch.arange(len(target))] = torch.from_numpy(sign).to(dtype)
        return _Scatter(torch.from_numpy(target).to(device), matrix.to(device))

    def __call__(self, source: Tensor) -> Tensor:
        return torch.matmul(self.matrix, source)


@dataclass(frozen=True)
class _Tables:
    """The parameters as columns of one dtype on one device, energies in kT."""

    tail: Tensor  # atoms of all displacements: bonds first, then non-bonded pairs
    head: Tensor
    bond_r0: Tensor
    bond_k: Tensor
    pair_bonds: Tensor  # (2 (na + nt),): first bonds, then second bonds
    pair_sign: Tensor
    bend_k: Tensor
    bend_theta0: Tensor
    bend_bonds: Tensor  # (2 n_bent,)
    stretch_bend: Tensor  # (2, n_bent, 1)
    linear_k: Tensor
    oop_k: Tensor
    torsion_angles: Tensor  # (2 nt,)
    torsion_c: Tensor  # (4, nt, 1): coefficients of the powers of cos φ
    vdw_inv_r: Tensor
    vdw_epsilon: Tensor
    charge: Tensor
    to_atoms: _Scatter
    pairs_to_bonds: _Scatter
    bends_to_bonds: _Scatter
    torsions_to_angles: _Scatter


def _tables(p: MMFFParameters, kt: float, dtype: torch.dtype, device: torch.device) -> _Tables:
    def column(a: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(a))[..., None].to(device, dtype)

    def index(*parts: np.ndarray) -> Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(device)

    def scatter(target: np.ndarray, sign: np.ndarray, size: int) -> _Scatter:
        return _Scatter.build(target, sign, size, dtype, device)

    na, bent = len(p.angles), len(p.angles) - p.n_linear
    ends = np.concatenate([p.bonds, p.nonbonded])
    first, second = p.pair_bonds.T
    v1, v2, v3 = p.torsion_v.T / kt
    return _Tables(
        tail=index(ends[:, 1]),
        head=index(ends[:, 0]),
        bond_r0=column(p.bond_r0),
        bond_k=column(0.5 * MDYNE_A * p.bond_k / kt),
        pair_bonds=index(first, second),
        pair_sign=column(p.pair_sign),
        bend_k=column(0.5 * MDYNE_A * DEGREE**2 * p.angle_k[:bent] / kt),
        bend_theta0=column(p.angle_theta0[:bent]),
        bend_bonds=index(first[:bent], second[:bent]),
        stretch_bend=column(MDYNE_A * DEGREE * p.stretch_bend[:bent].T / kt),
        linear_k=column(MDYNE_A * p.angle_k[bent:] / kt),
        oop_k=column(0.5 * MDYNE_A * p.oop_k / kt),
        torsion_angles=index(*p.torsion_angles.T),
        # ½ [V1 (1 + cos φ) + V2 (1 - cos 2φ) + V3 (1 + cos 3φ)] in powers of cos φ
        torsion_c=column(np.stack([0.5 * (v1 + 2 * v2 + v3), 0.5 * (v1 - 3 * v3), -v2, 2 * v3])),
        vdw_inv_r=column(RHO_SCALE / p.vdw_r),
        vdw_epsilon=column((1.07 * RHO_SCALE) ** 7 * p.vdw_epsilon / kt),
        charge=column(COULOMB * p.charge_product / kt),
        to_atoms=_Scatter(
            torch.empty(0),
            scatter(ends[:, 1], np.ones(len(ends)), p.n_atoms).matrix
            + scatter(ends[:, 0], -np.ones(len(ends)), p.n_atoms).matrix,
        ),
        # each bond of a pair receives the other one's direction
        pairs_to_bonds=scatter(np.concatenate([second, first]), np.ones(2 * len(first)), len(p.bonds)),
        bends_to_bonds=scatter(
            np.concatenate([first[:bent], second[:bent]]), np.ones(2 * bent), len(p.bonds)
        ),
        torsions_to_angles=scatter(p.torsion_angles.T.reshape(-1), np.ones(2 * len(p.torsions)), na),
    )


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar product over the leading axis of three."""
    return (a[0] * b[0]).addcmul_(a[1], b[1]).addcmul_(a[2], b[2])


def _nonbonded(t: _Tables, r: Tensor) -> tuple[Tensor, Tensor]:
    """Eqs 8 and 13 for distances ``(np, B)``: energies ``(B)`` and (dE/dr)/r ``(np, B)``."""
    rho = r * t.vdw_inv_r
    rho6 = rho * rho
    rho6 = rho6 * rho6 * rho6
    b = (rho6 * rho).add_(BUFFER_RHO7).reciprocal_()
    a = rho.add_(BUFFER_R).reciprocal_()
    a3 = a * a * a
    well = (a3 * a3).mul_(a).mul_(t.vdw_epsilon)
    h = b - 2.0
    # d/dρ' [a⁷ (b - 2)] = -7 a⁷ [a (b - 2) + b² ρ'⁶]
    slope = b.mul_(b).mul_(rho6).addcmul_(a, h).mul_(well).mul_(t.vdw_inv_r).mul_(-7.0)
    inv = (r + BUFFER_CHARGE).reciprocal_()
    coulomb = inv * t.charge
    energy = h.mul_(well).add_(coulomb).sum(0)
    return energy, slope.addcmul_(coulomb, inv, value=-1.0).div_(r)


def _bends(t: _Tables, c: Tensor, inv_s: Tensor, stretch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eqs 3 and 5 for bent angles: energies ``(B)``, dE/dcosθ ``(n, B)`` and dE/d(stretch) of the bonds ``(nb, B)``."""
    delta = torch.acos(c).mul_(1.0 / DEGREE).sub_(t.bend_theta0)
    both = stretch.index_select(0, t.bend_bonds).view(2, len(c), c.shape[-1]) * t.stretch_bend
    coupling = both[0] + both[1]
    k_delta = delta * t.bend_k
    energy = (delta * CUBIC_BEND).add_(1.0).mul_(k_delta).add_(coupling).mul_(delta).sum(0)
    slope = (delta * (3.0 * CUBIC_BEND)).add_(2.0).mul_(k_delta).add_(coupling)
    on_bonds = t.bends_to_bonds((t.stretch_bend * delta).flatten(0, 1))
    return energy, slope.mul_(inv_s).mul_(-1.0 / DEGREE), on_bonds


def _out_of_plane(t: _Tables, c: Tensor, inv_s: Tensor) -> tuple[Tensor, Tensor]:
    """Eq 6 for the three cosines ``(3, nc, B)`` at each centre: energies ``(B)`` and dE/dcosθ ``(3, nc, B)``.

    Wilson's angle χ between one bond and the plane of the two others has sin²χ = V² / sin²θ, with θ the angle of
    those two and V² = 1 + 2 c1 c2 c3 - c1² - c2² - c3² the Gram determinant of the three unit vectors.
    """
    square, inv_s2 = c * c, inv_s * inv_s
    others = torch.stack([c[1] * c[2], c[2] * c[0], c[0] * c[1]])
    volume2 = (2.0 * c[0] * others[0]).add_(1.0).sub_(square.sum(0))
    tiny = torch.finfo(c.dtype).eps ** 2
    w = (volume2 * inv_s2).clamp_(tiny, 1.0 - torch.finfo(c.dtype).eps)
    root = w.sqrt()
    chi = torch.asin(root)
    energy = (chi * chi).mul_(t.oop_k).sum((0, 1))
    slope = chi.mul_(t.oop_k).mul_(inv_s2).div_((1.0 - w).sqrt_().mul_(root))  # ∂E/∂V²
    return energy, (others - c).mul_(slope.sum(0)).addcmul_(slope.mul_(w), c).mul_(2.0)


def _torsions(t: _Tables, p: Tensor, c: Tensor, inv_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eq 7: energies ``(B)``, dE/dp ``(nt, B)`` and dE/dcosθ of all angles ``(na, B)``.

    cos φ = (p + cosθ1 cosθ2) / (sinθ1 sinθ2) with p = f·h (see ``MMFFParameters``).
    """
    ends = (2, len(p), p.shape[-1])
    cosines = c.index_select(0, t.torsion_angles).view(ends)
    inverse = inv_s.index_select(0, t.torsion_angles).view(ends)
    inv = inverse[0] * inverse[1]
    phi = torch.addcmul(p, cosines[0], cosines[1]).mul_(inv)
    c0, c1, c2, c3 = t.torsion_c
    energy = (phi * c3).add_(c2).mul_(phi).add_(c1).mul_(phi).add_(c0).sum(0)
    slope = (phi * (3.0 * c3)).add_(2.0 * c2).mul_(phi).add_(c1)
    on_p = slope * inv
    on_cosines = inverse.square_().mul_(cosines).mul_(slope.mul_(phi)).addcmul_(cosines.flip(0), on_p)
    return energy, on_p, t.torsions_to_angles(on_cosines.flatten(0, 1))


def _evaluate(t: _Tables, x: Tensor) -> tuple[Tensor, Tensor]:
    """Energies ``(B)`` [kT] and gradients ``(3, N, B)`` for positions ``(3, N, B)``."""
    nb, na, bent = len(t.bond_r0), t.torsions_to_angles.matrix.shape[0], len(t.bend_k)
    d = x.index_select(1, t.tail).sub_(x.index_select(1, t.head))
    r = _dot(d, d).sqrt_()
    energy, slope = _nonbonded(t, r[nb:])
    d[:, nb:] *= slope

    # bond stretching, eq 2
    inv_length = r[:nb].reciprocal()
    u = d[:, :nb] * inv_length
    s = r[:nb] - t.bond_r0
    ks = s * t.bond_k
    cubic, quartic = CUBIC_STRETCH, 7.0 / 12.0 * CUBIC_STRETCH**2
    energy += (s * quartic).add_(cubic).mul_(s).add_(1.0).mul_(s).mul_(ks).sum(0)
    on_length = (s * (4.0 * quartic)).add_(3.0 * cubic).mul_(s).add_(2.0).mul_(ks)

    # scalar products of unit bond vectors, and everything that depends on them
    both = u.index_select(1, t.pair_bonds).view(3, 2, len(t.pair_sign), x.shape[-1])
    q = _dot(both[:, 0], both[:, 1]).mul_(t.pair_sign)
    c = q[:na].clamp(-1.0, 1.0)
    inv_s = (1.0 - c * c).clamp_min_(torch.finfo(x.dtype).eps).rsqrt_()
    on_q = torch.empty_like(q)
    e, on_q[na:], on_q[:na] = _torsions(t, q[na:], c, inv_s)
    energy += e
    e, on_bent, on_bonds = _bends(t, c[:bent], inv_s[:bent], s)
    energy += e
    on_q[:bent] += on_bent
    on_length += on_bonds
    energy += (c[bent:] + 1.0).mul_(t.linear_k).sum(0)  # eq 4
    on_q[bent:na] += t.linear_k
    planar = 3 * len(t.oop_k)
    shape = (3, len(t.oop_k), x.shape[-1])
    e, on_planar = _out_of_plane(t, c[:planar].view(shape), inv_s[:planar].view(shape))
    energy += e
    on_q[:planar] += on_planar.flatten(0, 1)

    # back to unit vectors, to bond vectors, to atoms
    both *= on_q.mul_(t.pair_sign)
    on_u = t.pairs_to_bonds(both.flatten(1, 2))
    on_length -= _dot(u, on_u).mul_(inv_length)
    torch.addcmul(on_u.mul_(inv_length), u, on_length, out=d[:, :nb])
    return energy, t.to_atoms(d)


class _Value(torch.autograd.Function):
    """The energy with its analytic gradient as backward pass (once: there are no second derivatives)."""

    @staticmethod
    def forward(ctx, x: Tensor, energy: MMFF94) -> Tensor:
        value, grad = energy.value_and_grad(x)
        ctx.save_for_backward(grad)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream: Tensor):
        (grad,) = ctx.saved_tensors
        return upstream[..., None, None] * grad, None


class MMFF94(Energy):
    """The MMFF94 or MMFF94s energy of an RDKit molecule, in kT at ``temperature`` [K], for positions in Å.

    ``MMFF94(mol)(x)``: ``x: (*B, N, 3)`` -> ``(*B)``; ``value_and_grad(x)`` also gives the analytic gradient in
    kT/Å. Atoms are in the order of ``mol``, which must carry explicit hydrogens and needs no conformer. The result
    has the dtype and device of ``x``, float32 or float64. Equal to RDKit's ``MMFFGetMoleculeForceField`` with
    ``ignoreInterfragInteractions=False`` (the same thing for a connected molecule) and no non-bonded threshold.

    ``kcal_per_kT`` converts: kcal/mol = kT · ``kcal_per_kT``; ``kcal_per_mol(x)`` gives the energy itself.
    NaN positions give NaN for that geometry only; two coincident atoms give a gradient that is not finite (kernels
    reject both). Second derivatives are not implemented (autograd raises).

    Raises ``InputError`` for implicit hydrogens, an unknown variant, a temperature that is not positive, or ``x`` of
    the wrong shape or dtype; ``EnergyError`` names the atoms that MMFF94 has no type for.
    """

    zero_com = True

    def __init__(self, mol, temperature: float = 300.0, variant: str = "MMFF94"):
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise InputError(f"temperature must be positive (kelvin), got {temperature}")
        self.parameters_kcal = mmff_parameters(mol, variant)
        self.temperature = float(temperature)
        self.variant = variant
        self.kcal_per_kT = KCAL_PER_MOL_K * self.temperature
        self.event_shape = (self.parameters_kcal.n_atoms, 3)
        self._cache: dict[tuple[torch.dtype, torch.device], _Tables] = {}

    def extra_repr(self) -> str:
        return f"{self.variant}, {self.event_shape[0]} atoms, {self.temperature:g} K"

    def _tables(self, x: Tensor) -> _Tables:
        key = (x.dtype, x.device)
        if key not in self._cache:
            self._cache[key] = _tables(self.parameters_kcal, self.kcal_per_kT, x.dtype, x.device)
        return self._cache[key]

    def _check(self, x: Tensor) -> None:
        if x.shape[-2:] != self.event_shape:
            n = self.event_shape[0]
            raise InputError(
                f"positions must have shape (*B, {n}, 3) for these {n} atoms, got {tuple(x.shape)}"
            )
        if x.dtype not in (torch.float32, torch.float64):
            raise InputError(f"positions must be float32 or float64, got {x.dtype}")

    def forward(self, x: Tensor) -> Tensor:
        return _Value.apply(x, self)

    @torch.no_grad()
    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self._check(x)
        tables = self._tables(x)
        batch = x.shape[:-2]
        columns = x.detach().reshape(-1, *self.event_shape).permute(2, 1, 0)
        rows = max(1, len(tables.tail))
        width = max(16, CHUNK // rows) if x.device.type == "cpu" else max(16, (1 << 26) // rows)
        parts = [_evaluate(tables, part.contiguous()) for part in columns.split(width, dim=-1)]
        energy = torch.cat([e for e, _ in parts])
        grad = torch.cat([g.permute(2, 1, 0) for _, g in parts])
        return energy.view(batch), grad.reshape(x.shape)

    def kcal_per_mol(self, x: Tensor) -> Tensor:
        """The energy in kcal/mol, ``(*B)``."""
        return self(x) * self.kcal_per_kT
