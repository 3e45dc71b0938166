"""Drawn crystals put in order: duplicates merged, space groups, energies by CHGNet where it is
installed, else how well bonds fit charges."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from importlib.util import find_spec
from io import StringIO

import numpy as np

from orbitwise.crystals.crystal import Crystal
from orbitwise.crystals.files.convert import wrapped
from orbitwise.crystals.files.read import from_structure, to_structure
from orbitwise.crystals.matching.cells import CellMatcher
from orbitwise.crystals.validity.bond_valence import instability_index

SYMPREC = 0.1  # Å; drawn atoms lie this near the places of a symmetric crystal
SAME = CellMatcher(stol=0.3, ltol=0.2, angle_tol=5.0)  # pymatgen's defaults


@dataclass(frozen=True)
class Candidate:
    """One distinct structure: drawn ``count`` times, ``energy`` in eV per atom, ``instability``
    index in valence units (None: not computed, NaN: could not be), ``space_group`` and its
    ``number`` within ``SYMPREC`` (``?``, 0: not found)."""

    crystal: Crystal
    count: int
    energy: float | None = None
    instability: float | None = None
    space_group: str = "?"
    number: int = 0


def merged(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Duplicates merged, counts added: two are the same where ``SAME`` matches them. Each group
    keeps its member of lowest energy, or where there are no energies the one nearest to the others;
    groups in the order they appear."""
    if not candidates:
        return []
    cells = [SAME.reduce(to_structure(c.crystal)) for c in candidates]
    rms = np.zeros((len(cells), len(cells)))
    for i, cell in enumerate(cells):
        for j in range(i):
            rms[i, j] = rms[j, i] = SAME.rms(cell, cells[j])
    groups: list[list[int]] = []
    for i in range(len(cells)):
        home = next((g for g in groups if not np.isnan(rms[i, g[0]])), None)
        groups.append([i]) if home is None else home.append(i)
    kept = []
    for group in groups:
        energies = [candidates[i].energy for i in group]
        if any(e is not None and np.isfinite(e) for e in energies):
            first = group[int(np.nanargmin([np.nan if e is None else e for e in energies]))]
        else:
            first = group[
                int(np.nanmean(np.where(np.isnan(rms), 1.0, rms)[np.ix_(group, group)], 1).argmin())
            ]
        kept.append(replace(candidates[first], count=sum(candidates[i].count for i in group)))
    return kept


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Lowest energy first where there are energies (those without one last), else lowest
    instability index, else what was drawn most often."""

    def last(value: float | None) -> float:
        return np.inf if value is None or np.isnan(value) else value

    return sorted(candidates, key=lambda c: (last(c.energy), last(c.instability), -c.count))


def with_space_group(candidate: Candidate) -> Candidate:
    """With the space group that spglib finds within ``SYMPREC``."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = SpacegroupAnalyzer(to_structure(candidate.crystal), symprec=SYMPREC)
            return replace(
                candidate,
                space_group=found.get_space_group_symbol(),
                number=found.get_space_group_number(),
            )
    except Exception:  # spglib gives up on some cells, pymatgen then raises many kinds
        return candidate


class ChgnetEnergies:
    """Energies of crystals by CHGNet (Deng, Nature Machine Intelligence 5, 1031 (2023)), whose
    weights come with its package. Raises ``MissingExtraError`` where it is not installed."""

    def __init__(self):
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            from chgnet.model import CHGNet, StructOptimizer

            self.model = CHGNet.load(use_device="cpu", verbose=False)
            self._optimizer = StructOptimizer(model=self.model, use_device="cpu")

        self.name = f"CHGNet {self.model.version}"
        self.energy_calls = self.gradient_calls = 0

    @staticmethod
    def installed() -> bool:
        return find_spec("chgnet") is not None

    def energies(self, crystals: Sequence[Crystal]) -> list[float]:
        """eV per atom; NaN for a crystal that the model cannot take (an atom without
        neighbours)."""
        return [self._energy(crystal) for crystal in crystals]

    def _energy(self, crystal: Crystal) -> float:
        self.energy_calls += 1
        try:
            with warnings.catch_warnings(), redirect_stdout(StringIO()):
                warnings.simplefilter("ignore")
                return float(self.model.predict_structure(to_structure(crystal), task="e")["e"])
        except Exception:  # whatever a strange cell does to the library, it has no energy
            return float("nan")

    def relaxed(self, crystal: Crystal, steps: int = 100, force: float = 0.1) -> Crystal:
        """Atoms and cell relaxed, at most so many ``steps``, down to ``force`` eV/Å; as it was
        where that fails."""
        try:
            with warnings.catch_warnings(), redirect_stdout(StringIO()):
                warnings.simplefilter("ignore")
                done = self._optimizer.relax(
                    to_structure(crystal), fmax=force, steps=steps, verbose=False
                )
            self.energy_calls += len(done["trajectory"])
            self.gradient_calls += len(done["trajectory"])
            return from_structure(done["final_structure"], crystal.name)
        except Exception:
            return crystal


def rank(
    crystals: Sequence[Crystal],
    energies: ChgnetEnergies | None,
    relax: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Candidate]:
    """Distinct structures in order, with energies where there is a model for them, else with
    instability indices; ``relax`` moves the distinct ones to the nearest minimum first (those that
    then coincide are merged)."""
    found = merged([Candidate(crystal, 1) for crystal in crystals])
    if energies is not None:
        moved = []
        for k, candidate in enumerate(found, 1):
            crystal = energies.relaxed(candidate.crystal) if relax else candidate.crystal
            moved.append(
                replace(candidate, crystal=crystal, energy=energies.energies([crystal])[0])
            )
            if progress is not None:
                progress(k, len(found))
        found = merged(moved) if relax else moved
    else:
        found = [replace(c, instability=instability_index(to_structure(c.crystal))) for c in found]
    return [with_space_group(settled(candidate)) for candidate in ranked(found)]


def settled(candidate: Candidate) -> Candidate:
    """With the origin at an atom of the rarest species (of these the heaviest): the model knows no
    origin."""
    crystal = candidate.crystal
    counts = (crystal.species[:, None] == crystal.species).sum(1)
    first = np.lexsort((-crystal.species, counts))[0]
    return replace(
        candidate, crystal=replace(crystal, frac=wrapped(crystal.frac - crystal.frac[first]))
    )
