"""What the audits of a training come to, in numbers, words and as a curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orbitwise.audit import AuditedStep
from orbitwise.audit.dynamics import course, percent_of
from orbitwise.methods.dynamics.figures import Curve

MARKS = (1000, 10_000)  # steps whose percentage the summary names
THRESHOLD = 2.0  # percent


@dataclass(frozen=True)
class Summary:
    """``percent`` at steps 1,000 and 10,000 (None: not audited there) and the whole course, over
    all levels and of each; the terms of the loss and ``numbers`` at the end."""

    parameters: int
    steps: int
    seconds: float
    percent_at: dict[int, float | None]
    course: dict[str, Any]
    levels: dict[str, dict[str, Any]]
    total: float
    twirled: float
    equivariance: float
    numbers: dict[str, float]


def summary(audits: Sequence[AuditedStep], parameters: int) -> Summary:
    """Of the audits of one run."""
    last = audits[-1]
    at = {a.step: a for a in audits}
    levels = {}
    for row in last.rows if len(last.rows) > 1 else ():
        marks = {
            mark: percent_of(at[mark], row.level).value if mark in at else None for mark in MARKS
        }
        levels[level_name(row.level)] = {
            "percent_at": marks,
            "course": asdict(course(audits, THRESHOLD, row.level)),
        }
    return Summary(
        parameters=parameters,
        steps=last.step,
        seconds=last.seconds,
        percent_at={mark: at[mark].percent.value if mark in at else None for mark in MARKS},
        course=asdict(course(audits, THRESHOLD)),
        levels=levels,
        total=last.total.value,
        twirled=last.twirled.value,
        equivariance=last.equivariance.value,
        numbers=dict(last.numbers),
    )


def curve_of(audits: Sequence[AuditedStep], name: str, level: Any = None) -> Curve:
    """For a figure: one level, or the mean over all."""
    rows = [a if level is None else next(r for r in a.rows if r.level == level) for a in audits]

    def column(term: str) -> np.ndarray:
        return np.array([getattr(row, term).value for row in rows])

    return Curve(
        name=name,
        steps=np.array([a.step for a in audits]),
        seconds=np.array([a.seconds for a in audits]),
        percent=column("percent"),
        percent_error=np.array([row.percent.error for row in rows]),
        total=column("total"),
        twirled=column("twirled"),
        equivariance=column("equivariance"),
    )


def in_words(found: Summary, run: Path) -> list[str]:
    """For a terminal."""
    c = found.course
    marks = [f"{v:.3g} % after {k:,} steps" for k, v in found.percent_at.items() if v is not None]
    end = (
        f"{c['final']['value']:.3g} ± {c['final']['error']:.2g} % at the end ({found.steps:,}"
        " steps)"
    )
    text = ["equivariance error in the held-out loss: " + ", ".join([*marks, end])]
    if c["first_below"] is None:
        text.append(f"never below {THRESHOLD:g} %; smallest {c['smallest']:.3g} %")
    else:
        text.append(
            f"first below {THRESHOLD:g} % at step {c['first_below']:,}, up to"
            f" {c['largest_after']:.3g} % after that, smallest {c['smallest']:.3g} %"
        )
    text.append(
        f"held-out loss {found.total:.4g} = twirled {found.twirled:.4g} + {found.equivariance:.4g}"
    )
    text += [f"{name}: {value:.4g}" for name, value in found.numbers.items()]
    return [*text, f"figure: {run / 'dynamics.png'}"]


def level_name(level: Any) -> str:
    return f"{level:g}" if isinstance(level, float) else str(level)
