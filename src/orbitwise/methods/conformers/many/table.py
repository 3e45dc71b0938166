"""All molecules of a list in one table: ``summary.csv`` and ``index.html``."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from orbitwise.data.folder import replacing
from orbitwise.methods.conformers.many.jobs import Row
from orbitwise.report import KeyFigure, Page, Provenance, Table, Text, write_report
from orbitwise.report.numbers import duration, with_error

COLUMNS = (
    "name",
    "smiles",
    "formula",
    "state",
    "conformers",
    "population",
    "population_error",
    "energy_range_kcal_mol",
    "rhat",
    "minutes",
    "folder",
    "problem",
)
HEAD = (
    "Molecule",
    "Result",
    "Formula",
    "Conformers",
    Markup("Most populated<br><small>%</small>"),
    Markup("Δ<i>E</i> up to<br><small>kcal/mol</small>"),
    "R-hat",
    "Time",
    "Files",
)
NOTE = (
    "Most populated: the share of the most populated conformer ± one standard error. ΔE: energy of"
    " the highest minimum that is populated above the lowest. R-hat: how far the chains of the"
    " search agree (1 is perfect, up to 1.05 counts as converged)."
)
FILES = (
    ("summary.csv", "this table for a spreadsheet, with SMILES and what went wrong"),
    ("MOLECULE/report.html", "the page of one molecule"),
    ("MOLECULE/ensemble.sdf", "its samples, with energies, conformer numbers and weights"),
    ("MOLECULE/conformers.sdf", "one minimised structure for each conformer"),
)


def write_tables(out: Path, rows: Sequence[Row], command: str = "") -> None:
    """Both files, each at once or not at all."""
    with (
        replacing(out / "summary.csv") as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            values = (getattr(row, name) for name in COLUMNS)
            writer.writerow("" if value is None else _plain(value) for value in values)
    write_report(out / "index.html", page(out, rows, command))


def _plain(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6g}"
    # a spreadsheet takes what begins so for a formula
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "@", "+")) else value


def page(out: Path, rows: Sequence[Row], command: str = "") -> Page:
    """The page of a list."""
    count = Counter(row.state for row in rows)
    unique = {row.folder or str(k): row.minutes or 0.0 for k, row in enumerate(rows)}
    figures = [KeyFigure("molecules", str(len(rows)))]
    for state in ("converged", "not converged", "failed", "waiting"):
        if count[state] or state == "converged":
            figures.append(KeyFigure(state, str(count[state])))
    minutes = sum(unique.values())
    figures.append(KeyFigure("computing time", duration(60 * minutes), "of all molecules"))
    problems = tuple(f"{row.name}: {row.problem}" for row in rows if row.problem)
    wrong = Text((), warnings=problems, title="What went wrong")
    return Page(
        title=f"Conformers of {len(rows)} molecule{'s' if len(rows) != 1 else ''}",
        kind="List of conformer ensembles",
        subtitle=str(out),
        key_figures=tuple(figures),
        blocks=(
            Table("Molecules", HEAD, tuple(_cells(out, row) for row in rows), NOTE),
            wrong,
            Provenance(files=FILES, command=command),
        ),
    )


def _cells(out: Path, row: Row) -> tuple[str, ...]:
    def link(name: str, word: str) -> str:
        there = row.folder and (out / row.folder / name).is_file()
        url = f"{quote(row.folder)}/{name}"
        return Markup('<a href="{}">{}</a>').format(url, word) if there else ""

    made = row.conformers is not None
    colour = {"converged": "yes", "waiting": "note"}.get(row.state, "no")
    return (
        (link("report.html", row.name) if made else "") or row.name,
        Markup('<span class="{}">{}</span>').format(colour, row.state),
        _formula(row.formula),
        str(row.conformers) if made else "–",
        with_error(row.population, row.population_error, 100.0),
        with_error(row.energy_range_kcal_mol, None),
        "–" if row.rhat is None else f"{row.rhat:.3f}",
        "–" if row.minutes is None else duration(60 * row.minutes),
        link("conformers.sdf", "SDF") if made else link("log.txt", "log"),
    )


def _formula(text: str) -> str:
    """With numbers below the line and charges above; RDKit writes C2H6O, C2H3O2-, Fe+2."""
    html = re.sub(r"(?<=[A-Za-z])(\d+)", r"<sub>\1</sub>", text)
    return Markup(re.sub(r"([+-]\d*)$", r"<sup>\1</sup>", html).replace("-", "−"))
