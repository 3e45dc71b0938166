"""The terms of one molecule in two flat arrays, for machine code to walk along."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orbitwise.molecules.mmff.tables import Tables


@dataclass(frozen=True)
class Terms:
    """The parameters of one molecule. ``words`` (int64) begins with the ``COUNTS`` and with where
    each section of ``WORDS`` (there) and ``REALS`` (in ``reals``) begins."""

    words: Tensor
    reals: Tensor
    atoms: int
    bonds: int
    angles: int


# What a row of each section has. Words: two atoms of a bond; two bonds of an angle; two angles of a
# torsion; the first pair of an atom; the other atom of a pair.
WORDS = ("bonds", "angles", "torsions", "first", "partner")
REALS = {
    "bond": 5,  # r0, four powers
    "sign": 1,  # of every angle
    "bend": 7,  # θ0, four powers, two stretch-bend constants
    "linear": 1,
    "oop": 1,
    "torsion": 5,  # sign, four powers
    "pair": 4,  # 1/R', ε', slope, charge
    "constant": 1,
}
# "angles" has the linear ones too, which come last.
COUNTS = ("atoms", "bonds", "bent", "angles", "oop", "torsions")


def pack(t: Tables, n_atoms: int) -> Terms:
    """``Terms`` of the columns ``t``, which are on the CPU."""
    n_bonds, n_bent, n_angles = len(t.bond_r0), len(t.bend_theta0), len(t.angle_sign)
    n_torsions = len(t.torsion_sign)
    stretch, bend, phi = torch.cat(t.power, 1).split([n_bonds, n_bent, n_torsions])
    # a pair belongs to its first atom, and they come in the order of those
    first = torch.searchsorted(t.head[n_bonds:].contiguous(), torch.arange(n_atoms + 1))
    words = {
        "bonds": torch.stack([t.tail[:n_bonds], t.head[:n_bonds]], 1),
        "angles": t.angle_bonds.view(2, n_angles).T,
        "torsions": t.torsion_angles.view(2, n_torsions).T,
        "first": first,
        "partner": t.tail[n_bonds:],
    }
    reals = {
        "bond": torch.cat([t.bond_r0, stretch], 1),
        "sign": t.angle_sign,
        "bend": torch.cat([t.bend_theta0, bend, *t.stretch_bend], 1),
        "linear": t.linear_k,
        "oop": t.oop_k,
        "torsion": torch.cat([t.torsion_sign, phi], 1),
        "pair": torch.cat([t.vdw_inv_r, t.vdw_epsilon, t.vdw_slope, t.charge], 1),
        "constant": t.bond_r0.new_tensor([t.torsion_constant]),
    }
    counts = [n_atoms, n_bonds, n_bent, n_angles, len(t.oop_k), n_torsions]
    sizes = [words[name].numel() for name in WORDS]
    begin = np.cumsum([len(counts) + len(WORDS) + len(REALS), *sizes[:-1]])
    begin_real = np.cumsum([0, *(reals[name].numel() for name in REALS)][:-1])
    head = torch.tensor([*counts, *begin.tolist(), *begin_real.tolist()])
    return Terms(
        words=torch.cat([head, *(words[name].reshape(-1) for name in WORDS)]),
        reals=torch.cat([reals[name].reshape(-1) for name in REALS]),
        atoms=n_atoms,
        bonds=n_bonds,
        angles=n_angles,
    )
