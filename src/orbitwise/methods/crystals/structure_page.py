"""The report page of crystal structure prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from orbitwise.crystals.crystal import Crystal
from orbitwise.crystals.figures import cells_figure, formula, guesses_figure
from orbitwise.crystals.matching.match import MatchResult, Measured
from orbitwise.crystals.validity.generation import GenerationMetrics
from orbitwise.methods.crystals.guesses import GuessedCrystals
from orbitwise.methods.crystals.rates import CrystalFigures, distance
from orbitwise.report import (
    Citation,
    KeyFigure,
    Method,
    Page,
    Picture,
    Provenance,
    Table,
    Text,
    write_report,
)
from orbitwise.report.canvas import png
from orbitwise.runs import provenance
from orbitwise.runs.config import Config
from orbitwise.runs.registry import card

FILES = (
    ("summary.json", "all figures, with provenance"),
    ("guesses", "all guessed structures"),
    ("matches.npz", "distances"),
)
_SHOWN = 4  # pairs of cells


def write_page(
    path: Path,
    config: Config,
    found: GuessedCrystals,
    result: MatchResult,
    told: CrystalFigures,
    truth: list[Crystal],
    made: GenerationMetrics | None = None,
) -> Path:
    """Write the page of one run; ``made`` are CDVAE's metrics of the first guesses. Returns the
    path."""
    own = card("crystal_structure")
    ways = [(result.rate(k), result.rmse(k)) for k in range(1, found.guesses + 1)]
    page = Page(
        title=f"Crystal structures: {config.data.name}",
        kind="Crystal structure prediction",
        subtitle=f"guesses for {told.items:,} compositions that were held out",
        key_figures=_key_figures(told),
        blocks=(
            Text(tuple(told.lines())),
            _matches(ways),
            *([] if made is None else [_generation(made)]),
            *_pictures(found, result, ways, truth),
            Method((own.summary.strip(),), citations=(Citation.arxiv(own.paper, own.arxiv),)),
            Provenance(
                files=FILES,
                settings=config.resolved(),
                versions=provenance.versions(),
                seed=config.train.seed,
                commit=provenance.commit() or "",
            ),
        ),
    )
    return write_report(path, page)


def _key_figures(told: CrystalFigures) -> tuple[KeyFigure, ...]:
    one, best = told.match1.value, told.match_all.value
    return (
        KeyFigure("one guess", f"{100 * one:.1f} %", f"RMSE {distance(told.rmse1)}"),
        KeyFigure(
            f"best of {told.guesses}", f"{100 * best:.1f} %", f"RMSE {distance(told.rmse_all)}"
        ),
        KeyFigure("network calls", f"{told.evaluations}", "for each guess"),
    )


def _matches(ways: list[tuple[Measured, Measured]]) -> Table:
    """Match rate and RMSE of the best of 1, 2, ... guesses."""
    return Table(
        "Matches",
        head=("guesses", "match rate, %", "RMSE, (V/N)^⅓"),
        rows=tuple(
            (
                f"{k}",
                f"{100 * rate.value:.1f} ± {100 * rate.error:.1f}",
                distance(rmse, with_error=True),
            )
            for k, (rate, rmse) in enumerate(ways, 1)
            if k in (1, 2, 5, 10, 20, len(ways))
        ),
        note="StructureMatcher with stol 0.5, ltol 0.3, angle_tol 10; the RMSE is the mean over"
        " matched compositions of the smallest distance, ± one standard error.",
    )


def _pictures(
    found: GuessedCrystals,
    result: MatchResult,
    ways: list[tuple[Measured, Measured]],
    truth: list[Crystal],
) -> tuple[Picture, Picture]:
    rates, rmses = [rate.value for rate, _ in ways], [rmse.value for _, rmse in ways]
    return (
        Picture(
            png(guesses_figure(rates, rmses, result.best(1), result.best())),
            "Matches and distances",
            "Left: match rate (blue) and RMSE of the best of so many guesses. Right: distances of"
            " matches.",
        ),
        Picture(
            png(cells_figure(_pairs(found, result, truth))),
            "True cells and first guesses",
            "Above: held-out structures. Below: the first guess for each, with its distance to the"
            " true one.",
        ),
    )


def _generation(made: GenerationMetrics) -> Table:
    """CDVAE's metrics of the first guesses."""
    percent = (
        ("valid structure, %", made.structure_valid),
        ("valid composition, %", made.composition_valid),
        ("coverage, recall, %", made.recall),
        ("coverage, precision, %", made.precision),
    )
    rows = [(name, f"{100 * m.value:.1f} ± {100 * m.error:.1f}") for name, m in percent]
    rows.append(("density, W1 in g/cm³", f"{made.density.value:.3f} ± {made.density.error:.3f}"))
    rows.append(
        ("number of elements, W1", f"{made.elements.value:.3f} ± {made.elements.error:.3f}")
    )
    return Table(
        "As generated structures",
        ("metric of CDVAE", "first guesses"),
        tuple(rows),
        f"{made.structure_valid.count} guesses against as many true structures. Coverage uses"
        " fingerprints and cutoffs of its own and is not comparable with published figures; the"
        " compositions are given.",
    )


def _pairs(
    found: GuessedCrystals, result: MatchResult, truth: list[Crystal]
) -> list[tuple[str, Crystal, Crystal, float]]:
    """A few compositions whose first guess is a structure, evenly over the test set."""
    first = [row[0] for row in found.crystals()]
    usable = [i for i, crystal in enumerate(first) if crystal is not None]
    if not usable:
        return []

    places = np.linspace(0, len(usable) - 1, min(_SHOWN, len(usable))).astype(int)
    chosen = [usable[k] for k in places]
    return [(formula(truth[i].species), truth[i], first[i], result.rms[i, 0]) for i in chosen]
