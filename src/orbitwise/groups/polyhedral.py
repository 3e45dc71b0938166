"""The rotation groups of the tetrahedron, the cube and the icosahedron: 12, 24 and 60 rotations.

As quadrature nodes on SO(3) their means vanish, as the Haar mean does, on all Wigner functions of
degree 1 to 2, 1 to 3 and 1 to 5: these degrees hold no invariant of the group (Du Val,
Homographies, Quaternions and Rotations, 1964).
"""

from __future__ import annotations

import itertools
import math

import torch

from orbitwise.groups.finite import Finite
from orbitwise.groups.so3 import from_quaternion


def tetrahedral() -> Finite:
    """The 12 rotations of a tetrahedron: quaternions ±1, ±i, ±j, ±k and (±1 ±i ±j ±k)/2."""
    return _of(_units() + _halves())


def octahedral() -> Finite:
    """The 24 rotations of a cube, which carry a cubic grid onto itself: signed permutations of the
    axes."""
    edges = [
        [a * math.sqrt(0.5) if k == i else b * math.sqrt(0.5) if k == j else 0.0 for k in range(4)]
        for i, j in itertools.combinations(range(4), 2)
        for a, b in itertools.product((1, -1), repeat=2)
    ]
    group = _of(_units() + _halves() + edges)
    return Finite(group.matrices.round())


def icosahedral() -> Finite:
    """The 60 rotations of an icosahedron: the quaternions of ``tetrahedral`` and the even
    permutations of (±φ, ±1, ±1/φ, 0)/2."""
    golden = (1 + math.sqrt(5)) / 2
    even = [p for p in itertools.permutations(range(4)) if _sign(p) > 0]
    rest = []
    for signs in itertools.product((1, -1), repeat=3):
        value = [signs[0] * golden / 2, signs[1] / 2, signs[2] / golden / 2, 0.0]
        rest += [[value[p[k]] for k in range(4)] for p in even]
    return _of(_units() + _halves() + rest)


def _units() -> list[list[float]]:
    return [[s if k == i else 0.0 for k in range(4)] for i in range(4) for s in (1.0, -1.0)]


def _halves() -> list[list[float]]:
    return [list(signs) for signs in itertools.product((0.5, -0.5), repeat=4)]


def _sign(permutation: tuple[int, ...]) -> int:
    swaps = sum(a > b for a, b in itertools.combinations(permutation, 2))
    return -1 if swaps % 2 else 1


def _of(quaternions: list[list[float]]) -> Finite:
    """The group of the quaternions (w, x, y, z), of which q and -q are one rotation."""
    q = torch.tensor(quaternions, dtype=torch.float64)
    first = (q.abs() > 1e-9).int().argmax(-1, keepdim=True)
    q = q[q.gather(-1, first)[:, 0] > 0]  # one of each pair
    return Finite(from_quaternion(q.roll(-1, -1)))
