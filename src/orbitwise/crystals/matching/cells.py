"""RMS distance of two crystals by the algorithm of pymatgen's ``StructureMatcher``, all cell
mappings at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from pymatgen.core import Structure

_LARGE = 1e20  # squared distance of atoms that must not be paired
NEXT_CELLS = np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 3, indexing="ij"), -1).reshape(-1, 3)
_CHUNK = 3_000_000  # numbers in the largest array


@dataclass(frozen=True)
class ReducedCell:
    """A primitive Niggli cell: ``lattice (3, 3)`` rows in Å, ``frac (N, 3)``, ``species (N,)``."""

    lattice: np.ndarray
    frac: np.ndarray
    species: np.ndarray

    @property
    def volume(self) -> float:
        return abs(float(np.linalg.det(self.lattice)))


@dataclass(frozen=True)
class CellMatcher:
    """``StructureMatcher(stol=, ltol=, angle_tol=)`` of pymatgen with its other settings as they
    stand there (primitive cells, volumes scaled to each other, no supercells), several times
    faster.

    ``stol``: largest rms distance in units of the free length per atom (V/N)^⅓; ``ltol``: relative
    tolerance of lengths; ``angle_tol`` in degrees. Tested against pymatgen, whose answers it
    repeats.
    """

    stol: float = 0.5
    ltol: float = 0.3
    angle_tol: float = 10.0

    def reduce(self, structure: Structure) -> ReducedCell:
        """The primitive Niggli cell of an ordered structure; errors are those of pymatgen."""
        cell = structure.get_reduced_structure(reduction_algo="niggli").get_primitive_structure()
        species = np.array([site.specie.Z for site in cell])
        return ReducedCell(np.array(cell.lattice.matrix), np.array(cell.frac_coords), species)

    def rms(self, first: ReducedCell, second: ReducedCell) -> float:
        """Smallest rms distance of paired atoms after the best translation, in units of (V/N)^⅓;
        NaN: no match."""
        if not np.array_equal(np.sort(first.species), np.sort(second.species)):
            return math.nan
        ratio = (second.volume / first.volume) ** (1 / 6)
        target = second.lattice / ratio
        aligned = self._mappings(first.lattice * ratio, target)
        if not len(aligned):
            return math.nan
        # the same points in every cell that is like the target's, and the mean of that cell and the
        # target
        places = (first.frac @ (first.lattice * ratio)) @ np.linalg.inv(aligned)
        places -= np.floor(places)
        means = _lattices((_parameters(aligned) + _parameters(target)) / 2)
        # of the rarest species: one atom of the second on each of the first
        counts = (second.species[:, None] == second.species).sum(1)
        anchor = int(counts.argmin())
        onto = np.flatnonzero(first.species == second.species[anchor])
        moved = (
            second.frac + (places[:, onto] - second.frac[anchor])[:, :, None, :]
        )  # (mappings, onto, N, 3)
        pairs = int(counts.sum())
        step = max(1, _CHUNK // (27 * pairs * len(onto)))
        best = math.inf

        for k in range(0, len(aligned), step):
            chunk = slice(k, k + step)
            best = min(best, self._best(places[chunk], moved[chunk], means[chunk], first, second))
        return best if best < self.stol else math.nan

    def _best(self, places, moved, means, first: ReducedCell, second: ReducedCell) -> float:
        size = len(first.species)
        unit = (np.abs(np.linalg.det(means)) / size) ** (1 / 3)
        row, column = np.nonzero(
            second.species[:, None] == first.species
        )  # pairs (second, first) of one species
        offset = places[:, None, column] - moved[:, :, row]  # (mappings, onto, pairs, 3)
        near = np.abs(offset - np.round(offset)) <= self._tolerance(means, unit)[:, None, None]
        partner = np.zeros((*near.shape[:2], size, size), dtype=bool)
        partner[:, :, row, column] = near.all(-1)
        which, anchor = np.nonzero(partner.any(-1).all(-1))
        if not len(which):
            return math.inf
        unit, means = unit[which], means[which]
        reduced = _lll(means)
        # fractional offsets in the reduced cell: f A = f' A'
        offset = offset[which, anchor] @ (means @ np.linalg.inv(reduced))
        offset -= np.round(offset)
        far = (np.abs(offset) > self._tolerance(reduced, unit)[:, None]).any(-1)
        vectors = offset @ reduced
        images = NEXT_CELLS @ reduced
        # |v + s|² of all images s; |v|² is the same for all of them
        squares = 2 * vectors @ images.swapaxes(1, 2) + (images**2).sum(-1)[:, None]
        vectors += np.take_along_axis(images, squares.argmin(-1)[..., None], 1)
        cost = np.full((len(which), size, size), _LARGE)
        cost[:, row, column] = np.where(far, _LARGE, (vectors**2).sum(-1))
        at = np.zeros((size, size), dtype=int)
        at[row, column] = np.arange(len(row))
        item, rows = np.arange(len(which))[:, None], np.arange(size)
        mate = np.stack([linear_sum_assignment(c)[1] for c in cost])
        allowed = (cost[item, rows, mate] < _LARGE).all(-1)
        short = vectors[item, at[rows, mate]]
        short = short - short.mean(1, keepdims=True)
        values = np.sqrt((short**2).sum(-1).mean(-1)) / unit
        return float(np.where(allowed, values, math.inf).min())

    def _tolerance(self, lattices: np.ndarray, unit: np.ndarray) -> np.ndarray:
        """Fractional coordinates ``(M, 3)`` within which two atoms may be paired: 2 stol (V/N)^⅓
        across planes."""
        across = np.linalg.norm(np.linalg.inv(lattices), axis=-2)  # 1 / spacing of the planes
        return 2 * self.stol * unit[:, None] * across

    def _mappings(self, lattice: np.ndarray, target: np.ndarray) -> np.ndarray:
        """All cells ``(M, 3, 3)`` of the lattice, of its own volume, with lengths and angles like
        the target's."""
        *lengths, alpha, beta, gamma = _parameters(target)
        reach = max(lengths) * (1 + self.ltol)
        most = np.ceil(reach * np.linalg.norm(np.linalg.inv(lattice), axis=0)).astype(int)
        grid = np.stack(
            np.meshgrid(*[np.arange(-m, m + 1) for m in most], indexing="ij"), -1
        ).reshape(-1, 3)
        points = grid @ lattice
        norms = np.linalg.norm(points, axis=-1)
        sides = []
        for length in lengths:
            keep = (norms / length < 1 + self.ltol) & (norms / length > 1 / (1 + self.ltol))
            sides.append((grid[keep], points[keep], points[keep] / norms[keep, None]))
        (ga, pa, a), (gb, pb, b), (gc, pc, c) = sides

        def close(u: np.ndarray, v: np.ndarray, angle: float) -> np.ndarray:
            return np.abs(np.degrees(np.arccos(np.clip(u @ v.T, -1, 1))) - angle) <= self.angle_tol

        like = (
            close(a, b, gamma)[:, :, None]
            & close(b, c, alpha)[None]
            & close(a, c, beta)[:, None, :]
        )
        i, j, k = np.nonzero(like)
        whole = np.abs(np.linalg.det(np.stack([ga[i], gb[j], gc[k]], -2).astype(float)))
        same = np.abs(whole - 1) <= 0.5
        return np.stack([pa[i], pb[j], pc[k]], -2)[same]


