"""Automorphisms of a molecular graph: which renumberings of the atoms give the same molecule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.base import Device
from orbitwise.groups.permutation import PointPermutation
from orbitwise.groups.stabilisers import StabiliserSearch

if TYPE_CHECKING:  # groups must import without it
    from rdkit.Chem import Mol

# signed volume of unit bond vectors (3.08 in a tetrahedron) or cosine below which there is no sign
_FLAT = 0.1
_PYRAMIDAL = (15, 16, 33, 34)  # three-coordinate P, S, As, Se keep their handedness; N inverts


class Automorphism(PointPermutation):
    """The permutations of atoms that keep labels and bonds; elements as in ``PointPermutation``.

    Build one with ``from_mol`` or ``from_graph``. The group is stored as a chain of stabilisers
    (``levels``), so its ``order`` and uniform sampling cost nothing for any size; ``enumerate`` and
    with it the exact posterior need ``order <= max_order``. Nothing is ever cut off silently.
    >>> import torch
    >>> import orbitwise as ow
    >>> bonds = torch.zeros(4, 4)
    >>> bonds[0, 1:] = bonds[1:, 0] = 1  # ammonia
    >>> group = ow.Automorphism.from_graph(torch.tensor([7, 1, 1, 1]), bonds)
    >>> group
    Automorphism(n=4, order=6)
    >>> group.enumerate()[0][:2].tolist()
    [[0, 1, 2, 3], [0, 1, 3, 2]]
    """

    def __init__(self, n: int, levels: Sequence[Tensor], max_order: int = 5040):
        self.n, self.max_order = n, max_order
        self.levels = tuple(levels)
        self.order = math.prod(len(level) for level in self.levels)
        self._tables: Tensor | None = None

    def __repr__(self) -> str:
        return f"Automorphism(n={self.n}, order={self.order})"

    @classmethod
    def from_mol(
        cls,
        mol: Mol,
        positions: Tensor | np.ndarray | None = None,
        *,
        fixed: Sequence[int] = (),
        max_order: int = 5040,
    ) -> Automorphism:
        """The automorphisms of an RDKit molecule with its hydrogens as atoms.

        Kept are element, isotope, formal charge, number of radical electrons and implicit
        hydrogens, and bond orders with aromatic bonds all alike, so a Kekulé structure does not
        split a ring. Resonance beyond that is not merged: the oxygens of a carboxylate or nitro
        group and the nitrogens of an amidinium differ by charge or bond order (a subgroup of the
        true symmetry, never more).

        ``positions: (N, 3)``: keep only the automorphisms that rigid motion and torsions can
        realise in that geometry: those that preserve the sign of the signed volume of every
        four-coordinate centre (and pyramidal P, S, As, Se) and cis/trans of double bonds. Nearly
        flat centres and twisted double bonds carry no sign; axial chirality and five- or
        more-coordinate centres are not looked at.

        ``fixed``: atoms that must not move (all heavy atoms: only hydrogens are exchanged), a way
        to a smaller group. Raises ``InputError`` for input that does not fit together.
        """
        from rdkit import Chem  # here: groups must import without it

        copy = Chem.Mol(mol)
        try:
            Chem.SanitizeMol(copy)
        except ValueError as error:
            raise InputError(f"the molecule cannot be sanitised by RDKit: {error}") from error
        kinds = [
            (
                a.GetAtomicNum(),
                a.GetIsotope(),
                a.GetFormalCharge(),
                a.GetNumRadicalElectrons(),
                a.GetTotalNumHs(),
            )
            for a in copy.GetAtoms()
        ]
        bonds = np.zeros((len(kinds), len(kinds)), dtype=np.int64)
        for bond in copy.GetBonds():
            i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            bonds[i, j] = bonds[j, i] = (
                4 if bond.GetIsAromatic() else _order(bond.GetBondTypeAsDouble())
            )
        elements = np.array([kind[0] for kind in kinds])
        degree = (bonds > 0).sum(1)
        pyramids = np.flatnonzero((degree == 3) & np.isin(elements, _PYRAMIDAL))
        labels = np.unique(kinds, axis=0, return_inverse=True)[1].reshape(-1)
        return cls._build(labels, bonds, positions, pyramids, fixed, max_order)

    @classmethod
    def from_graph(
        cls,
        labels: Tensor | np.ndarray,
        bonds: Tensor | np.ndarray,
        positions: Tensor | np.ndarray | None = None,
        *,
        fixed: Sequence[int] = (),
        max_order: int = 5040,
    ) -> Automorphism:
        """The automorphisms of a graph: ``labels: (N,)`` (species), ``bonds: (N, N)`` symmetric
        bond orders (0 none, 1, 2, 3, 4 = aromatic), without padding (padded rows would count as
        equal atoms). ``positions`` and ``fixed`` as in ``from_mol``; without elements only
        four-coordinate centres and bonds of order 2 are looked at. Raises ``InputError`` for a
        wrong shape.
        """
        labels, bonds = np.asarray(labels), np.asarray(bonds)
        if (
            labels.ndim != 1
            or bonds.shape != (len(labels), len(labels))
            or (bonds != bonds.T).any()
        ):
            raise InputError(
                f"need labels (N,) and symmetric bonds (N, N); got {labels.shape} and {bonds.shape}"
            )
        labels = np.unique(labels, return_inverse=True)[1].reshape(-1)
        return cls._build(
            labels, bonds.astype(np.int64), positions, np.array([], int), fixed, max_order
        )

    @classmethod
    def _build(
        cls,
        labels: np.ndarray,
        bonds: np.ndarray,
        positions: Tensor | np.ndarray | None,
        pyramids: np.ndarray,
        fixed: Sequence[int],
        max_order: int,
    ) -> Automorphism:
        n = len(labels)
        if n < 1:
            raise InputError("a graph without atoms has no automorphisms")
        fixed = list(fixed)
        if any(not 0 <= i < n for i in fixed):
            raise InputError(f"fixed atoms must lie in 0..{n - 1}, got {fixed}")
        labels = labels.copy()
        labels[fixed] = n + np.arange(len(fixed))
        check = (
            _accept
            if positions is None
            else _Geometry(bonds, _reference(positions, n), pyramids).kept
        )
        chain = StabiliserSearch(labels, bonds, check).chain()
        return cls(n, [torch.from_numpy(level.astype(np.int64)) for level in chain], max_order)

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Uniform elements ``(*shape, n)``, whatever the order: one uniform factor per level of the
        chain."""
        where = device if generator is None else generator.device
        g = self.identity(shape, device=where)
        for level in reversed(self.levels):
            pick = torch.randint(len(level), tuple(shape), generator=generator, device=where)
            g = level.to(g.device)[pick].gather(-1, g)
        return g.to(device or where)

    def enumerate(
        self, *, device: Device = None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """All elements ``(order, n)``, the identity first, and ``-log order``.
        ``NoClosedFormError`` when the order exceeds ``max_order``."""
        if not self.finite:
            raise NoClosedFormError(
                f"the automorphism group has {self.order} elements, more than"
                f" max_order={self.max_order}; give reference positions (keeps those that preserve"
                " handedness), fix atoms (fixed=[...]), raise max_order, or use method='snis',"
                " which draws uniform elements of the whole group"
            )
        if self._tables is None:
            with torch.inference_mode(False):  # for later calls too, whatever their mode
                self._tables = self._all()
        # whoever writes into them writes into his own
        tables = self._tables.clone() if device is None else self._tables.to(device, copy=True)
        weights = torch.full((self.order,), -math.log(self.order), device=device, dtype=dtype)
        return tables, weights

    def _all(self) -> Tensor:
        """The tables of ``enumerate``."""
        tables = self.identity((1,))
        for level in reversed(self.levels):  # p = u_1[u_2[...]], as in sample
            tables = level[:, tables].flatten(0, 1)
        return tables

    @property
    def finite(self) -> bool:
        return self.order <= self.max_order


class _Geometry:
    """The signs in a reference geometry that a kept automorphism must map onto equal signs."""

    def __init__(self, bonds: np.ndarray, x: np.ndarray, pyramids: np.ndarray):
        near = [np.flatnonzero(row) for row in bonds]
        fours = [[c, *near[c]] for c in range(len(x)) if len(near[c]) == 4]
        threes = [[c, *near[c]] for c in pyramids]
        doubles = [
            [a, i, j, b]
            for i, j in np.argwhere(np.triu(bonds == 2))
            for a in near[i]
            for b in near[j]
            if a != j and b != i and a != b
        ]
        tuples = ((fours, 5, _tetrahedron), (threes, 4, _pyramid), (doubles, 4, _cis))
        self._signs = [(np.array(rows, int).reshape(-1, k), sign) for rows, k, sign in tuples]
        self._expected = [sign(x[rows]) for rows, sign in self._signs]
        self._x = x

    def kept(self, p: np.ndarray) -> bool:
        """Whether the decided part of ``p`` (-1 = open) keeps every sign."""
        for (rows, sign), expected in zip(self._signs, self._expected, strict=True):
            images = p[rows]
            decided = (images >= 0).all(1)
            if (sign(self._x[images[decided]]) != expected[decided]).any():
                return False
        return True


def _tetrahedron(x: np.ndarray) -> np.ndarray:
    """Sign of the volume spanned by four unit bond vectors; ``x: (C, 5, 3)``, centre first."""
    u = _unit(x[:, 1:] - x[:, :1])
    return _sign(np.linalg.det(u[:, :3] - u[:, 3:]))


def _pyramid(x: np.ndarray) -> np.ndarray:
    """Sign of the volume of three unit bond vectors; ``x: (C, 4, 3)``, centre first."""
    return _sign(np.linalg.det(_unit(x[:, 1:] - x[:, :1])))


def _cis(x: np.ndarray) -> np.ndarray:
    """+1 cis, -1 trans for a-i=j-b; ``x: (C, 4, 3)``; 0 near a right angle or a straight line."""
    axis = _unit(x[:, 2] - x[:, 1])
    ends = _unit(np.stack([x[:, 0] - x[:, 1], x[:, 3] - x[:, 2]], 1))
    across = ends - (ends * axis[:, None]).sum(-1, keepdims=True) * axis[:, None]
    return _sign((across[:, 0] * across[:, 1]).sum(-1))


def _unit(x: np.ndarray) -> np.ndarray:
    unit: np.ndarray = x / np.linalg.norm(x, axis=-1, keepdims=True).clip(1e-12)
    return unit


def _sign(value: np.ndarray) -> np.ndarray:
    return np.where(np.abs(value) < _FLAT, 0, np.sign(value)).astype(int)


def _accept(p: np.ndarray) -> bool:
    return True


def _reference(positions: Tensor | np.ndarray, n: int) -> np.ndarray:
    x = np.asarray(
        positions.detach().cpu() if isinstance(positions, Tensor) else positions, dtype=float
    )
    if x.shape != (n, 3) or not np.isfinite(x).all():
        raise InputError(
            f"reference positions must be {n} finite points in 3-D, got shape {x.shape}"
        )
    return x


def _order(order: float) -> int:
    """Bond order 1, 2, 3 as it is; others (dative, 1.5 outside aromatic rings, …) a code of their
    own."""
    return int(order) if order in (1.0, 2.0, 3.0) else 10 + int(2 * order)
