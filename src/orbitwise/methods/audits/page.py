"""What an audit leaves in its folder: ``audit.json``, ``audit.png`` and ``report.html``."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from orbitwise.data.folder import replacing
from orbitwise.methods.audits.figures import AuditPoint, levels_figure, outputs_figure
from orbitwise.methods.audits.words import MEANINGS, SYMMETRIC, Words, share
from orbitwise.report import (
    Citation,
    KeyFigure,
    Meanings,
    Method,
    Page,
    Picture,
    Provenance,
    Table,
    Text,
    write_report,
)
from orbitwise.report.canvas import keep
from orbitwise.report.numbers import duration
from orbitwise.report.page import now
from orbitwise.runs import provenance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CITATIONS = (
    Citation(
        "Training dynamics of learning 3D-rotational equivariance (2025)",
        "https://arxiv.org/abs/2512.02303",
    ),
)
FILES = (
    ("audit.json", "every number on this page, with provenance"),
    ("audit.png", "the figure"),
)


@dataclass(frozen=True)
class Cost:
    """What the audit took: ``seconds`` on the clock and of the processor, and the ``nodes`` per
    item in words."""

    seconds: float
    cpu_seconds: float
    nodes: str
    device: torch.device


def write_audit(folder: Path, words: Words, cost: Cost, settings: dict[str, Any]) -> Path:
    """Write all three; ``settings`` of the command. Returns the path of the page."""
    origin = _origin(words, cost, settings)
    picture = keep(_figure(words), folder / "audit.png", title="Figure", caption=_caption(words))
    with replacing(folder / "audit.json") as temporary:
        temporary.write_text(json.dumps(_finite(origin), indent=1), encoding="utf-8")
    return write_report(folder / "report.html", _page(words, cost, origin, picture))


def _origin(words: Words, cost: Cost, settings: dict[str, Any]) -> dict[str, Any]:
    report, subject = words.report, words.subject
    found = report.to_dict()
    for row, judged in zip(found["rows"], words.verdicts, strict=True):
        row["verdict"] = judged.word
        row["unit"] = subject.units[row["output"]]
    return {
        "title": subject.title,
        "reference": subject.reference,
        "summary": words.summary(),
        **found,
        "cpu_seconds": cost.cpu_seconds,
        "nodes": cost.nodes,
        "group": words.group,
        "config": settings,
        "parameters": subject.parameters,
        "seed": settings["seed"],
        "device": provenance.device(cost.device),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "command": _command(),
        "created": now(),
    }


def _command() -> str:
    return " ".join(["orbitwise", *sys.argv[1:]]) if "audit" in sys.argv else ""


def _finite(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _by_level(words: Words) -> bool:
    """Whether the figure is drawn against the levels, not output by output."""
    rows = words.report.rows
    return len(rows) > 1 and all(row.level is not None for row in rows)


def _figure(words: Words) -> Figure:
    subject = words.subject
    points = []
    for row, judged in zip(words.report.rows, words.verdicts, strict=True):
        percent = row.percent.value if math.isfinite(row.percent.value) else 0.0
        points.append(
            AuditPoint(
                name=words.name(row),
                level=row.level,
                percent=max(percent, 0.0),
                percent_error=row.percent.error,
                total=row.total.value,
                twirled=row.twirled.value,
                equivariance=row.equivariance.value,
                deviation=row.relative_deviation,
                symmetric=judged.word in SYMMETRIC,
            )
        )

    if _by_level(words):
        unit = next(iter(subject.units.values()))
        return levels_figure(points, subject.levels, f"{unit}²" if words.squared else unit)

    marks = [("float64", 2.2e-16), ("float32", 1.2e-7), ("1 %", 1e-2)]
    return outputs_figure(points, subject.reference, marks)


def _page(words: Words, cost: Cost, origin: dict[str, Any], picture: Picture) -> Page:
    subject = words.subject
    how = (
        "Every structure is shown in several poses, the answers are turned back, and the loss is"
        f" split into that of their mean and what they scatter about it. Poses: {cost.nodes}."
    )
    settings = {k: v for k, v in origin["config"].items() if k not in ("seed", "out")}
    return Page(
        title=subject.title,
        kind="Symmetry audit",
        subtitle=f"how much of {subject.what} changes with {words.moves}",
        key_figures=_key_figures(words, cost),
        created=origin["created"],
        blocks=(
            Text(tuple(words.summary()), warnings=tuple(words.cautions)),
            _table(words),
            picture,
            Meanings(tuple(MEANINGS)),
            Method((how, *subject.notes), citations=CITATIONS),
            Provenance(
                files=FILES,
                settings=settings,
                versions=origin["versions"],
                seed=origin["seed"],
                commit=origin["commit"] or "",
                command=origin["command"],
            ),
        ),
    )


def _key_figures(words: Words, cost: Cost) -> tuple[KeyFigure, ...]:
    """Those of the output, or the level, that is worst."""
    report = words.report
    worst = max(
        report.rows, key=lambda r: r.percent.value if math.isfinite(r.percent.value) else -1
    )
    judged = words.verdicts[report.rows.index(worst)]
    noise = f"{words.noise} noise"
    if not words.subject.reference:
        noise += ", of the size squared"
    return (
        KeyFigure(
            noise,
            f"{_percent(share(worst, judged))} %",
            f"{words.name(worst)}: {judged.word}",
        ),
        KeyFigure("structures", f"{worst.items:,}", f"{worst.nodes} poses of each"),
        KeyFigure(
            "answers of the model",
            f"{report.evaluations:,}",
            f"{duration(cost.cpu_seconds)} of CPU time",
        ),
    )


def _table(words: Words) -> Table:
    head, *rows = words.table()
    units = words.subject.units.items()
    unit = ", ".join(f"{k}: {v}" for k, v in units if k != "prediction") or words.long_unit
    measure = "Root mean squares" if words.squared else f"Mean {words.loss} losses"
    return Table(
        "What was found",
        head=head,
        rows=tuple(rows),
        note=(
            f"{measure} over components{f' ({unit})' if unit else ''}; ± one standard error over"
            " structures. The relative deviation is that of the answers about their mean, over"
            " their size."
        ),
    )


def _percent(text: str) -> str:
    return text.split(" ± ")[0]


def _caption(words: Words) -> str:
    if _by_level(words):
        return (
            "Left: the share with its standard error. Right: the loss itself and its two parts,"
            " which add up to it."
        )
    marks = "Dotted: the precision of float64 and float32 numbers, and one percent."
    if not words.subject.reference:
        return marks
    return (
        "Left: orientation noise in the loss. Right: how far answers for one structure lie apart."
        f" {marks}"
    )
