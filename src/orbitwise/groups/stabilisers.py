"""Automorphisms of a coloured graph as a chain of stabilisers, found by refinement and
backtracking.

The chain (Sims 1970; Butler, Fundamental Algorithms for Permutation Groups, ch. 10) describes a
group of any order by a few tables: level k holds one element for every image that base point k can
take while the earlier base points stay fixed. Every element is a product of one table per level in
exactly one way, so the order is the product of the level sizes and a uniform element needs one
uniform choice per level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from orbitwise.errors import InputError

Words = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]
Check = Callable[[np.ndarray], bool]
_MAX_NODES = 100_000


@dataclass
class StabiliserSearch:
    """Automorphisms ``p`` (``p[i]`` = image of vertex i) of a graph that also pass ``check``.

    ``labels: (n,)`` whole numbers; ``bonds: (n, n)`` symmetric whole numbers, 0 = no edge;
    ``check(p)`` gets a partial image table (-1 = open) and says False once it cannot be completed;
    the tables it accepts must form a group. Cost: about n searches of n refinements for graphs that
    colour refinement nearly decides, as those of molecules; ``InputError`` after 100,000 nodes in
    one search (strongly regular graphs).
    """

    labels: np.ndarray
    bonds: np.ndarray
    check: Check

    def __post_init__(self) -> None:
        n = len(self.labels)
        src, dst = np.nonzero(self.bonds)
        kinds = self.bonds[src, dst].astype(np.uint64)
        self._src, self._dst = np.concatenate([src, src + n]), np.concatenate([dst, dst + n])
        self._kind = _mix(np.concatenate([kinds, kinds]))

    def chain(self) -> list[np.ndarray]:
        """The levels, each ``(m, n)`` with m > 1, the identity first; an empty list: the trivial
        group."""
        n, levels = len(self.labels), []
        colours = self._refine(np.concatenate([self.labels, self.labels]))
        while (cell := _cell(colours[:n])) is not None:
            v, tables = cell[0], [np.arange(n)]
            for image in cell[1:]:
                self._nodes = 0
                found = self._search(_individualise(colours, v, image, n))
                tables += [] if found is None else [found]
            if len(tables) > 1:
                levels.append(np.stack(tables))
            colours = self._refine(_individualise(colours, v, v, n))
        return levels

    def _search(self, colours: np.ndarray) -> np.ndarray | None:
        """One automorphism that maps the left colours to the right ones, or None."""
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise InputError(
                "the graph is too symmetric for the automorphism search (strongly regular?)"
            )

        n = len(self.labels)
        colours = self._refine(colours)
        left, right = colours[:n], colours[n:]
        size = np.bincount(left, minlength=colours.max() + 1)
        if (size != np.bincount(right, minlength=len(size))).any():
            return None
        decided = size[left] == 1
        p = np.full(n, -1)
        p[np.flatnonzero(decided)[np.argsort(left[decided])]] = np.flatnonzero(size[right] == 1)[
            np.argsort(right[size[right] == 1])
        ]
        if not self.check(p):
            return None
        still = ~decided & (left == right)
        if (decided | still).all():  # nothing forces the rest to move: try leaving it alone
            whole = np.where(decided, p, np.arange(n))
            if self._is_automorphism(whole) and self.check(whole):
                return whole

        cell = _cell(left)
        if cell is None:
            return None
        images = np.flatnonzero(right == left[cell[0]])
        for image in sorted(images, key=lambda w: w != cell[0]):
            found = self._search(_individualise(colours, cell[0], int(image), n))
            if found is not None:
                return found
        return None

    def _is_automorphism(self, p: np.ndarray) -> bool:
        same_labels = (self.labels[p] == self.labels).all()
        return bool(same_labels and (self.bonds[np.ix_(p, p)] == self.bonds).all())

    def _refine(self, colours: np.ndarray) -> np.ndarray:
        """Split colours by the multiset of (bond, colour) around each vertex until nothing splits;
        the same ranks for both copies of the graph. Multisets are compared by sums of 64-bit
        hashes."""
        count = -1
        while True:
            hashed = _mix(colours.astype(np.uint64))
            around = np.zeros(len(colours), dtype=np.uint64)
            np.add.at(around, self._src, _mix(hashed[self._dst] ^ self._kind))
            distinct, colours = np.unique(
                _mix(hashed + np.uint64(3) * _mix(around)), return_inverse=True
            )
            if len(distinct) == count:
                return colours
            count = len(distinct)


def _mix(x: Words) -> Words:
    """A 64-bit mixing function (splitmix64)."""
    x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _individualise(colours: np.ndarray, v: int, image: int, n: int) -> np.ndarray:
    colours = colours.copy()
    colours[v] = colours[n + image] = colours.max() + 1
    return colours


def _cell(colours: np.ndarray) -> np.ndarray | None:
    """The vertices of a smallest colour class with more than one vertex, None when there is
    none."""
    size = np.bincount(colours)
    open_ = np.flatnonzero(size > 1)
    return None if len(open_) == 0 else np.flatnonzero(colours == open_[np.argmin(size[open_])])
