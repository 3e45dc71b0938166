"""Backbones from their torsions, with ideal bond lengths and angles: helices and strands for
examples and checks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from orbitwise.errors import InputError

# Engh & Huber 1991 (Acta Cryst. A47:392), Å and degrees: the bond to the next atom, the angle at
# this atom
BONDS = {"N": 1.458, "CA": 1.525, "C": 1.329}
ANGLES = {"N": 121.7, "CA": 111.0, "C": 117.2}
HELIX, STRAND = (-60.0, -45.0), (-120.0, 130.0)  # φ and ψ


def build_backbone(phi: Tensor, psi: Tensor, omega: float = 180.0) -> Tensor:
    """N, Cα and C of chains with these torsions in degrees: ``phi, psi: (*B, R)`` -> ``(*B, R, 3,
    3)`` Å, float64.

    Atom by atom (NeRF: Parsons et al. 2005, J. Comput. Chem. 26:1063). φ of the first residue and ψ
    of the last place no atom. Raises ``InputError`` for shapes that differ, or no residue.
    """
    if phi.shape != psi.shape or not phi.shape[-1]:
        raise InputError(
            f"phi and psi must be of one shape (*B, R), got {tuple(phi.shape)} and"
            f" {tuple(psi.shape)}"
        )
    phi, psi = torch.deg2rad(phi.double()), torch.deg2rad(psi.double())
    bend = math.radians(ANGLES["CA"])
    a = phi.new_zeros(*phi.shape[:-1], 3)
    b = a + a.new_tensor([BONDS["N"], 0, 0])
    c = b + BONDS["CA"] * a.new_tensor([-math.cos(bend), math.sin(bend), 0])
    atoms = [a, b, c]
    flat = torch.full_like(phi[..., 0], math.radians(omega))
    for k in range(1, phi.shape[-1]):  # every atom stands on the three before it
        for turn, before, at in (
            (psi[..., k - 1], "C", "C"),
            (flat, "N", "N"),
            (phi[..., k], "CA", "CA"),
        ):
            atoms.append(_next(*atoms[-3:], turn, BONDS[before], math.radians(ANGLES[at])))
    return torch.stack(atoms, -2).unflatten(-2, (-1, 3))


def _next(a: Tensor, b: Tensor, c: Tensor, torsion: Tensor, bond: float, angle: float) -> Tensor:
    """The atom after ``a, b, c``: ``bond`` away from ``c``, at ``angle`` to ``b`` and ``torsion``
    to ``a``."""
    along = torch.nn.functional.normalize(c - b, dim=-1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, along), dim=-1)
    across = torch.linalg.cross(normal, along)
    turn = torsion[..., None]
    step = -math.cos(angle) * along + math.sin(angle) * (
        torch.cos(turn) * across + torch.sin(turn) * normal
    )
    return c + bond * step
