"""MMFF94 and MMFF94s for a batch of geometries of one molecule, with hand-derived gradients.

T. A. Halgren, J. Comput. Chem. 17, 490-519 (1996): bond stretching (eq 2), angle bending (eqs 3 and
4), stretch-bend (eq 5), out-of-plane (eq 6), torsion (eq 7), buffered 14-7 van der Waals (eq 8) and
buffered electrostatics (eq 13, constant dielectric 1). No cutoff.

On a CPU it is evaluated by machine code (``compiled.py``), which is made in a quarter of a second
at the first call. On other devices, and without llvmlite, torch does it: the batch is the last,
contiguous axis and every term is a row, so one operation does a kind of term for the whole batch.
Each angle has one unit normal, from which both its bend and all its torsions follow (see
``MMFFParameters``); the chain rule back to the atoms is taken once for all of them.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from orbitwise.energies.analytic import AnalyticEnergy
from orbitwise.errors import InputError
from orbitwise.molecules.mmff.parameters import mmff_parameters
from orbitwise.molecules.mmff.tables import (
    BUFFER_CHARGE,
    BUFFER_R,
    BUFFER_RHO7,
    NEAREST2,
    Tables,
    tables,
)
from orbitwise.molecules.mmff.terms import Terms, pack
from orbitwise.units import KCAL_PER_MOL_K

if TYPE_CHECKING:
    from rdkit import Chem

    from orbitwise.molecules.mmff.compiled import Kernel

# Bytes of one array (rows × batch): what stays in a CPU's cache between operations; what a GPU has
# room for.
CHUNK, CHUNK_GPU = 1 << 19, 1 << 27


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar product of vectors ``(rows, 3, B)``."""
    (a0, a1, a2), (b0, b1, b2) = a.unbind(1), b.unbind(1)
    return (a0 * b0).addcmul_(a1, b1).addcmul_(a2, b2)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Vector product of vectors ``(rows, 5, B)`` whose first two components follow again after the
    third."""
    return (a[:, 1:4] * b[:, 2:5]).addcmul_(a[:, 2:5], b[:, 1:4], value=-1.0)


def _horner(v: Tensor, coefficients: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    c0, c1, c2, c3 = coefficients
    p = torch.addcmul(c1, v, torch.addcmul(c2, v, c3))
    return torch.addcmul(c0, v, p)


def _nonbonded(t: Tables, r: Tensor) -> tuple[Tensor, Tensor]:
    """Eqs 8 and 13 for distances ``(np, B)``: energies ``(B)`` and (dE/dr)/r ``(np, B)``."""
    rho = r * t.vdw_inv_r
    rho6 = rho * rho
    rho6 = (rho6 * rho6).mul_(rho6)
    b = (rho6 * rho).add_(BUFFER_RHO7).reciprocal_()
    a = rho.add_(BUFFER_R).reciprocal_()
    a7 = a * a
    a7 = (a7 * a7).mul_(a7).mul_(a)
    well = b - 2.0
    # d/dρ' [a⁷ (b - 2)] = -7 a⁷ [a (b - 2) + b² ρ'⁶]
    slope = b.mul_(b).mul_(rho6).addcmul_(a, well).mul_(a7).mul_(t.vdw_slope)
    buffered = r + BUFFER_CHARGE
    coulomb = t.charge / buffered
    energy = well.mul_(a7).mul_(t.vdw_epsilon).add_(coulomb).sum(0)
    return energy, slope.addcdiv_(coulomb, buffered, value=-1.0).div_(r)


def _out_of_plane(t: Tables, c: Tensor, inv_s2: Tensor) -> tuple[Tensor, Tensor]:
    """Eq 6 from the three cosines ``(3, nc, B)`` at each centre: energies ``(B)``, dE/dcosθ ``(3,
    nc, B)``.

    Wilson's angle χ between one bond and the plane of the two others has sin²χ = V² / sin²θ, with θ
    the angle of those two and V² = 1 + 2 c1 c2 c3 - c1² - c2² - c3² the Gram determinant of the
    three unit vectors.
    """
    eps = torch.finfo(c.dtype).eps
    others = c.roll(1, 0).mul_(c.roll(2, 0))
    gap = others - c
    volume2 = (gap * c).sum(0).sub_(others[0] * c[0]).add_(1.0)  # the sum has 3 c1 c2 c3
    w = (volume2 * inv_s2).clamp_(eps**2, 1.0 - eps)
    root = w.sqrt()
    chi = torch.asin(root)
    scaled = chi * t.oop_k
    slope = (scaled * inv_s2).div_(torch.addcmul(w, w, w, value=-1.0).sqrt_())  # ∂E/∂V²
    return chi.mul_(scaled).sum((0, 1)), (gap * slope.sum(0)).addcmul_(slope.mul_(w), c).mul_(2.0)


def _evaluate(t: Tables, x: Tensor) -> tuple[Tensor, Tensor]:
    """Energies ``(B)`` [kT] and gradients ``(N, 3, B)`` for positions ``(N, 3, B)``.

    Sums over terms are ``index_add_``, not products with 0/1 matrices: they keep full precision
    under autocast and under reduced-precision matrix products (TF32, bfloat16), and are as fast.
    """
    batch = x.shape[-1]
    n_angles, n_torsions = len(t.angle_sign), len(t.torsion_sign)
    nb, bent = len(t.bond_r0), len(t.bend_theta0)

    d = x.index_select(0, t.tail).sub_(x.index_select(0, t.head))
    r = _dot(d, d).clamp_min_(NEAREST2).sqrt_()
    energy, slope = _nonbonded(t, r[nb:])
    d[nb:] *= slope[:, None]

    # unit bond vectors; cosine, sine and unit normal of each angle
    length = r[:nb]
    u = d[:nb] / length[:, None]
    arms = torch.cat([u, u[:, :2]], 1).index_select(0, t.angle_bonds)
    arm1, arm2 = arms[:n_angles], arms[n_angles:]
    c = _dot(arm1[:, :3], arm2[:, :3]).mul_(t.angle_sign)
    normal = _cross(arm1, arm2)
    sine2 = _dot(normal, normal).clamp_min_(torch.finfo(x.dtype).tiny ** 0.5)
    inv_s = sine2.rsqrt()
    normal *= inv_s[:, None]
    normals = normal.index_select(0, t.torsion_angles)

    v = torch.empty(nb + bent + n_torsions, batch, dtype=x.dtype, device=x.device)
    stretch, bend, phi = v.split([nb, bent, n_torsions])
    torch.sub(length, t.bond_r0, out=stretch)
    torch.atan2(sine2[:bent].sqrt(), c[:bent], out=bend).sub_(t.bend_theta0)
    torch.mul(_dot(normals[:n_torsions], normals[n_torsions:]), t.torsion_sign, out=phi)

    # eqs 2, 3 and 7, then stretch-bend (eq 5), linear in each of its variables
    on_v = _horner(v, t.slope)
    on_stretch, on_bend, on_phi = on_v.split([nb, bent, n_torsions])
    coupling = (
        stretch.index_select(0, t.bend_bonds).view(2, bent, batch).mul_(t.stretch_bend).sum(0)
    )
    energy += _horner(v, t.power).mul_(v).sum(0)
    energy += (coupling * bend).sum(0)
    on_bend += coupling
    on_stretch.index_add_(0, t.bend_bonds, (t.stretch_bend * bend).flatten(0, 1))

    on_c = torch.empty_like(c)
    torch.mul(on_bend, inv_s[:bent], out=on_c[:bent]).neg_()
    if bent < n_angles:  # eq 4
        on_c[bent:] = t.linear_k
        energy += (c[bent:] + 1.0).mul_(t.linear_k).sum(0)
    if len(t.oop_k):
        planar = (3, len(t.oop_k), batch)
        rows = slice(0, 3 * len(t.oop_k))
        e, on_planar = _out_of_plane(t, c[rows].view(planar), inv_s[rows].square().view(planar))
        energy += e
        on_c[rows] += on_planar.flatten(0, 1)

    # back to normals, to unit vectors, to bond vectors, to atoms
    normals.view(2, n_torsions, 3, batch).mul_(on_phi.mul_(t.torsion_sign)[:, None])
    on_normal = torch.zeros_like(normal).index_add_(0, t.torsion_partner, normals)
    on_normal.addcmul_(normal, _dot(normal, on_normal)[:, None], value=-1.0).mul_(inv_s[:, None])
    w = torch.cat([on_normal, on_normal[:, :2]], 1)
    on_c = on_c.mul_(t.angle_sign)[:, None]
    on_arms = torch.cat(
        [_cross(arm2, w).addcmul_(on_c, arm2[:, :3]), _cross(w, arm1).addcmul_(on_c, arm1[:, :3])]
    )
    on_u = torch.zeros_like(u).index_add_(0, t.angle_bonds, on_arms).div_(length[:, None])
    on_stretch -= _dot(u, on_u)
    torch.addcmul(on_u, u, on_stretch[:, None], out=d[:nb])
    grad = torch.zeros_like(x).index_add_(0, t.tail, d).index_add_(0, t.head, d, alpha=-1)
    return energy.add_(t.torsion_constant), grad


@cache
def _kernel(dtype: torch.dtype) -> Kernel | None:
    """The machine code, or None where there is no compiler or no leave to run what it makes."""
    try:
        from orbitwise.molecules.mmff.compiled import Kernel

        return Kernel(dtype)
    except ImportError:
        return None
    except (OSError, RuntimeError) as error:
        warnings.warn(f"MMFF94 is evaluated by torch, about 20 times slower: {error}", stacklevel=3)
        return None


class MMFF94(AnalyticEnergy):
    """The MMFF94 or MMFF94s energy of an RDKit molecule, in kT at ``temperature`` [K], for
    positions in Å.

    ``MMFF94(mol)(x)``: ``x: (*B, N, 3)`` -> ``(*B)``; ``value_and_grad(x)`` also gives the analytic
    gradient in kT/Å. Atoms are in the order of ``mol``, which must carry explicit hydrogens and
    needs no conformer. Results have the dtype and device of ``x`` (float32 or float64; nothing
    needs to be moved with ``.to``). Several fragments interact with one another. The same energy as
    RDKit's ``MMFFOptimizeMoleculeConfs``, with ``ignoreInterfragInteractions=False`` (no change for
    a connected molecule) and no non-bonded threshold.

    ``kcal_per_kT`` converts at the edges (kcal/mol = kT times it); ``kcal_per_mol(x)`` gives that
    energy. NaN positions give NaN, for that geometry only: kernels reject it. Coincident atoms give
    the energy of atoms 1e-5 Å apart and a finite gradient. Autograd goes through once; asking for
    second derivatives raises. On a GPU long runs may use ``torch.compile(energy.value_and_grad)``:
    about twice as fast, once it has compiled for some 20 seconds.

    Source: see the head of this file. Raises ``InputError`` for implicit hydrogens, an unknown
    variant, a temperature that is not positive, or ``x`` of the wrong shape or dtype;
    ``EnergyError`` names the atoms that MMFF94 has no type for.
    """

    zero_com = True

    def __init__(self, mol: Chem.Mol, temperature: float = 300.0, variant: str = "MMFF94"):
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise InputError(f"temperature must be positive (kelvin), got {temperature}")
        self.parameters_kcal = mmff_parameters(mol, variant)
        self.temperature = float(temperature)
        self.variant = variant
        self.kcal_per_kT = KCAL_PER_MOL_K * self.temperature
        self.event_shape = (self.parameters_kcal.n_atoms, 3)
        self._cache: dict[tuple[torch.dtype, torch.device], Tables] = {}
        self._terms: dict[torch.dtype, Terms] = {}

    def extra_repr(self) -> str:
        return f"{self.variant}, {self.event_shape[0]} atoms, {self.temperature:g} K"

    def _tables(self, x: Tensor) -> Tables:
        key = (x.dtype, x.device)
        if key not in self._cache:
            self._cache[key] = tables(self.parameters_kcal, self.kcal_per_kT, x.dtype, x.device)
        return self._cache[key]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self._check(x)
        kernel = None
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            kernel = _kernel(x.dtype)
        if kernel is None:
            return self._by_torch(x)

        if x.dtype not in self._terms:
            self._terms[x.dtype] = pack(self._tables(x), self.event_shape[0])
        return kernel(self._terms[x.dtype], x.detach())

    @torch.no_grad()
    def _by_torch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        own = self._tables(x)
        batch = x.shape[:-2]
        columns = x.detach().reshape(-1, *self.event_shape).permute(1, 2, 0)
        room = CHUNK if x.device.type == "cpu" else CHUNK_GPU
        pieces = math.ceil(columns.shape[-1] * len(own.tail) * x.element_size() / room) or 1
        parts = [_evaluate(own, part.contiguous()) for part in columns.chunk(pieces, dim=-1)]
        energy = torch.cat([e for e, _ in parts])
        grad = torch.cat([g.permute(2, 0, 1) for _, g in parts])
        return energy.view(batch), grad.reshape(x.shape)

    def kcal_per_mol(self, x: Tensor) -> Tensor:
        """The energy in kcal/mol, ``(*B)``."""
        return self(x) * self.kcal_per_kT
