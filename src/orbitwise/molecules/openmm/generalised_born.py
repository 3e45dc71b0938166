"""Generalised-Born implicit solvents of a batch of geometries, with hand-derived gradients.

Pairwise descreening after Hawkins, Cramer and Truhlar, J. Phys. Chem. 100, 19824 (1996); Born radii
after Onufriev, Bashford and Case, Proteins 55, 383 (2004), eq 6 (OBC); necks after Mongan et al.,
J. Chem. Theory Comput. 3, 156 (2007) and Nguyen, Roe and Simmerling, ibid. 9, 2020 (2013) (GBn,
GBn2); the pair function of Still et al., J. Am. Chem. Soc. 112, 6127 (1990); surface term of
Schaefer, Bartels and Karplus, J. Mol. Biol. 284, 835 (1998). All parameters come with the
``Solvent``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orbitwise.molecules.openmm.solvent import Solvent


@dataclass(frozen=True)
class SolventTables:
    """Columns ``(rows, 1)``, energies in kT, lengths in Å. Directed rows ``(2P, 1)``: first each
    pair's tail as the receiver of what its head takes from it, then the other way round."""

    tail: Tensor
    head: Tensor
    receiver: Tensor
    offset: Tensor  # ρ̃ of the receiver
    scaled: Tensor  # of the descreener
    scaled2: Tensor
    engulfing: Tensor  # the rows in which the descreener is larger: it may contain the receiver
    counts_engulfed: bool
    inv_offset: Tensor  # (N, 1)
    radius: Tensor
    coefficients: tuple[Tensor, Tensor, Tensor] | None
    pair_charge: Tensor  # (P, 1): -k q q', times 1/ε below
    self_charge: Tensor  # (N, 1): -½ k q²
    inv_solute: float
    inv_solvent: float
    kappa: float
    surface: Tensor  # (N, 1) × (ρ + probe)² ρ⁶
    has_surface: bool
    necks: Tensor | None  # the directed rows that have one
    neck_height: Tensor | None
    neck_distance: Tensor | None
    neck_reach: Tensor | None


def solvent_tables(
    s: Solvent, pairs: np.ndarray, kt: float, dtype: torch.dtype, device: torch.device
) -> SolventTables:
    def column(a: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(a))[:, None].to(device, dtype)

    def index(a: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(a)).to(device)

    tail, head = pairs.T
    receiver, giver = np.concatenate([tail, head]), np.concatenate([head, tail])
    offset, scaled = s.offset_radius[receiver], s.scaled_radius[giver]
    charge = s.coulomb / kt * s.charge[tail] * s.charge[head]
    necks = {"necks": None, "neck_height": None, "neck_distance": None, "neck_reach": None}
    if s.neck_height is not None:
        rows = np.flatnonzero(s.neck_height[receiver, giver])
        at = receiver[rows], giver[rows]
        necks = {
            "necks": index(rows),
            "neck_height": column(s.neck_height[at]),
            "neck_distance": column(s.neck_distance[at]),
            "neck_reach": column(s.radius[at[0]] + s.radius[at[1]] + s.neck_cut),
        }
    return SolventTables(
        tail=index(tail),
        head=index(head),
        receiver=index(receiver),
        offset=column(offset),
        scaled=column(scaled),
        scaled2=column(scaled**2),
        engulfing=index(np.flatnonzero(scaled > offset)),
        counts_engulfed=s.engulfed,
        inv_offset=column(1.0 / s.offset_radius),
        radius=column(s.radius),
        coefficients=None if s.coefficients is None else tuple(map(column, s.coefficients)),
        pair_charge=column(-charge),
        self_charge=column(-0.5 * s.coulomb / kt * s.charge**2),
        inv_solute=1.0 / s.solute_dielectric,
        inv_solvent=1.0 / s.solvent_dielectric,
        kappa=s.kappa,
        surface=column(s.surface / kt * (s.radius + s.probe) ** 2 * s.radius**6),
        has_surface=s.surface != 0.0,
        **necks,
    )


def add_solvent(
    t: SolventTables, r: Tensor, r2: Tensor, inv_r: Tensor, inv_r2: Tensor, slope: Tensor
) -> Tensor:
    """Energies ``(B)`` for distances ``(P, B)``; adds (dE/dr)/r to ``slope: (P, B)``."""
    integral, by_r = _integrals(t, r, inv_r, inv_r2)
    born, by_integral = _born_radii(t, integral)

    # Still's f² = r² + Bi Bj exp(-r² / 4 Bi Bj); E = Σ_{i<j} (-k q q') g(f) + Σ_i (-½ k q²) g(B)
    product = born.index_select(0, t.tail).mul_(born.index_select(0, t.head))
    ratio = (r2 / product).mul_(0.25)
    gauss = torch.exp(-ratio)
    inv_f = torch.addcmul(r2, product, gauss).rsqrt_()
    pair, slope_f = _screened(t, inv_f)
    energy = (pair * t.pair_charge).sum(0)
    on_f2 = slope_f.mul_(t.pair_charge).mul_(inv_f).mul_(0.5)  # dE/d(f²)
    slope.add_(on_f2, alpha=2.0)
    on_product = on_f2.mul_(gauss)  # dE/d(f²) e
    slope.sub_(on_product, alpha=0.5)
    on_product.mul_(ratio.add_(1.0)).mul_(product)  # BiBj dE/d(BiBj), the same for both atoms

    inv_born = born.reciprocal()
    own, slope_b = _screened(t, inv_born)
    energy = energy + (own * t.self_charge).sum(0)
    on_born = slope_b.mul_(t.self_charge)
    shared = (
        torch.zeros_like(born).index_add_(0, t.tail, on_product).index_add_(0, t.head, on_product)
    )
    on_born.addcmul_(shared, inv_born)
    if t.has_surface:
        inv_b2 = inv_born * inv_born
        surface = (inv_b2 * inv_b2).mul_(inv_b2).mul_(t.surface)
        energy = energy + surface.sum(0)
        on_born.addcmul_(surface, inv_born, value=-6.0)

    on_integral = on_born.mul_(by_integral)
    directed = by_r.mul_(on_integral.index_select(0, t.receiver)).view(2, *r.shape)
    slope.addcmul_(directed[0], inv_r).addcmul_(directed[1], inv_r)
    return energy


