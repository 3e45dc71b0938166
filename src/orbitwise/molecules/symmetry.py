"""The symmetry of one molecule that moves: rotations, and the automorphisms that torsions can
realise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from orbitwise.groups.automorphism import Automorphism
from orbitwise.groups.base import Group
from orbitwise.groups.product import Product
from orbitwise.groups.so3 import SO3

if TYPE_CHECKING:
    from rdkit import Chem

LARGEST_GROUP = 216  # automorphisms enumerated in every training step


def symmetry(mol: Chem.Mol, positions: Tensor) -> Group:
    """SO(3), times those automorphisms that torsions can realise, as far as they can be
    enumerated."""
    heavy = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() > 1]
    for fixed in ((), heavy):
        group = Automorphism.from_mol(mol, positions.cpu().double(), fixed=fixed)
        if 1 < group.order <= LARGEST_GROUP:
            return Product(SO3(), group)
    return SO3()
