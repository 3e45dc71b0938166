"""Batches of different molecules: what a network reads of each graph, and the symmetries of each
item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from orbitwise.data.batch import PointBatch
from orbitwise.errors import InputError
from orbitwise.groups.automorphism import Automorphism
from orbitwise.groups.item_permutations import ItemPermutations
from orbitwise.molecules.files.sets import Conformers
from orbitwise.molecules.handedness import stereo_elements
from orbitwise.molecules.molecule import bond_orders

MARKS = (
    "ring3",
    "ring4",
    "ring5",
    "ring6",
    "ring7+",
    "conjugated",
    "cis",
    "trans",
)  # bits of ``pairs``


@dataclass(frozen=True)
class MoleculeBatch(PointBatch):
    """Points with what tells one molecule from another.

    ``charge: (B, N)`` formal charges; ``pairs: (B, N, N)`` long, bit k set where ``MARKS[k]``
    holds: both atoms in a ring of that size, a conjugated bond between them, or ends of a double
    bond on the same or on opposite sides. ``corners: (B, C, 4)`` long: the neighbours of each
    tetrahedral atom, in the order in which ``det(x_0 - x_3, x_1 - x_3, x_2 - x_3) > 0`` for this
    stereoisomer (three neighbours and the atom itself for pyramidal P, S); -1 where an item has
    fewer. ``centres: (B, C)``: that atom. ``renamings``: the automorphisms of each graph that keep
    its handedness, or a subgroup of them.
    """

    charge: Tensor
    pairs: Tensor
    corners: Tensor
    centres: Tensor
    renamings: ItemPermutations

    def __getitem__(self, index: Tensor | slice) -> MoleculeBatch:
        return MoleculeBatch(*(getattr(self, f.name)[index] for f in fields(self)))

    def to(self, device: torch.device | str) -> MoleculeBatch:
        return MoleculeBatch(*(getattr(self, f.name).to(device) for f in fields(self)))

    def cut(self, atoms: int, corners: int) -> MoleculeBatch:
        """Without padding beyond so many atoms and stereocentres."""
        n, c, group = atoms, corners, self.renamings
        return MoleculeBatch(
            x=self.x[:, :n],
            species=self.species[:, :n],
            bonds=self.bonds[:, :n, :n],
            mask=self.mask[:, :n],
            charge=self.charge[:, :n],
            pairs=self.pairs[:, :n, :n],
            corners=self.corners[:, :c],
            centres=self.centres[:, :c],
            renamings=ItemPermutations(group.tables[..., :n], group.present),
        )


@dataclass(frozen=True)
class Graph:
    """One molecule as arrays; fields as in ``MoleculeBatch``, without a batch axis."""

    species: Tensor
    bonds: Tensor
    charge: Tensor
    pairs: Tensor
    corners: Tensor
    centres: Tensor
    automorphisms: Automorphism
    whole_order: int

    @classmethod
    def of(cls, mol: Chem.Mol, positions_angstrom: np.ndarray, max_group: int = 64) -> Graph:
        """From a sanitised molecule with its hydrogens and one geometry ``(N, 3)``, which decides
        its handedness.

        ``max_group``: a larger automorphism group is replaced by the subgroup that leaves hydrogens
        where they are, as many of them as it takes (then heavy atoms): still a group, so an orbit
        under it is one, and every estimate stays right; it merely removes less. ``whole_order`` is
        that of the whole.
        """
        x = np.asarray(positions_angstrom, dtype=np.float64)
        elements = stereo_elements(mol)
        signs = elements.signs(x[None])[0][: len(elements.centres)]
        corners = elements.centres.copy()
        corners[signs < 0] = corners[signs < 0][:, [1, 0, 2, 3]]
        group, whole = _automorphisms(mol, x, max_group)
        return cls(
            species=torch.tensor([a.GetAtomicNum() for a in mol.GetAtoms()]),
            bonds=bond_orders(mol),
            charge=torch.tensor([a.GetFormalCharge() for a in mol.GetAtoms()]),
            pairs=torch.from_numpy(_marks(mol, x)),
            corners=torch.from_numpy(corners),
            centres=torch.from_numpy(elements.centre_atoms),
            automorphisms=group,
            whole_order=whole,
        )


def _automorphisms(mol: Chem.Mol, x: np.ndarray, most: int) -> tuple[Automorphism, int]:
    group = Automorphism.from_mol(mol, x, max_order=most)
    whole = group.order
    if most == 1:
        return Automorphism(mol.GetNumAtoms(), []), whole
    hydrogens = [a.GetIdx() for a in mol.GetAtoms() if a.GetAtomicNum() == 1]
    others = [i for i in range(mol.GetNumAtoms()) if i not in set(hydrogens)]
    fixed: list[int] = []
    for atom in [*hydrogens, *others]:
        if group.order <= most:
            break
        fixed.append(atom)
        group = Automorphism.from_mol(mol, x, fixed=fixed, max_order=most)
    return group, whole


def _marks(mol: Chem.Mol, x: np.ndarray) -> np.ndarray:
    n = mol.GetNumAtoms()
    marks = np.zeros((n, n), dtype=np.int64)
    bit = {name: 1 << k for k, name in enumerate(MARKS)}
    for ring in mol.GetRingInfo().AtomRings():
        marks[np.ix_(ring, ring)] |= bit[f"ring{len(ring)}" if len(ring) < 7 else "ring7+"]
    for bond in mol.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if bond.GetIsConjugated():
            marks[i, j] |= bit["conjugated"]
            marks[j, i] |= bit["conjugated"]
        if bond.GetBondType() == Chem.BondType.DOUBLE:
            for a, b, cis in _sides(mol, i, j, x):
                marks[a, b] |= bit["cis" if cis else "trans"]
                marks[b, a] |= bit["cis" if cis else "trans"]
    return marks


def _sides(mol: Chem.Mol, i: int, j: int, x: np.ndarray) -> list[tuple[int, int, bool]]:
    """Neighbours ``a`` of i and ``b`` of j, and whether they are on one side of the double bond
    i=j."""
    ends = [
        [o.GetIdx() for o in mol.GetAtomWithIdx(k).GetNeighbors() if o.GetIdx() not in (i, j)]
        for k in (i, j)
    ]
    if not all(len(end) in (1, 2) for end in ends):
        return []
    axis = x[j] - x[i]
    axis = axis / max(np.linalg.norm(axis), 1e-12)
    across = lambda v: v - (v @ axis) * axis  # noqa: E731
    return [
        (a, b, bool(across(x[a] - x[i]) @ across(x[b] - x[j]) > 0))
        for a in ends[0]
        for b in ends[1]
        if a != b
    ]


@dataclass(frozen=True)
class Buckets:
    """One training batch cut into ``parts`` of molecules of nearly one size, so that padding costs
    little."""

    parts: tuple[MoleculeBatch, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def to(self, device: torch.device | str) -> Buckets:
        return Buckets(tuple(part.to(device) for part in self.parts))


class ConformerData:
    """Conformers of many molecules in memory, for the training loop: ``data[index]`` is a
    ``Buckets``.

    Graphs are stored once per molecule, padded to the largest; ``x: (C, N, 3)`` float32 Å and
    ``owner: (C,)``, the molecule of each conformer. ``weights``: how many times a molecule counts
    beside its conformers is left to the sampler: an index is a conformer. Raises ``InputError`` for
    an empty list.
    """

    def __init__(self, molecules: Sequence[Conformers], *, max_group: int = 64, buckets: int = 4):
        if not molecules:
            raise InputError("there are no molecules to learn from")
        self.molecules, self.buckets = tuple(molecules), buckets
        graphs = [Graph.of(m.mol, m.positions_angstrom[0], max_group) for m in molecules]
        self.graphs = Graphs.of(graphs)
        n = self.graphs.species.shape[1]
        count = [len(m) for m in molecules]
        self.owner = torch.repeat_interleave(torch.arange(len(molecules)), torch.tensor(count))
        self.x = torch.zeros(len(self.owner), n, 3)
        at = 0
        for m in molecules:  # ragged input
            self.x[at : at + len(m), : m.atoms] = torch.from_numpy(m.positions_angstrom)
            at += len(m)

    def __len__(self) -> int:
        return len(self.owner)

    def __getitem__(self, index: Tensor) -> Buckets:
        """Conformers ``index: (B,)``, sorted by size into ``buckets`` parts."""
        size = self.graphs.size[self.owner[index]]
        index = index[size.argsort()]
        return Buckets(
            tuple(self.batch(part) for part in index.tensor_split(self.buckets) if len(part))
        )

    def batch(self, index: Tensor) -> MoleculeBatch:
        """Conformers ``index: (B,)`` as one batch, in this order."""
        return self.graphs.batch(self.owner[index], self.x[index])


@dataclass(frozen=True)
class Graphs:
    """Many molecules, padded to the largest; fields as in ``MoleculeBatch``; ``size``, ``stereo:
    (M,)``: numbers of atoms and of tetrahedral atoms."""

    species: Tensor
    bonds: Tensor
    charge: Tensor
    pairs: Tensor
    corners: Tensor
    centres: Tensor
    size: Tensor
    stereo: Tensor
    renamings: ItemPermutations

    @classmethod
    def of(cls, graphs: Sequence[Graph]) -> Graphs:
        """Stack; integers are kept as small as they are."""
        size = torch.tensor([len(g.species) for g in graphs])
        stereo = torch.tensor([len(g.centres) for g in graphs])
        n, c, m = int(size.max()), int(stereo.max()), len(graphs)
        species, charge = torch.zeros(m, n, dtype=torch.uint8), torch.zeros(m, n, dtype=torch.int8)
        bonds, pairs = (
            torch.zeros(m, n, n, dtype=torch.uint8),
            torch.zeros(m, n, n, dtype=torch.uint8),
        )
        corners = torch.full((m, c, 4), -1, dtype=torch.int16)
        centres = torch.full((m, c), -1, dtype=torch.int16)

        for k, g in enumerate(graphs):  # ragged input
            i, j = len(g.species), len(g.centres)
            species[k, :i], charge[k, :i] = g.species, g.charge
            bonds[k, :i, :i], pairs[k, :i, :i] = g.bonds, g.pairs
            corners[k, :j], centres[k, :j] = g.corners, g.centres

        renamings = ItemPermutations.stack([g.automorphisms for g in graphs], n)
        return cls(
            species=species,
            bonds=bonds,
            charge=charge,
            pairs=pairs,
            corners=corners,
            centres=centres,
            size=size,
            stereo=stereo,
            renamings=renamings,
        )

    def batch(self, index: Tensor, x: Tensor) -> MoleculeBatch:
        """Molecules ``index: (B,)`` at ``x: (B, N, 3)`` (padded to any width that holds them)."""
        n, c = int(self.size[index].max()), int(self.stereo[index].max())
        group = self.renamings[index]
        return MoleculeBatch(
            x=x[:, :n],
            species=self.species[index, :n].long(),
            bonds=self.bonds[index, :n, :n].long(),
            mask=torch.arange(n) < self.size[index, None],
            charge=self.charge[index, :n].long(),
            pairs=self.pairs[index, :n, :n].long(),
            corners=self.corners[index, :c].long(),
            centres=self.centres[index, :c].long(),
            renamings=ItemPermutations(group.tables[..., :n], group.present),
        )
