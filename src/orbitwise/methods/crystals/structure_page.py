"""The report page of crystal structure prediction."""

from __future__ import annotations

import io
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from orbitwise.crystals.crystal import Crystal
from orbitwise.crystals.figures import cells_figure, formula, guesses_figure
from orbitwise.report.data import Citation, KeyFigure, Picture, ReportData, Table
from orbitwise.report.page import write_report
from orbitwise.runs import provenance
from orbitwise.runs.registry import card

_SHOWN = 4  # pairs of cells


def write_page(path: Path, config, found, result, told, truth: list[Crystal], made=None) -> Path:
    """Write the page of one run; returns the path."""
    own = card("crystal_structure")
    ways = [(result.rate(k), result.rmse(k)) for k in range(1, found.guesses + 1)]
    table = [
        (
            f"{k}",
            f"{100 * rate.value:.1f} ± {100 * rate.error:.1f}",
            f"{rmse.value:.4f} ± {rmse.error:.4f}",
        )
        for k, (rate, rmse) in enumerate(ways, 1)
        if k in (1, 2, 5, 10, 20, found.guesses)
    ]
    page = ReportData(
        title=f"Crystal structures: {config.data.name}",
        smiles="",
        temperature_kelvin=math.nan,
        numbers=np.zeros(0, dtype=int),
        bonds=(),
        kicker="Crystal structure prediction",
        subtitle=f"guesses for {told.items:,} compositions that were held out",
        key_figures=(
            KeyFigure(
                "one guess", f"{100 * told.match1.value:.1f} %", f"RMSE {told.rmse1.value:.4f}"
            ),
            KeyFigure(
                f"best of {told.guesses}",
                f"{100 * told.match_all.value:.1f} %",
                f"RMSE {told.rmse_all.value:.4f}",
            ),
            KeyFigure("network calls", f"{told.evaluations}", "for each guess"),
        ),
        summary=tuple(told.lines()),
        tables=(
            Table(
                "Matches",
                ("guesses", "match rate, %", "RMSE, (V/N)^⅓"),
                tuple(table),
                "StructureMatcher with stol 0.5, ltol 0.3, angle_tol 10; the RMSE is the mean over"
                " matched compositions of the smallest distance, ± one standard error.",
            ),
            *([] if made is None else [_generation(made)]),
        ),
        pictures=(
            Picture(
                _png(
                    guesses_figure(
                        [rate.value for rate, _ in ways],
                        [rmse.value for _, rmse in ways],
                        result.best(1),
                        result.best(),
                    )
                ),
                "Matches and distances",
                "Left: match rate (blue) and RMSE of the best of so many guesses. Right: distances"
                " of matches.",
            ),
            Picture(
                _png(cells_figure(_pairs(found, result, truth))),
                "True cells and first guesses",
                "Above: held-out structures. Below: the first guess for each, with its distance to"
                " the true one.",
            ),
        ),
        method=(own.summary.strip(),),
        files=(
            ("summary.json", "all figures, with provenance"),
            ("guesses", "all guessed structures"),
            ("matches.npz", "distances"),
        ),
        settings=tuple((k, str(v)) for k, v in config.resolved().items()),
        versions=tuple(provenance.versions().items()),
        seed=config.train.seed,
        commit=provenance.commit() or "",
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        citations=(Citation(own.paper.strip(), f"https://arxiv.org/abs/{own.arxiv}"),),
    )
    return write_report(path, page)


def _generation(made) -> Table:
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


def _pairs(found, result, truth: list[Crystal]) -> list[tuple]:
    """A few compositions whose first guess is a structure, evenly over the test set."""
    first = [row[0] for row in found.crystals()]
    usable = [i for i, crystal in enumerate(first) if crystal is not None]
    chosen = (
        [usable[k] for k in np.linspace(0, len(usable) - 1, min(_SHOWN, len(usable))).astype(int)]
        if usable
        else []
    )
    return [(formula(truth[i].species), truth[i], first[i], result.rms[i, 0]) for i in chosen]


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()
