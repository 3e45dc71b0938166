"""The parameters of one molecule as columns of one dtype in kT, ready for torch; the constants of
MMFF94's equations (T. A. Halgren, J. Comput. Chem. 17, 490-519, 1996)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orbitwise.molecules.mmff.parameters import MMFFParameters

MDYNE_A = 143.9325  # kcal/mol in 1 md Å
COULOMB = 332.0716  # kcal/mol Å/e²
DEGREE = math.pi / 180.0
CUBIC_BEND = -0.006981317 / DEGREE  # 1/radian
CUBIC_STRETCH = -2.0  # 1/Å
BUFFER_CHARGE = 0.05  # Å
# Eq 8 with ρ' = ρ / 1.12^(1/7) and both of its constants moved into the two factors' denominators.
RHO_SCALE = 1.12 ** (-1.0 / 7.0)
NEAREST2 = 1e-10  # Å²: nearer atoms count as so far apart, and have a direction and a slope
BUFFER_R = 0.07 * RHO_SCALE
BUFFER_RHO7 = 0.12 / 1.12
VDW_SCALE = (1.07 * RHO_SCALE) ** 7


@dataclass(frozen=True)
class Tables:
    """The parameters as columns ``(rows, 1)`` of one dtype on one device, energies in kT.

    The *variables* are the rows [bond stretches (Å), bends (rad), cos φ of torsions]; each has an
    energy that is a polynomial of degree at most four (eqs 2, 3 and 7).
    """

    tail: Tensor  # atoms of all displacements: bonds first, then non-bonded pairs
    head: Tensor
    angle_bonds: Tensor  # (2 na,): first bonds, then second bonds
    angle_sign: Tensor
    bond_r0: Tensor
    bend_theta0: Tensor
    power: tuple[Tensor, Tensor, Tensor, Tensor]  # energy / variable = Σ_n power[n] variable^n
    slope: tuple[Tensor, Tensor, Tensor, Tensor]  # derivative = Σ_n slope[n] variable^n
    torsion_constant: float
    bend_bonds: Tensor  # (2 n_bent,)
    stretch_bend: Tensor  # (2, n_bent, 1)
    linear_k: Tensor
    oop_k: Tensor
    torsion_angles: Tensor  # (2 nt,): first angles, then second angles
    torsion_partner: Tensor  # (2 nt,): the other angle of each torsion
    torsion_sign: Tensor
    vdw_inv_r: Tensor
    vdw_epsilon: Tensor
    vdw_slope: Tensor
    charge: Tensor


def tables(p: MMFFParameters, kt: float, dtype: torch.dtype, device: torch.device) -> Tables:
    """For energies in units of ``kt`` [kcal/mol]."""

    def column(a: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(a))[..., None].to(device, dtype)

    def index(*parts: np.ndarray) -> Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(device)

    bent = len(p.angles) - p.n_linear
    tail, head = np.concatenate([p.bonds, p.nonbonded])[:, ::-1].T
    first, second = p.angle_bonds.T
    before, after = p.torsion_angles.T
    stretch, bend = 0.5 * MDYNE_A * p.bond_k, 0.5 * MDYNE_A * p.angle_k[:bent]
    v1, v2, v3 = p.torsion_v.T
    none = (0.0 * stretch, 0.0 * bend, 0.0 * v1)
    # ½ [V1 (1 + cos φ) + V2 (1 - cos 2φ) + V3 (1 + cos 3φ)] in powers of cos φ
    power = np.stack(
        [
            np.concatenate([none[0], none[1], 0.5 * v1 - 1.5 * v3]),
            np.concatenate([stretch, bend, -v2]),
            np.concatenate([CUBIC_STRETCH * stretch, CUBIC_BEND * bend, 2.0 * v3]),
            np.concatenate([7.0 / 12.0 * CUBIC_STRETCH**2 * stretch, none[1], none[2]]),
        ]
    )
    return Tables(
        tail=index(tail),
        head=index(head),
        angle_bonds=index(first, second),
        angle_sign=column(p.angle_sign),
        bond_r0=column(p.bond_r0),
        bend_theta0=column(DEGREE * p.angle_theta0[:bent]),
        power=column(power / kt).unbind(),
        slope=column(power / kt * np.arange(1, 5)[:, None]).unbind(),
        torsion_constant=float((0.5 * (v1 + v3) + v2).sum() / kt),
        bend_bonds=index(first[:bent], second[:bent]),
        stretch_bend=column(MDYNE_A * p.stretch_bend[:bent].T / kt),
        linear_k=column(MDYNE_A * p.angle_k[bent:] / kt),
        oop_k=column(0.5 * MDYNE_A * p.oop_k / kt),
        torsion_angles=index(before, after),
        torsion_partner=index(after, before),
        torsion_sign=column(p.torsion_sign),
        vdw_inv_r=column(RHO_SCALE / p.vdw_r),
        vdw_epsilon=column(VDW_SCALE * p.vdw_epsilon / kt),
        vdw_slope=column(-7.0 * VDW_SCALE * RHO_SCALE * p.vdw_epsilon / p.vdw_r / kt),
        charge=column(COULOMB * p.charge_product / kt),
    )
