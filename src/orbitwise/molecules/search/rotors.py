"""The bonds of a molecule that turn, the dihedral that names each, and how to set it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.metrics.torus import dihedral
from orbitwise.molecules.search.torsion_move import rotatable_bonds, rotate_about_bond

if TYPE_CHECKING:
    from rdkit import Chem


@dataclass(frozen=True, eq=False)
class Rotors:
    """``axes: (R, 2)`` long and ``moving: (R, N)`` bool as in ``TorsionMove``; ``atoms: (R, 4)``
    long: the dihedral that names each rotor, its axis in the middle, its last atom alone turning.

    A turn by δ adds δ to every dihedral about the bond, so which one names it changes the origin
    alone. Raises ``InputError`` for shapes and atoms that do not fit.
    """

    axes: Tensor
    moving: Tensor
    atoms: Tensor

    def __post_init__(self) -> None:
        r = len(self.axes)
        if self.axes.shape != (r, 2) or len(self.moving) != r or self.atoms.shape != (r, 4):
            raise InputError(
                "rotors need axes (R, 2), moving (R, N), atoms (R, 4), got"
                f" {tuple(self.axes.shape)}, {tuple(self.moving.shape)}, {tuple(self.atoms.shape)}"
            )
        turns = self.moving.gather(1, self.atoms)
        if turns[:, :3].any() or not turns[:, 3].all() or (self.atoms[:, 1:3] != self.axes).any():
            raise InputError(
                "a rotor's four atoms are one that stays, the two of the axis, and one that turns"
            )
        if not _independent(self.axes, self.moving, self.atoms).all():
            raise InputError("two rotors turn each other's dihedral: keep one of them")

    def __len__(self) -> int:
        return len(self.axes)

    @classmethod
    def from_mol(cls, mol: Chem.Mol) -> Rotors | None:
        """The bonds that ``TorsionMove.from_mol`` turns (no methyl groups); None without any.

        The end atoms are the heaviest off the axis, at equal weight the lowest index.
        """
        bonds = rotatable_bonds(mol)
        if not bonds:
            return None
        moving = torch.zeros(len(bonds), mol.GetNumAtoms(), dtype=torch.bool)
        for row, (_, _, side) in enumerate(bonds):
            moving[row, list(side)] = True
        axes = torch.tensor([(i, j) for i, j, _ in bonds])
        atoms = torch.tensor([(_arm(mol, j, i), i, j, _arm(mol, i, j)) for i, j, _ in bonds])
        kept: list[int] = []  # the two ends of a linear chain turn about one line: one rotor
        for row in range(len(bonds)):
            both = [*kept, row]
            if _independent(axes[both], moving[both], atoms[both]).all():
                kept = both
        return cls(axes[kept], moving[kept], atoms[kept])

    def to(self, device: torch.device) -> Rotors:
        if self.axes.device == device:
            return self
        return Rotors(self.axes.to(device), self.moving.to(device), self.atoms.to(device))

    def angles(self, x: Tensor) -> Tensor:
        """Dihedrals of points ``(*B, N, 3) -> (*B, R)``, in radians."""
        return dihedral(x, self.atoms)

    def turn(self, x: Tensor, rotor: Tensor, angle: Tensor) -> Tensor:
        """Turn D rotors of each geometry, one after the other: ``x: (*B, N, 3)``, ``rotor: (*B,
        D)`` long, ``angle: (*B, D)``. No dihedral but theirs changes."""
        for k in range(rotor.shape[-1]):
            one = rotor[..., k]
            x = rotate_about_bond(x, self.axes[one], self.moving[one], angle[..., k])
        return x

    def neighbours(self) -> Tensor:
        """Pairs of rotors whose bonds share an atom, ``(P, 2)`` long."""
        shared = (self.axes[:, None, :, None] == self.axes[None, :, None, :]).flatten(2).any(-1)
        return shared.triu(1).nonzero()


def _independent(axes: Tensor, moving: Tensor, atoms: Tensor) -> Tensor:
    """Whether a turn of rotor s leaves the dihedral of rotor r alone, ``(R, R)`` bool (r, s): its
    four atoms all turn or all stay, those of the axis doing either."""
    turns = moving.T[atoms]  # (R, 4, R)
    axis = (atoms[:, :, None, None] == axes).any(-1)
    whole = (turns | axis).all(1) | (~turns | axis).all(1)
    return whole | torch.eye(len(axes), dtype=torch.bool, device=axes.device)


def _arm(mol: Chem.Mol, other: int, end: int) -> int:
    """The atom that shows how ``end`` is turned about its bond to ``other``: its heaviest further
    neighbour; behind a linear (sp) chain, that of the chain's last atom."""
    from rdkit import Chem

    while True:
        near = [a for a in mol.GetAtomWithIdx(end).GetNeighbors() if a.GetIdx() != other]
        if mol.GetAtomWithIdx(end).GetHybridization() != Chem.HybridizationType.SP or len(near) > 1:
            return min(near, key=lambda a: (-a.GetAtomicNum(), a.GetIdx())).GetIdx()
        other, end = end, near[0].GetIdx()
