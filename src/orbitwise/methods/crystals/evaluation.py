"""How good the guesses of a run are: matches with the true structures, and what any guesser could
reach."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from orbitwise.crystals.crystal import Crystal
from orbitwise.crystals.files.read import CrystalFile, to_structure
from orbitwise.crystals.matching.ceiling import ceiling
from orbitwise.crystals.matching.match import MatchResult, match
from orbitwise.crystals.validity.generation import GenerationMetrics, generation_metrics
from orbitwise.data.archive import Array, read_archive
from orbitwise.data.folder import replacing
from orbitwise.errors import InputError
from orbitwise.methods.crystals.guesses import GuessedCrystals
from orbitwise.methods.crystals.rates import figures
from orbitwise.methods.crystals.structure_page import write_page
from orbitwise.runs import provenance
from orbitwise.runs.outcome import Outcome
from orbitwise.training.progress import Progress, ProgressBar

_KEPT = {name: Array("fb", "...") for name in ("rms", "valid", "truth_valid", "failed")}
_KEPT |= {"key": Array("U", "")}


def matched(
    found: GuessedCrystals, truth: list[Crystal], workers: int, kept: Path | None = None
) -> MatchResult:
    """Compare every guess with its true structure, in ``workers`` processes, with a progress bar;
    the answer is kept in the file ``kept`` and read from there when it is asked for again."""
    key = hashlib.sha256(found.frac.numpy().tobytes() + found.lattice.numpy().tobytes()).hexdigest()
    if kept is not None and kept.is_file():
        with suppress(InputError):  # damaged: matched again
            file = read_archive(kept, _KEPT)
            if str(file["key"]) == key:
                return MatchResult(file["rms"], file["valid"], file["truth_valid"], file["failed"])
    predicted = [[None if c is None else to_structure(c) for c in row] for row in found.crystals()]
    with ProgressBar("matching") as bar:
        result = match(
            predicted,
            [to_structure(c) for c in truth],
            workers=workers,
            progress=lambda done, of: bar(Progress(done, of)),
        )
    if kept is not None:
        with replacing(kept) as temporary:
            np.savez(temporary, key=key, **asdict(result))
    return result


def generated(
    found: GuessedCrystals, truth: list[Crystal], items: int, seed: int
) -> GenerationMetrics | None:
    """CDVAE's metrics of the first guesses for at most ``items`` compositions against those true
    structures (the compositions are given, so that of compositions only the validity is news); None
    for fewer than two."""
    order = torch.randperm(len(truth), generator=torch.Generator().manual_seed(seed))[
        :items
    ].tolist()
    if len(order) < 2:
        return None
    first = [row[0] for row in found.crystals()]
    guesses = [None if first[i] is None else to_structure(first[i]) for i in order]
    return generation_metrics(guesses, [to_structure(truth[i]) for i in order], seed=seed)


def evaluate_run(
    run: Path,
    config,
    found: GuessedCrystals,
    test: CrystalFile,
    trained: CrystalFile,
) -> Outcome:
    """Match the guesses of a run; writes ``summary.json`` and ``report.html``."""
    result = matched(found, test.crystals, config.workers, run / "matches.npz")
    try:
        top = ceiling(
            [to_structure(c) for c in test.crystals], [to_structure(c) for c in trained.crystals]
        )
    except InputError:  # many structures of one composition: there is no telling them apart by it
        top = None
    told = figures(found, result, top)
    made = generated(found, test.crystals, config.generation_items, config.train.seed)

    text = {
        "config": config.resolved(),
        "figures": asdict(told),
        "generation": None if made is None else asdict(made),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "device": provenance.device(torch.device("cpu")),
        "seeds": {"training": config.train.seed, "guesses": found.seed},
    }
    with replacing(run / "summary.json") as temporary:
        temporary.write_text(json.dumps(text, indent=1))

    page = write_page(
        run / "report.html", config, found, result, told, truth=test.crystals, made=made
    )
    return Outcome(run, told, [*told.lines(), f"report: {page}"])