def _parameters(lattice: np.ndarray) -> np.ndarray:
    """a, b, c, α, β, γ in degrees, ``(*B, 6)``."""
    lengths = np.linalg.norm(lattice, axis=-1)
    units = lattice / lengths[..., None]
    cosines = [(units[..., i, :] * units[..., j, :]).sum(-1) for i, j in ((1, 2), (0, 2), (0, 1))]
    return np.concatenate(
        [lengths, np.degrees(np.arccos(np.clip(np.stack(cosines, -1), -1, 1)))], -1
    )


def _lattices(parameters: np.ndarray) -> np.ndarray:
    """Some orientation of cells with lengths and angles ``(*B, 6)``: a along x, b in the xy
    plane."""
    a, b, c = np.moveaxis(parameters[..., :3], -1, 0)
    ca, cb, cg = np.moveaxis(np.cos(np.radians(parameters[..., 3:])), -1, 0)
    sg = np.sqrt(1 - cg**2)
    y = (ca - cb * cg) / sg
    z = np.sqrt(np.maximum(1 - cb**2 - y**2, 1e-12))
    zero = np.zeros_like(a)
    rows = ((a, zero, zero), (b * cg, b * sg, zero), (c * cb, c * y, c * z))
    return np.stack([np.stack(row, -1) for row in rows], -2)


def _lll(lattices: np.ndarray) -> np.ndarray:
    """LLL-reduced cells; those that the reduction would leave alone are told apart first, all at
    once."""
    a, b, c = np.moveaxis(lattices, -2, 0)
    aa = (a * a).sum(-1)
    mu_ba = (b * a).sum(-1) / aa
    b_star = b - mu_ba[:, None] * a
    bb = (b_star * b_star).sum(-1)
    mu_ca, mu_cb = (c * a).sum(-1) / aa, (c * b_star).sum(-1) / bb
    c_star = c - mu_ca[:, None] * a - mu_cb[:, None] * b_star
    cc = (c_star * c_star).sum(-1)
    short = np.max(np.abs([mu_ba, mu_ca, mu_cb]), 0) <= 0.5 + 1e-12
    done = short & (bb >= (0.75 - mu_ba**2) * aa) & (cc >= (0.75 - mu_cb**2) * bb)
    out = lattices.copy()
    if not done.all():
        from pymatgen.core import Lattice

        for k in np.flatnonzero(~done):
            out[k] = Lattice(lattices[k]).get_lll_reduced_lattice().matrix
    return out
