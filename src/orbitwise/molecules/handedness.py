"""Which labelled hydrogen is on which side: one labelling convention for all conformers of a
molecule.

Embedding programs number the two hydrogens of a CH2 group (or the two methyls of an isopropyl
group) at random, so two conformers that differ by nothing but torsions may differ in labelled
handedness, and no continuous motion joins them. ``relabel`` renumbers equivalent atoms so that
every frame has the labelled handedness of a reference; what is then left over is another
stereoisomer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.molecules.exchange import self_matches
from orbitwise.molecules.stereo.axes import cumulenes

_FOUR_COORDINATE = {5, 6, 7, 14, 15, 16, 32, 33, 34}  # tetrahedral with four neighbours
_PYRAMIDAL = {15, 16, 33, 34}  # do not invert with three neighbours; nitrogen does and is left out
_MAX_CORE_AUTOMORPHISMS = 20_000


def signed_values(x: Tensor, centres: Tensor, bonds: Tensor) -> Tensor:
    """Numbers whose signs are the handedness of tetrahedra ``centres: (C, 4)`` and the geometry of
    double bonds ``bonds: (D, 4)`` in ``x: (*B, N, 3)``, ``(*B, C + D)``.

    Of a tetrahedron its volume (six times), of ``a, i, j, b`` the product of the parts of i→a and
    j→b that are perpendicular to the bond: positive for cis.
    """
    # coordinate by coordinate, (*B, 3, 4, C)
    corners = x.mT.contiguous().index_select(-1, centres.T.flatten()).unflatten(-1, (4, -1))
    edges = corners[..., :3, :] - corners[..., 3:, :]
    (u0, v0, w0), (u1, v1, w1), (u2, v2, w2) = (e.unbind(-2) for e in edges.unbind(-3))
    volume = u0 * (v1 * w2 - v2 * w1) + u1 * (v2 * w0 - v0 * w2) + u2 * (v0 * w1 - v1 * w0)
    if not len(bonds):
        return volume

    a, i, j, b = (x.index_select(-2, column) for column in bonds.T)
    axis = torch.nn.functional.normalize(j - i, dim=-1)
    left = a - i
    left = left - (left * axis).sum(-1, keepdim=True) * axis
    cis = (left * (b - j)).sum(-1)

    return torch.cat([volume, cis], -1)


@dataclass(frozen=True)
class StereoElements:
    """Labelled features that neither a rigid motion nor a torsion changes.

    ``centres: (C, 4)`` the neighbours of each tetrahedral atom in ascending order (three neighbours
    and the atom itself for pyramidal P, S, As, Se; of an allene's middle atom the four at its
    ends); ``centre_atoms: (C,)``; ``bonds: (D, 4)`` rows ``a i j b`` of double bonds ``i=j``
    outside small rings and of cumulenes with an odd number of them, ``a`` and ``b`` the
    lowest-numbered other neighbours.
    """

    centres: np.ndarray
    centre_atoms: np.ndarray
    bonds: np.ndarray

    def signs(self, positions: np.ndarray) -> np.ndarray:
        """``positions: (F, N, 3)`` -> ``(F, C + D)`` of ±1: handedness of centres, cis (+1) of
        bonds."""
        centres, bonds = torch.from_numpy(self.centres), torch.from_numpy(self.bonds)
        values = signed_values(torch.tensor(positions), centres, bonds)
        return np.where(values.numpy() > 0, 1, -1).astype(np.int8)

    def enclosed(self, positions: np.ndarray) -> np.ndarray:
        """``(F, N, 3)`` -> ``(F,)``: whether every centre lies inside the tetrahedron of its four
        neighbours.

        Outside it, handedness means nothing: the sign of the tetrahedron and that of a perceived
        chirality can differ. A geometry from a Markov chain at a molecule's temperature always
        passes.
        """
        four = self.centres[:, 3] != self.centre_atoms
        corners = positions[:, self.centres[four]]  # (F, C, 4, 3)
        centre = positions[:, self.centre_atoms[four]]
        edges = np.swapaxes(corners[:, :, :3] - corners[:, :, 3:], -1, -2)
        offset = (centre - corners[:, :, 3])[..., None]
        flat = ~(np.abs(np.linalg.det(edges)) > 1e-6)
        edges = np.where(flat[..., None, None], np.eye(3), edges)
        first = np.linalg.solve(edges, offset)[..., 0]  # barycentric coordinates
        inside = (first > 0).all(-1) & (first.sum(-1) < 1) & ~flat
        return inside.all(-1)


def stereo_elements(mol: Chem.Mol) -> StereoElements:
    """The stereo elements of a molecule with explicit hydrogens."""
    centres, atoms, bonds = [], [], []
    for atom in mol.GetAtoms():
        near = sorted(other.GetIdx() for other in atom.GetNeighbors())
        if len(near) == 4 and atom.GetAtomicNum() in _FOUR_COORDINATE:
            centres.append(near)
        elif len(near) == 3 and atom.GetAtomicNum() in _PYRAMIDAL:
            centres.append([*near, atom.GetIdx()])
        else:
            continue
        atoms.append(atom.GetIdx())

    rings = mol.GetRingInfo()
    for bond in mol.GetBonds():
        if (
            bond.GetBondType() != Chem.BondType.DOUBLE
            or 0 < _smallest_ring(rings, bond.GetIdx()) < 8
        ):
            continue
        ends = (bond.GetBeginAtom(), bond.GetEndAtom())
        rest = [
            sorted(o.GetIdx() for o in end.GetNeighbors() if o.GetIdx() != other.GetIdx())
            for end, other in (ends, ends[::-1])
        ]
        doubles = [
            sum(x.GetBondType() == Chem.BondType.DOUBLE for x in end.GetBonds()) for end in ends
        ]
        if doubles == [1, 1] and all(len(r) in (1, 2) for r in rest):
            bonds.append([rest[0][0], ends[0].GetIdx(), ends[1].GetIdx(), rest[1][0]])

    for chain in cumulenes(mol):
        if chain.chiral and len(chain.left) == len(chain.right) == 2:
            centres.append(sorted(chain.left + chain.right))
            atoms.append(chain.atoms[len(chain.atoms) // 2])
        elif not chain.chiral:
            bonds.append([chain.left[0], chain.atoms[0], chain.atoms[-1], chain.right[0]])

    as_rows = lambda rows: np.array(rows, dtype=np.int64).reshape(len(rows), 4)  # noqa: E731
    return StereoElements(as_rows(centres), np.array(atoms, dtype=np.int64), as_rows(bonds))


def _smallest_ring(rings: Chem.RingInfo, bond: int) -> int:
    return rings.MinBondRingSize(bond) if rings.NumBondRings(bond) else 0


@dataclass(frozen=True)
class Relabelled:
    """``positions: (F, N, 3)`` in the reference's labelling, ``permutations: (F, N)`` with
    ``positions[f] = original[f, permutations[f]]``, and ``same_isomer: (F,)``: False where no
    renumbering of equivalent atoms gives the reference's handedness (another stereoisomer; left as
    it was)."""

    positions: np.ndarray
    permutations: np.ndarray
    same_isomer: np.ndarray


def relabel(
    mol: Chem.Mol, positions: np.ndarray, reference: np.ndarray | None = None
) -> Relabelled:
    """Renumber equivalent atoms of each frame so that all share the labelled handedness of
    ``reference``.

    ``positions: (F, N, 3)``, ``reference: (N, 3)`` (first frame when None), any unit. Frames that
    agree already are not touched. Raises ``InputError`` when shapes and molecule do not fit.
    """
    positions = np.asarray(positions)
    if positions.ndim != 3 or positions.shape[1:] != (mol.GetNumAtoms(), 3):
        raise InputError(
            f"positions have shape {positions.shape}, expected (frames, {mol.GetNumAtoms()}, 3)"
        )

    reference = positions[0] if reference is None else np.asarray(reference)
    elements = stereo_elements(mol)
    target = elements.signs(reference[None])[0]
    permutations = np.tile(np.arange(mol.GetNumAtoms()), (len(positions), 1))
    open_frames = np.flatnonzero((elements.signs(positions) != target).any(1))
    if len(open_frames):
        classes = _leaf_classes(mol)
        core = _core_automorphisms(mol, classes)
        free = _free_elements(elements, classes)
        fixed = np.array([i not in free for i in range(len(target))])
        permutations[open_frames] = core[
            _first_match(elements, core, positions[open_frames], target, fixed)
        ]
        wrong = (
            elements.signs(np.take_along_axis(positions, permutations[..., None], axis=1)) != target
        )
        for i, (
            a,
            b,
        ) in free.items():  # swap two equal neighbours of this centre where its sign is wrong
            rows = np.flatnonzero(wrong[:, i])
            permutations[np.ix_(rows, [a, b])] = permutations[np.ix_(rows, [b, a])]

    moved = np.take_along_axis(positions, permutations[..., None], axis=1)
    same = (elements.signs(moved) == target).all(1)
    permutations[~same] = np.arange(mol.GetNumAtoms())
    moved[~same] = positions[~same]
    return Relabelled(moved, permutations, same)


def _leaf_classes(mol: Chem.Mol) -> dict[int, list[int]]:
    """For each terminal atom, the terminal atoms of its neighbour that are equal to it, itself
    included."""
    classes: dict[tuple, list[int]] = {}
    for atom in mol.GetAtoms():
        if atom.GetDegree() == 1:
            (bond,) = atom.GetBonds()
            key = (bond.GetOtherAtomIdx(atom.GetIdx()), _label(atom), bond.GetBondType())
            classes.setdefault(key, []).append(atom.GetIdx())
    return {leaf: leaves for leaves in classes.values() for leaf in leaves}


def _label(atom: Chem.Atom) -> tuple:
    return atom.GetAtomicNum(), atom.GetIsotope(), atom.GetFormalCharge(), atom.GetIsAromatic()


def _free_elements(
    elements: StereoElements, classes: dict[int, list[int]]
) -> dict[int, tuple[int, int]]:
    """Elements whose sign a swap of two equal terminal neighbours flips without touching another
    element."""
    free: dict[int, tuple[int, int]] = {}
    for i, row in enumerate(elements.centres.tolist()):
        pairs = [(a, b) for a in row for b in classes.get(a, []) if a < b and b in row]
        if pairs:
            free[i] = pairs[0]
    for i, (a, _, _, b) in enumerate(elements.bonds.tolist(), start=len(elements.centres)):
        pairs = [tuple(classes[end][:2]) for end in (a, b) if len(classes.get(end, [])) > 1]
        if pairs:
            free[i] = pairs[0]
    return free


def _core_automorphisms(mol: Chem.Mol, classes: dict[int, list[int]]) -> np.ndarray:
    """Automorphisms ``(M, N)`` modulo swaps of equal terminal atoms, the identity first.

    Terminal atoms are folded into the label of their neighbour, the rest is matched on itself by
    RDKit, and terminal atoms follow their neighbour in ascending order.
    """
    n = mol.GetNumAtoms()
    inner = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetDegree() != 1]
    if not inner:
        return np.arange(n)[None]
    leaves: dict[int, list[tuple]] = {i: [] for i in inner}
    for leaf in classes:
        (bond,) = mol.GetAtomWithIdx(leaf).GetBonds()
        kind = (_label(mol.GetAtomWithIdx(leaf)), str(bond.GetBondType()))
        leaves[bond.GetOtherAtomIdx(leaf)].append((kind, leaf))
    labels = [
        (_label(mol.GetAtomWithIdx(i)), tuple(sorted(kind for kind, _ in leaves[i]))) for i in inner
    ]
    where = {i: k for k, i in enumerate(inner)}
    ends = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), b.GetBondType()) for b in mol.GetBonds()]
    bonds = [(where[i], where[j], kind) for i, j, kind in ends if i in where and j in where]
    images = self_matches(labels, bonds, _MAX_CORE_AUTOMORPHISMS)

    result = np.tile(np.arange(n), (len(images), 1))
    result[:, inner] = np.asarray(inner)[images]
    order = {i: [leaf for _, leaf in sorted(leaves[i])] for i in inner}
    for i in inner:
        if order[i]:
            table = np.array(
                [order[j] if len(order[j]) == len(order[i]) else order[i] for j in inner]
            )
            result[:, order[i]] = table[images[:, where[i]]]
    identity = (result == np.arange(n)).all(1)
    return np.concatenate([np.arange(n)[None], result[~identity]])


def _first_match(
    elements: StereoElements,
    core: np.ndarray,
    positions: np.ndarray,
    target: np.ndarray,
    fixed: np.ndarray,
) -> np.ndarray:
    """Index ``(F,)`` into ``core`` of the first automorphism that fits the fixed elements (0 if
    none).

    The signs of a renumbered frame follow from its own: a centre takes the sign of its image times
    the parity of the permutation that sorts the images of its neighbours, so no geometry is
    evaluated per automorphism.
    """
    centres, bonds = elements.centres, elements.bonds
    centre_of = np.full(positions.shape[1], -1)
    centre_of[elements.centre_atoms] = np.arange(len(centres))
    images = core[:, centres]  # (M, C, 4)
    i, j = np.triu_indices(4, 1)
    parity = 1 - 2 * ((images[..., i] > images[..., j]).sum(-1) % 2)
    pyramidal = centres[:, 3] == elements.centre_atoms  # here only the first three are sorted
    i, j = np.triu_indices(3, 1)
    parity = np.where(pyramidal, 1 - 2 * ((images[..., i] > images[..., j]).sum(-1) % 2), parity)
    source, sign = centre_of[core[:, elements.centre_atoms]], parity
    if len(bonds):
        moved = core[:, bonds]  # (M, D, 4)
        at = {(a, b): k for k, (_, a, b, _) in enumerate(bonds.tolist())}
        at |= {(b, a): k for (a, b), k in at.items()}
        pair = np.array([[at[tuple(row[1:3])] for row in rows] for rows in moved.tolist()])
        lowest = bonds[pair]  # (M, D, 4): row of the image, in its own direction
        forward = lowest[..., 1] == moved[..., 1]
        left = np.where(forward, lowest[..., 0], lowest[..., 3])
        right = np.where(forward, lowest[..., 3], lowest[..., 0])
        flips = (moved[..., 0] != left).astype(int) + (moved[..., 3] != right)
        source = np.concatenate([source, pair + len(centres)], axis=1)
        sign = np.concatenate([sign, 1 - 2 * (flips % 2)], axis=1)

    found = np.zeros(len(positions), dtype=np.int64)
    for f, own in enumerate(elements.signs(positions)):  # frames one by one keeps (M, E) small
        hits = ((own[source] * sign == target) | ~fixed).all(1)
        found[f] = hits.argmax()
    return found