def _integrals(t: SolventTables, r: Tensor, inv_r: Tensor, inv_r2: Tensor) -> tuple[Tensor, Tensor]:
    """The Born integrals ``(N, B)`` and the derivative by r of every directed contribution ``(2P,
    B)``.

    With L = max(ρ̃, |r - s|) and U = r + s the explicit derivative is all there is: that by L
    vanishes where L = r - s and that by U always, except where the descreener contains the receiver
    (L = s - r).
    """
    r, inv_r, inv_r2 = (torch.cat([a, a]) for a in (r, inv_r, inv_r2))
    inner = (r - t.scaled).abs_()
    lower = torch.maximum(inner, t.offset).reciprocal_()
    upper = torch.maximum(
        r + t.scaled, t.offset
    ).reciprocal_()  # a descreener inside the receiver gives 0
    squares = upper.square().sub_(lower.square())
    logs = torch.log(upper / lower).mul_(inv_r)
    ratio = inv_r2 * t.scaled2
    # ½ [1/L - 1/U + ¼ (r - s²/r)(1/U² - 1/L²) + ½ log(L/U)/r]; here logs = log(L/U)/r
    value = (1.0 - ratio).mul_(r).mul_(squares).mul_(0.25)
    value.add_(lower).sub_(upper).add_(logs, alpha=0.5).mul_(0.5)
    by_r = ratio.add_(1.0).mul_(squares).mul_(0.125).sub_(logs.mul_(inv_r), alpha=0.25)
    if len(t.engulfing):
        offset = t.offset[t.engulfing]
        gap = t.scaled[t.engulfing] - r.index_select(0, t.engulfing)
        inv_gap = torch.maximum(gap, offset).reciprocal_()
        if t.counts_engulfed:
            value.index_add_(0, t.engulfing, offset.reciprocal() - inv_gap)
        else:
            by_r.index_add_(0, t.engulfing, inv_gap.square_().mul_(gap > offset))

    if t.necks is not None:
        near = r.index_select(0, t.necks)
        away = (near - t.neck_distance).mul_(0.1)  # the formula's numbers are for nm
        away2 = away.square()
        away4 = away2.square()
        height = t.neck_height * (near <= t.neck_reach)
        inverse = (away4 * away2).mul_(3e5).add_(away2, alpha=100.0).add_(1.0).reciprocal_()
        neck = height.mul_(inverse)
        value.index_add_(0, t.necks, neck)
        # d/dr 1/(1 + 100 y² + 3e5 y⁶), y = (r - d0)/10 Å
        by_r.index_add_(
            0, t.necks, away4.mul_(18e5).add_(200.0).mul_(away).mul_(inverse).mul_(neck).mul_(-0.1)
        )

    total = torch.zeros(len(t.radius), r.shape[1], dtype=r.dtype, device=r.device)
    return total.index_add_(0, t.receiver, value), by_r


def _born_radii(t: SolventTables, integral: Tensor) -> tuple[Tensor, Tensor]:
    """B ``(N, B)`` and dB/dI."""
    if t.coefficients is None:  # HCT
        born = (t.inv_offset - integral).reciprocal_()
        return born, born.square()
    alpha, beta, gamma = t.coefficients
    psi = integral / t.inv_offset
    series = torch.addcmul(-beta, psi, gamma).mul_(psi).add_(alpha)
    bend = torch.tanh(series * psi)
    by_psi = (3.0 * gamma * psi - 2.0 * beta).mul_(psi).add_(alpha)
    born = (t.inv_offset - bend / t.radius).reciprocal_()
    return born, born.square().mul_(1.0 - bend.square()).mul_(by_psi).div_(t.inv_offset * t.radius)


def _screened(t: SolventTables, inv: Tensor) -> tuple[Tensor, Tensor]:
    """g = (1/ε_in - exp(-κ f)/ε_out)/f at ``inv`` = 1/f, and dg/df."""
    if t.kappa == 0.0:
        value = inv * (t.inv_solute - t.inv_solvent)
        return value, -(value * inv)
    ions = torch.exp(-t.kappa / inv).mul_(t.inv_solvent)
    value = (t.inv_solute - ions).mul_(inv)
    return value, (t.kappa * ions - value).mul_(inv)
