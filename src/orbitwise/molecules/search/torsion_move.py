"""Rotation of one side of a molecule about a rotatable bond: large jumps between conformers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.search.base import Info, State, start
from orbitwise.search.metropolis import initial_step, keep_centre, metropolis, normal_like, uniform

if TYPE_CHECKING:
    from rdkit import Chem

# (centre, spread) of the angle in radians: local moves, jumps between staggered wells, half turns,
# anywhere.
DEFAULT_ANGLES = ((0.0, 0.3), (2 * math.pi / 3, 0.25), (math.pi, 0.3), (0.0, 2 * math.pi))


def rotate_about_bond(x: Tensor, axis: Tensor, moving: Tensor, angle: Tensor) -> Tensor:
    """Rotate the ``moving: (*B, N)`` points of ``x: (*B, N, 3)`` by ``angle: (*B)`` about the line
    from point ``axis[..., 0]`` to ``axis[..., 1]`` (``axis: (*B, 2)`` long)."""
    ends = x.take_along_dim(axis.unsqueeze(-1), -2)
    origin = ends[..., :1, :]
    unit = torch.nn.functional.normalize(ends[..., 1:, :] - origin, dim=-1)
    # Rodrigues' formula, for the three unit vectors: their images are the rows of the matrix
    basis = torch.eye(3, dtype=x.dtype, device=x.device).expand(*unit.shape[:-2], 3, 3)
    cos, sin = angle.cos()[..., None, None], angle.sin()[..., None, None]
    along = unit.mT * unit
    images = along + cos * (basis - along) + sin * torch.linalg.cross(unit.expand_as(basis), basis)
    turned = origin + (x - origin) @ images
    # a mask in full: torch broadcasts the last axis of one slowly
    return torch.where(torch.stack([moving] * 3, -1), turned, x)


@dataclass(frozen=True, eq=False)
class TorsionMove:
    """One random rotatable bond per chain, one random angle, a Metropolis test: one evaluation per
    step.

    ``axes: (R, 2)`` long: the two atoms of each bond; ``moving: (R, N)`` bool: the atoms that turn.
    ``angles``: the equally likely components ``(centre, spread)`` of the angle, ± centre +
    spread·normal, symmetric about 0. The map preserves Cartesian volume (the axis depends only on
    atoms that stay), so it needs no Jacobian. With ``energy.zero_com`` the centroid is put back.
    Raises ``InputError`` without any rotatable bond.
    """

    axes: Tensor
    moving: Tensor
    angles: tuple[tuple[float, float], ...] = DEFAULT_ANGLES
    target_acceptance: ClassVar[float | None] = None
    step_dims: ClassVar[int] = 0

    def __post_init__(self):
        if self.axes.ndim != 2 or self.axes.shape[1:] != (2,) or len(self.axes) != len(self.moving):
            raise InputError(
                f"axes must be (R, 2) and moving (R, N), got {tuple(self.axes.shape)} and "
                f"{tuple(self.moving.shape)}"
            )
        if not len(self.axes):
            raise InputError("no rotatable bond: leave the torsion move out")
        if self.moving.gather(1, self.axes).any():
            raise InputError("the atoms of a torsion axis must not move with the rotation")

    @classmethod
    def from_mol(
        cls,
        mol: Chem.Mol,
        *,
        methyl: bool = False,
        angles: tuple[tuple[float, float], ...] = DEFAULT_ANGLES,
    ) -> TorsionMove:
        """All single bonds outside rings whose two atoms have further neighbours; the smaller side
        turns.

        Rotors that only permute three equal hydrogens (methyl, NH3+) are left out unless
        ``methyl``; so are sides that lie on the axis (nitriles, terminal alkynes). ``mol`` needs
        explicit hydrogens.
        """
        bonds = rotatable_bonds(mol, methyl=methyl)
        moving = torch.zeros(len(bonds), mol.GetNumAtoms(), dtype=torch.bool)
        for row, (_, _, side) in enumerate(bonds):
            moving[row, list(side)] = True
        axes = torch.tensor([(i, j) for i, j, _ in bonds], dtype=torch.long).view(-1, 2)
        return cls(axes, moving, angles)

    def init(self, x: Tensor, energy: Energy) -> State:
        if x.shape[-2:] != (self.moving.shape[1], 3):
            raise InputError(
                f"torsions of {self.moving.shape[1]} atoms do not fit points {tuple(x.shape)}"
            )
        value, grad = start(x, energy)
        return State(x, value, grad, initial_step(1.0, value))

    def step(
        self, state: State, energy: Energy, generator: torch.Generator | None
    ) -> tuple[State, Info]:
        like = state.energy
        pick = uniform((3, *like.shape), like, generator)
        bond = (pick[0] * len(self.axes)).long()
        table = torch.tensor(self.angles, dtype=like.dtype, device=like.device)[
            (pick[1] * len(self.angles)).long()
        ]
        sign = torch.where(pick[2] < 0.5, -1.0, 1.0).to(like.dtype)
        angle = sign * table[..., 0] + table[..., 1] * normal_like(like, generator)
        axes, moving = self.axes.to(like.device), self.moving.to(like.device)
        x = rotate_about_bond(state.x, axes[bond], moving[bond], angle)
        if energy.zero_com:
            x = keep_centre(x, state.x)
        value, grad = energy.value_and_grad(x)
        return metropolis(state, x, value, grad, state.energy - value, generator)


def rotatable_bonds(mol: Chem.Mol, *, methyl: bool = False) -> list[tuple[int, int, set[int]]]:
    """``(i, j, atoms beyond j)`` of every rotatable bond, j on the smaller side. See
    ``TorsionMove.from_mol``."""
    from rdkit import Chem

    found = []
    for bond in mol.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if bond.GetBondType() != Chem.BondType.SINGLE or bond.IsInRing():
            continue
        sides = {end: _beyond(mol, start, end) for start, end in ((i, j), (j, i))}
        if not all(sides.values()):
            continue
        if any(_on_axis(mol, end, side) for end, side in sides.items()):
            continue
        if not methyl and any(_three_hydrogens(mol, side) for side in sides.values()):
            continue
        near, far = (i, j) if len(sides[j]) <= len(sides[i]) else (j, i)
        found.append((near, far, sides[far]))
    return found


def _beyond(mol: Chem.Mol, start: int, end: int) -> set[int]:
    """Atoms reached from ``end`` without crossing the bond to ``start``; ``end`` itself is not
    counted."""
    seen, queue = {start, end}, [end]
    while queue:
        for other in mol.GetAtomWithIdx(queue.pop()).GetNeighbors():
            if other.GetIdx() not in seen:
                seen.add(other.GetIdx())
                queue.append(other.GetIdx())
    return seen - {start, end}


def _on_axis(mol: Chem.Mol, end: int, side: set[int]) -> bool:
    """A linear side: every atom of the chain from ``end`` is sp until the last."""
    from rdkit import Chem

    inner = [mol.GetAtomWithIdx(k) for k in (end, *side)]
    return all(
        a.GetHybridization() == Chem.HybridizationType.SP
        or (a.GetDegree() == 1 and a.GetIdx() != end)
        for a in inner
    )


def _three_hydrogens(mol: Chem.Mol, side: set[int]) -> bool:
    return len(side) == 3 and all(mol.GetAtomWithIdx(k).GetAtomicNum() == 1 for k in side)
