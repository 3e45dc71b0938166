"""Samples of held-out molecules against their reference conformers, and RDKit's ETKDGv3 at as many
samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from orbitwise.errors import InputError
from orbitwise.methods.molecules.many.sampling import HandednessKept, handedness
from orbitwise.molecules.files.sets import Conformers
from orbitwise.molecules.metrics.coverage import Average, Coverage, average, coverages
from orbitwise.molecules.molecule import etkdg

THRESHOLDS = (0.5, 0.75, 1.25)
FEWEST_HEAVY = 3  # two heavy atoms or fewer have no conformer to miss


def comparable(molecules: Sequence[Conformers]) -> list[int]:
    """Which molecules have enough heavy atoms for their RMSD to mean anything."""
    heavy = [sum(a.GetAtomicNum() > 1 for a in m.mol.GetAtoms()) for m in molecules]
    return [k for k, n in enumerate(heavy) if n >= FEWEST_HEAVY]


@dataclass(frozen=True)
class Scores:
    """One method on many molecules: ``coverage`` of each, and how often the handedness is right."""

    name: str
    coverage: tuple[Coverage, ...]
    handedness: tuple[HandednessKept, ...]

    def figures(self, which: Sequence[int] | None = None) -> dict[str, Average]:
        """Mean over molecules (all, or those at ``which``) of every figure, with its error, and the
        median."""
        rows = [self.coverage[k] for k in (range(len(self.coverage)) if which is None else which)]
        hands = [
            self.handedness[k] for k in (range(len(self.handedness)) if which is None else which)
        ]
        found = {
            "recall_amr": average([c.recall_amr for c in rows]),
            "precision_amr": average([c.precision_amr for c in rows]),
        }
        for i, d in enumerate(THRESHOLDS):
            found[f"recall_cov_{d}"] = average([c.recall_cov[i] for c in rows])
            found[f"precision_cov_{d}"] = average([c.precision_cov[i] for c in rows])
        found["isomer"] = average([h.isomer for h in hands])
        found["labelled"] = average([h.labelled for h in hands])
        return found


def score(
    name: str,
    molecules: Sequence[Conformers],
    samples: Sequence[np.ndarray],
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Compare ``samples: (S, N, 3)`` of each molecule with its conformers."""
    found = coverages(
        [m.mol for m in molecules],
        [torch.from_numpy(m.positions_angstrom).double() for m in molecules],
        [torch.from_numpy(x) for x in samples],
        thresholds=THRESHOLDS,
        progress=progress,
    )
    hands = tuple(handedness(m, x) for m, x in zip(molecules, samples, strict=True))
    return Scores(name, tuple(found), hands)


def embedded(
    molecules: Sequence[Conformers], counts: Sequence[int], seed: int = 0
) -> tuple[list[np.ndarray], list[int]]:
    """ETKDGv3 samples of each molecule, and the molecules that RDKit cannot embed (their samples
    are empty)."""
    found, failed = [], []
    for k, (m, n) in enumerate(zip(molecules, counts, strict=True)):
        try:
            found.append(etkdg(m.mol, n, seed))
        except InputError:
            found.append(np.empty((0, m.atoms, 3)))
            failed.append(k)
    return found, failed


@dataclass(frozen=True)
class Comparison:
    """``model`` and ``etkdg`` on the same ``molecules``, and their samples ``(S, N, 3)``;
    ``left_out``: how many have too few heavy atoms or cannot be embedded by RDKit; ``evaluations``
    of the network per sample."""

    molecules: tuple[Conformers, ...]
    model: Scores
    etkdg: Scores
    model_samples: tuple[np.ndarray, ...]
    etkdg_samples: tuple[np.ndarray, ...]
    left_out: int
    evaluations: int

    def lines(self) -> list[str]:
        """The comparison in words."""
        n = len(self.molecules)
        per = sum(c.samples for c in self.model.coverage) / sum(
            c.references for c in self.model.coverage
        )
        text = [
            f"{n} held-out molecules, {per:.3g} samples for each reference conformer, "
            f"{self.evaluations} network calls per sample"
        ]
        for scores in (self.model, self.etkdg):
            f = scores.figures()
            text.append(
                f"{scores.name}: recall AMR {f['recall_amr'].mean:.3f} ±"
                f" {f['recall_amr'].error:.3f} Å (median {f['recall_amr'].median:.3f}), COV"
                f" {100 * f['recall_cov_0.5'].mean:.1f} % at 0.5 Å; precision AMR"
                f" {f['precision_amr'].mean:.3f} ± {f['precision_amr'].error:.3f} Å, COV"
                f" {100 * f['precision_cov_0.5'].mean:.1f} %; right stereoisomer"
                f" {100 * f['isomer'].mean:.1f} %"
            )

        apart = [
            a.recall_amr - b.recall_amr
            for a, b in zip(self.model.coverage, self.etkdg.coverage, strict=True)
        ]
        gap = average(apart)
        text.append(
            f"recall AMR, {self.model.name} minus {self.etkdg.name}, molecule by molecule: "
            f"{gap.mean:+.3f} ± {gap.error:.3f} Å (less is better)"
        )
        if self.left_out:
            text.append(
                f"{self.left_out} molecules left out (fewer than 3 heavy atoms, or RDKit cannot"
                " embed them)"
            )
        return text


def compare(
    molecules: Sequence[Conformers],
    samples: Sequence[np.ndarray],
    evaluations: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Score samples and as many ETKDGv3 embeddings. Raises ``InputError`` where no molecule can be
    compared."""
    which = comparable(molecules)
    baseline, failed = embedded(
        [molecules[k] for k in which], [len(samples[k]) for k in which], seed
    )
    kept = [
        (k, x) for i, (k, x) in enumerate(zip(which, baseline, strict=True)) if i not in set(failed)
    ]
    if not kept:
        raise InputError(
            "no molecule can be compared: all have fewer than 3 heavy atoms, or RDKit embeds none"
        )
    chosen = tuple(molecules[k] for k, _ in kept)
    mine, theirs = tuple(samples[k] for k, _ in kept), tuple(x for _, x in kept)
    return Comparison(
        molecules=chosen,
        model=score("model", chosen, mine, progress),
        etkdg=score("ETKDGv3", chosen, theirs, progress),
        model_samples=mine,
        etkdg_samples=theirs,
        left_out=len(molecules) - len(kept),
        evaluations=evaluations,
    )
