"""Coverage and matching of conformer ensembles by symmetry-aware heavy-atom RMSD, as in GeoMol and
after it.

With d(r, s) the RMSD of reference r and sample s, over heavy atoms, minimal over rotations,
translations and exchanges of equivalent atoms (GeoMol, 2106.07802, section 5.1 and appendix):

    recall:     AMR = mean_r min_s d(r, s),   COV = share of r with min_s d(r, s) < δ
    precision:  the same with references and samples in each other's place

averaged over molecules. δ is 0.5 Å for molecules of the size of QM9 and 0.75 or 1.25 Å for drugs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.molecules.metrics.conformers import heavy_matching, symmetric_rmsd

if TYPE_CHECKING:
    from rdkit import Chem


@dataclass(frozen=True)
class Coverage:
    """One molecule: AMR in Å; coverage, a share, at each of ``thresholds``; how many of each were
    compared."""

    recall_amr: float
    precision_amr: float
    recall_cov: tuple[float, ...]
    precision_cov: tuple[float, ...]
    thresholds: tuple[float, ...]
    references: int
    samples: int


def coverage(rmsd: Tensor, thresholds: Sequence[float] = (0.5, 0.75, 1.25)) -> Coverage:
    """From ``rmsd: (references, samples)`` in Å. Raises ``InputError`` where one of the two is
    empty."""
    if rmsd.ndim != 2 or not rmsd.numel():
        raise InputError(
            f"need at least one reference and one sample; the distances are {tuple(rmsd.shape)}"
        )
    if not bool(torch.isfinite(rmsd).all()):
        raise InputError("some of the distances are not finite")
    recall, precision = rmsd.min(1).values, rmsd.min(0).values
    return Coverage(
        recall_amr=float(recall.mean()),
        precision_amr=float(precision.mean()),
        recall_cov=tuple(float((recall < d).double().mean()) for d in thresholds),
        precision_cov=tuple(float((precision < d).double().mean()) for d in thresholds),
        thresholds=tuple(thresholds),
        references=len(recall),
        samples=len(precision),
    )


def coverages(
    mols: Sequence[Chem.Mol],
    references: Sequence[Tensor],
    samples: Sequence[Tensor],
    *,
    thresholds: Sequence[float] = (0.5, 0.75, 1.25),
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Coverage]:
    """``coverage`` of many molecules, several at a time (``workers`` threads; default one for each
    processor).

    ``references: (R, N, 3)`` and ``samples: (S, N, 3)`` of each molecule in Å, in its atom order.
    ``progress(done, all)`` is called after every molecule.
    """

    def one(job: tuple[Chem.Mol, Tensor, Tensor]) -> Coverage:
        mol, x, y = job
        return coverage(symmetric_rmsd(x, y, heavy_matching(mol)), thresholds)

    jobs = list(zip(mols, references, samples, strict=True))
    found = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for result in pool.map(one, jobs):
            found.append(result)
            if progress is not None:
                progress(len(found), len(jobs))
    return found


@dataclass(frozen=True)
class Average:
    """Over molecules: ``mean`` with its standard error (bootstrap over molecules), and
    ``median``."""

    mean: float
    error: float
    median: float


def average(values: Sequence[float] | Tensor, *, draws: int = 1000, seed: int = 0) -> Average:
    """Mean and median of one figure per molecule, with the spread of the mean over ``draws``
    resampled sets."""
    x = torch.as_tensor(values, dtype=torch.float64)
    if x.ndim != 1 or not len(x):
        raise InputError("need one figure for each of at least one molecule")
    generator = torch.Generator().manual_seed(seed)
    means = x[torch.randint(len(x), (draws, len(x)), generator=generator)].mean(1)
    return Average(float(x.mean()), float(means.std()), float(x.quantile(0.5)))
