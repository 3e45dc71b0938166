"""A few structures that stand for many draws: what a model says most, first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from orbitwise.crystals.crystal import CrystalBatch
from orbitwise.crystals.matching.cells import NEXT_CELLS

_IMAGES = 4  # nearest images of each pair of atoms
# rms difference of signatures, in (V/N)^⅓, from which one structure says nothing about another
_FAR = 0.05


def signatures(frac: np.ndarray, lattice: np.ndarray, species: np.ndarray) -> np.ndarray:
    """``(M, F)`` for M structures of the same atoms: sorted distances of the nearest images, for
    each pair of elements, in units of (V/N)^⅓, so that equal structures have equal numbers however
    they are placed and numbered.

    ``frac (M, N, 3)``, ``lattice (M, 3, 3)`` in Å, ``species (N,)``. Infinite for a structure that
    is not finite or has no volume.
    """
    with np.errstate(invalid="ignore"):
        volume = np.abs(np.linalg.det(lattice))
    sound = np.isfinite(frac).all((1, 2)) & np.isfinite(lattice).all((1, 2)) & (volume > 1e-3)
    first, second = np.triu_indices(len(species))  # an atom and its own images too: the cell
    offset = frac[sound][:, first] - frac[sound][:, second]
    offset -= np.round(offset)
    vectors = (offset[:, :, None] + NEXT_CELLS) @ lattice[sound][:, None]
    apart = np.partition(np.linalg.norm(vectors, axis=-1), _IMAGES, -1)[..., :_IMAGES]
    apart /= np.cbrt(volume[sound] / len(species))[:, None, None]
    kinds = np.sort(np.stack([species[first], species[second]]), 0)
    groups = [(kinds == kind[:, None]).all(0) for kind in np.unique(kinds, axis=1).T]
    found = [
        np.sort(apart[:, group].reshape(len(apart), _IMAGES * group.sum()), -1) for group in groups
    ]
    out = np.full((len(frac), sum(f.shape[1] for f in found)), np.inf)
    out[sound] = np.concatenate(found, 1)
    return out


def representatives(signature: np.ndarray, k: int) -> list[int]:
    """Which k of M draws stand for all: chosen one after the other, each as the one that most
    reduces the mean distance of a draw to the nearest chosen one (greedy k-medoids; Kaufman &
    Rousseeuw 1990, the BUILD phase of PAM).

    The first is the medoid, the draw that the others agree with most. ``signature (M, F)``;
    distances are their rms differences, cut at 0.05: the middle of a common answer comes before a
    compromise between two, and of two answers that are as common the one that is surer.
    """
    with np.errstate(invalid="ignore"):
        apart = np.sqrt(((signature[:, None] - signature) ** 2).mean(-1))
    apart = np.minimum(np.nan_to_num(apart, nan=_FAR, posinf=_FAR), _FAR)
    np.fill_diagonal(apart, 0.0)
    nearest, chosen = np.full(len(apart), _FAR), []
    for _ in range(k):
        total = np.minimum(nearest, apart).sum(1)
        total[chosen] = np.inf
        chosen.append(int(total.argmin()))
        nearest = np.minimum(nearest, apart[chosen[-1]])
    return chosen


def chosen(rounds: Sequence[CrystalBatch], k: int) -> Tensor:
    """``(k, B)``: for each item of several draws for the same atoms the rounds that represent it,
    best first."""
    if len(rounds) == k:
        return torch.arange(k)[:, None].expand(k, len(rounds[0].frac))
    frac = np.stack([batch.frac.double().cpu().numpy() for batch in rounds], 1)
    lattice = np.stack([batch.lattice.double().cpu().numpy() for batch in rounds], 1)
    species, real = rounds[0].species.cpu().numpy(), rounds[0].mask.cpu().numpy()
    items = zip(frac, lattice, species, real, strict=True)
    return torch.tensor(
        [representatives(signatures(f[:, m], c, s[m]), k) for f, c, s, m in items]
    ).T


def picked(rounds: Sequence[CrystalBatch], which: Tensor) -> tuple[Tensor, Tensor]:
    """``frac (k, B, N, 3)`` and ``lattice (k, B, 3, 3)`` of the rounds ``which (k, B)``."""
    items = torch.arange(which.shape[1])
    frac = torch.stack([batch.frac for batch in rounds])
    lattice = torch.stack([batch.lattice for batch in rounds])
    return frac[which, items], lattice[which, items]
