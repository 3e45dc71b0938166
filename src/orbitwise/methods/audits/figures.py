"""The figure of an audit (matplotlib): shares of the loss by output, or by level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orbitwise.report.canvas import FILL, PALE, figure, legend, styled
from orbitwise.report.figures import INK, REFERENCE, SAMPLES, SEARCHER

ENOUGH = 2.0
_FLOOR = 1e-16


@dataclass(frozen=True)
class AuditPoint:
    """One output at one level: ``percent`` of the loss with its standard error, the loss ``total``
    and its two parts, and the ``deviation`` of the answers relative to their size. ``symmetric``:
    to rounding or convergence."""

    name: str
    level: float | None
    percent: float
    percent_error: float
    total: float
    twirled: float
    equivariance: float
    deviation: float
    symmetric: bool


@styled
def levels_figure(points: Sequence[AuditPoint], level: str, unit: str):
    """Percent of the loss, and the loss with its two parts, against the level (``unit`` of the
    losses)."""
    fig, (left, right) = figure(9.6, 3.7, 1, 2)
    points = sorted(points, key=lambda p: p.level)
    t = np.array([p.level for p in points])
    percent = np.array([p.percent for p in points])
    error = np.nan_to_num(np.array([p.percent_error for p in points]))
    left.axhspan(
        0, ENOUGH, color=FILL, alpha=0.35, lw=0, label=f"symmetric enough (below {ENOUGH:g} %)"
    )
    left.errorbar(t, percent, error, color=SAMPLES, marker="o", ms=4.5, lw=1.4, capsize=2.5)
    left.set(
        xlabel=level,
        ylabel="orientation noise (% of the loss)",
        ylim=(0, max(1.25 * (percent + error).max(), 1.5 * ENOUGH)),
    )
    legend(left, "upper left")
    for name, colour, values in (
        ("loss over all poses", REFERENCE, [p.total for p in points]),
        ("after averaging", SAMPLES, [p.twirled for p in points]),
        ("orientation noise", SEARCHER, [p.equivariance for p in points]),
    ):
        values = np.array(values)
        shown = values > 0
        right.plot(
            t[shown],
            values[shown],
            marker="o",
            ms=4,
            lw=1.4,
            color=colour,
            label=name,
            ls="--" if name.startswith("after") else "-",
        )
    right.set(xlabel=level, ylabel=f"loss ({unit})", yscale="log")
    legend(right)
    return fig


@styled
def outputs_figure(
    points: Sequence[AuditPoint], reference: bool, marks: Sequence[tuple[str, float]]
):
    """Per output: the share of the loss that is noise, and the deviation of the answers relative to
    their size on a logarithmic axis, with ``marks`` (name, value) of where precision ends. Without
    a ``reference`` only the latter."""
    height = 1.5 + 0.55 * len(points)
    columns = 2 if reference else 1
    fig, axes = figure(9.6 if reference else 6.4, height, 1, columns)
    axes = np.atleast_1d(axes)
    place = np.arange(len(points))[::-1]
    if reference:
        left = axes[0]
        percent = np.array([p.percent for p in points])
        error = np.nan_to_num(np.array([p.percent_error for p in points]))
        left.barh(place, 100 - percent, 0.55, left=percent, color=FILL, label="wrong in every pose")
        left.barh(
            place,
            percent,
            0.55,
            color=SEARCHER,
            label="orientation noise",
            xerr=np.where(percent > 0.05, error, 0),
            error_kw={"lw": 1, "ecolor": INK},
        )
        for y, p in zip(place, points, strict=True):
            text = "none" if p.symmetric else f"{p.percent:.2g} %"
            left.text(101, y, text, va="center", fontsize=8.5, color=INK)
        left.set(
            xlim=(0, 114),
            xlabel="share of the loss (%)",
            xticks=[0, 25, 50, 75, 100],
            ylim=(-0.6, len(points) - 0.4),
        )
        left.set_yticks(place, [p.name for p in points])
        fig.legend(
            *left.get_legend_handles_labels(),
            loc="outside upper left",
            ncols=2,
            frameon=False,
            fontsize=8,
        )
    right = axes[-1]
    deviation = np.array([max(p.deviation, _FLOOR) for p in points])
    low = min(1e-17, 0.3 * deviation.min())
    right.hlines(place, low, deviation, color=PALE, lw=1.2)
    right.plot(deviation, place, "o", ms=6, color=SAMPLES)
    for name, value in marks:
        right.axvline(value, color=INK, lw=0.8, ls=":")
        right.text(
            value,
            1.01,
            name,
            transform=right.get_xaxis_transform(),
            fontsize=7.5,
            ha="center",
            va="bottom",
            color=INK,
        )
    right.set(
        xscale="log",
        xlim=(low, 3),
        ylim=(-0.6, len(points) - 0.4),
        xlabel="scatter of the answers relative to their size",
    )
    right.set_yticks(place, [p.name for p in points] if not reference else [""] * len(points))
    return fig
