"""Rotatable bonds on the atom-bond-angle graph of their molecule, as tensors: no geometry.

One vertex per atom, bond and angle; bonds are tied to their atoms, angles to theirs (Swanson,
Williams, Jonas, arXiv 2306.07472). Vertices of several molecules are padded; a padded vertex is
tied to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from orbitwise.errors import InputError

if TYPE_CHECKING:
    from rdkit import Chem

ELEMENTS = (1, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53)
RINGS = (3, 4, 5, 6, 7)
ORDERS = (1.0, 1.5, 2.0, 3.0)
# kind, element or other, hybridisation, degree, charge, aromatic; order, conjugated, E, Z; rings
FEATURES = 3 + len(ELEMENTS) + 1 + 3 + 5 + 2 + len(ORDERS) + 3 + len(RINGS)


@dataclass(frozen=True, eq=False)
class TorsionBatch:
    """B rotors, each with the graph of its molecule and what is known of its angle.

    ``features: (B, V, F)``; ``ties: (B, V, V)``, rows that average over neighbours and self;
    ``hand: (B, V)``, +1 for R, -1 for S, else 0. The rotor: its ``bond: (B,)`` vertex, and of its
    two ends the atom and the named arm ``ends: (B, 2, 2)``, the ``others: (B, 2, 2)`` (-1: none)
    and ``side: (B, 2)``: +1 where, seen from the other end, the first of the others follows the
    arm clockwise, -1 where the second does, 0 where that is not known or there are not two.
    ``share: (B, G)``: of G even angles from -π on.
    """

    features: Tensor
    ties: Tensor
    hand: Tensor
    bond: Tensor
    ends: Tensor
    others: Tensor
    side: Tensor
    share: Tensor

    def __len__(self) -> int:
        return len(self.bond)

    def to(self, device: torch.device | str) -> TorsionBatch:
        return TorsionBatch(*(v.to(device) for v in vars(self).values()))

    @property
    def mirrored(self) -> TorsionBatch:
        """The same rotors of the mirror images: all handedness reversed, and all angles."""
        share = self.share.flip(-1).roll(1, -1)  # -π stays, then from π - step downwards
        return replace(self, hand=-self.hand, side=-self.side, share=share)


@dataclass(frozen=True, eq=False)
class TorsionData:
    """Rotors of several molecules; ``data[index]`` is a ``TorsionBatch``.

    ``graphs``: features, ties and hand of M molecules ``(M, V, ...)``; ``molecule: (R,)`` which one
    a rotor is of; the rest as in ``TorsionBatch``, for all R.
    """

    graphs: tuple[Tensor, Tensor, Tensor]
    molecule: Tensor
    rotors: tuple[Tensor, Tensor, Tensor, Tensor]
    share: Tensor

    @classmethod
    def of(
        cls,
        molecules: Sequence[Chem.Mol],
        rotors: Sequence[tuple[int, Sequence[int]]],
        share: Tensor | None = None,
    ) -> TorsionData:
        """``molecules`` with explicit hydrogens; ``rotors``: (which molecule, atoms a-b-c-d), b-c a
        bond; ``share: (R, G)``, uniform by default. Raises ``InputError`` naming a rotor that does
        not fit."""
        graphs = [_graph(mol) for mol in molecules]
        size = max(len(g[0]) for g in graphs)
        found = []
        for number, (which, atoms) in enumerate(rotors):
            try:
                found.append(_rotor(molecules[which], [int(a) for a in atoms]))
            except (AttributeError, OverflowError, ValueError, RuntimeError):
                raise InputError(
                    f"rotor {number}: atoms {list(map(int, atoms))} are not four different atoms of"
                    f" molecule {which} whose middle two are bonded"
                ) from None
        columns = zip(*found, strict=True)
        bond, ends, others, side = (torch.tensor(np.array(c)) for c in columns)
        if share is None:
            share = torch.full((len(rotors), 36), 1 / 36)
        return cls(
            tuple(torch.stack([_padded(g[k], size, k == 1) for g in graphs]) for k in range(3)),
            torch.tensor([which for which, _ in rotors]),
            (bond, ends, others, side.float()),
            share.float(),
        )

    def __len__(self) -> int:
        return len(self.molecule)

    def __getitem__(self, index: Tensor) -> TorsionBatch:
        """Cut to the largest graph of the batch."""
        which = self.molecule[index]
        features, ties, hand = self.graphs
        used = int((ties[which].diagonal(0, 1, 2) > 0).sum(-1).max())
        return TorsionBatch(
            features[which, :used],
            ties[which, :used, :used],
            hand[which, :used],
            *(v[index] for v in self.rotors),
            self.share[index],
        )


def _graph(mol: Chem.Mol) -> tuple[Tensor, Tensor, Tensor]:
    """Features ``(V, F)``, ties ``(V, V)`` and hand ``(V,)``: atoms, then bonds, then angles."""
    from rdkit.Chem import rdCIPLabeler

    rdCIPLabeler.AssignCIPLabels(mol)
    rings = mol.GetRingInfo().AtomRings()
    rows, tied, hand = [], [], []
    for atom in mol.GetAtoms():
        rows.append(_atom(atom) + _rings(rings, {atom.GetIdx()}))
        tied.append([])
        code = atom.GetProp("_CIPCode") if atom.HasProp("_CIPCode") else ""
        hand.append({"R": 1.0, "S": -1.0}.get(code, 0.0))
    for bond in mol.GetBonds():
        ends = {bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()}
        code = bond.GetProp("_CIPCode") if bond.HasProp("_CIPCode") else ""
        own = [float(bond.GetBondTypeAsDouble() == order) for order in ORDERS]
        own += [float(bond.GetIsConjugated()), float(code == "E"), float(code == "Z")]
        blank = FEATURES - 3 - len(own) - len(RINGS)
        rows.append([0.0, 1.0, 0.0] + [0.0] * blank + own + _rings(rings, ends))
        tied.append(sorted(ends))
    for atom in mol.GetAtoms():
        for a, b in combinations(sorted(n.GetIdx() for n in atom.GetNeighbors()), 2):
            blank = FEATURES - 3 - len(RINGS)
            three = {a, atom.GetIdx(), b}
            rows.append([0.0, 0.0, 1.0] + [0.0] * blank + _rings(rings, three))
            tied.append([a, atom.GetIdx(), b])

    ties = np.eye(len(rows), dtype=np.float32)
    for row, atoms in enumerate(tied):
        ties[row, atoms] = ties[atoms, row] = 1.0
    ties /= ties.sum(1, keepdims=True)
    hand += [0.0] * (len(rows) - len(hand))
    return torch.tensor(rows), torch.from_numpy(ties), torch.tensor(hand)


def _atom(atom: Chem.Atom) -> list[float]:
    from rdkit import Chem

    kinds = Chem.HybridizationType
    element = [float(atom.GetAtomicNum() == z) for z in ELEMENTS]
    element.append(float(not any(element)))
    form = [float(atom.GetHybridization() == k) for k in (kinds.SP, kinds.SP2, kinds.SP3)]
    degree = [float(atom.GetDegree() == k) for k in (1, 2, 3, 4)]
    degree.append(float(atom.GetDegree() > 4))
    own = element + form + degree + [float(atom.GetFormalCharge()), float(atom.GetIsAromatic())]
    return [1.0, 0.0, 0.0, *own] + [0.0] * (FEATURES - 3 - len(own) - len(RINGS))


def _rings(rings: Sequence[Sequence[int]], atoms: set[int]) -> list[float]:
    """Of which sizes there are rings that hold all these atoms."""
    sizes = {len(ring) for ring in rings if atoms <= set(ring)}
    return [float(size in sizes) for size in RINGS]


def _padded(value: Tensor, size: int, both: bool) -> Tensor:
    """Zeros after the rows up to ``size``, and after the columns too where ``both``."""
    more = size - len(value)
    rest = (0, more if both else 0) if value.ndim == 2 else ()
    return torch.nn.functional.pad(value, (*rest, 0, more))


def _rotor(mol: Chem.Mol, atoms: list[int]) -> tuple[int, list, list, list]:
    """Vertex of the bond; of each end atom and arm, the others, and the side."""
    a, b, c, d = atoms
    if len(set(atoms)) < 4:
        raise ValueError
    bond = mol.GetNumAtoms() + mol.GetBondBetweenAtoms(b, c).GetIdx()
    ends, others, sides = [], [], []
    for arm, end, far in ((a, b, c), (d, c, b)):
        near = [n.GetIdx() for n in mol.GetAtomWithIdx(end).GetNeighbors()]
        rest = sorted(set(near) - {arm, far})
        if arm not in near:  # behind a linear chain
            rest = rest[:0]
        sides.append(_side(mol.GetAtomWithIdx(end), [far, arm, *rest]) if len(rest) == 2 else 0)
        ends.append([end, arm])
        others.append([*rest, -1, -1][:2])
    return bond, ends, others, sides


def _side(atom: Chem.Atom, order: list[int]) -> int:
    """+1 where the last three of ``order`` go clockwise as seen from the first, -1 where they go
    the other way, 0 where nothing is written."""
    from rdkit import Chem

    tag = atom.GetChiralTag()
    if tag not in (Chem.CHI_TETRAHEDRAL_CW, Chem.CHI_TETRAHEDRAL_CCW):
        return 0
    written = [bond.GetOtherAtomIdx(atom.GetIdx()) for bond in atom.GetBonds()]
    place = [written.index(k) for k in order]
    odd = sum(x > y for x, y in combinations(place, 2)) % 2
    return (1 if tag == Chem.CHI_TETRAHEDRAL_CW else -1) * (-1 if odd else 1)
