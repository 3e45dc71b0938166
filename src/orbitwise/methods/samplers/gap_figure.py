"""The gap between evidence bounds against energy evaluations, beside published values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orbitwise.report.canvas import (
    figure,
    legend,
    styled,
)
from orbitwise.report.figures import INK, SAMPLES, SEARCHER

_SERIES = [SAMPLES, SEARCHER, "#8e63b0", "#1b9e77", "#c0392b", "#7f6a3b", "#5b6675", "#d16ba5"]
_MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class GapCurve:
    """EUBO - ELBO in nats after ``calls: (k,)`` energy evaluations of one method, mean over seeds
    with its standard error ``error: (k,)`` (None: one seed)."""

    name: str
    calls: np.ndarray
    gap: np.ndarray
    error: np.ndarray | None = None


@dataclass(frozen=True)
class PublishedGap:
    """A gap that a paper reports at a number of energy evaluations."""

    name: str
    calls: float
    gap: float
    error: float | None = None


@styled
def gap_figure(curves: Sequence[GapCurve], published: Sequence[PublishedGap] = (), title: str = ""):
    """EUBO - ELBO against energy evaluations, both axes logarithmic: one line with its error band
    per method, published values as labelled markers."""
    fig, axis = figure(6.4, 4.4)
    for k, curve in enumerate(curves):
        colour = _SERIES[k % len(_SERIES)]
        gap = np.asarray(curve.gap, dtype=float)
        axis.plot(
            curve.calls, gap, color=colour, lw=1.6, marker=".", ms=4, label=curve.name, zorder=3
        )
        if curve.error is not None:
            error = np.asarray(curve.error, dtype=float)
            axis.fill_between(
                curve.calls,
                np.maximum(gap - error, gap * 1e-2),
                gap + error,
                color=colour,
                alpha=0.2,
                lw=0,
                zorder=2,
            )

    for k, known in enumerate(published):
        axis.errorbar(
            known.calls,
            known.gap,
            known.error,
            fmt=_MARKERS[k % len(_MARKERS)],
            ms=6,
            mew=1.1,
            mfc="white",
            mec=INK,
            ecolor=INK,
            elinewidth=0.9,
            capsize=2,
            zorder=4,
        )

    axis.set(
        xscale="log", yscale="log", xlabel="energy evaluations", ylabel="gap EUBO − ELBO (nats)"
    )
    axis.margins(x=0.08, y=0.1)
    axis.grid(which="major", color="#e6eaf0", lw=0.8, zorder=0)
    if curves or published:
        _name_markers(axis, published)
    if title:
        axis.set_title(title, fontsize=10)
    if curves:
        legend(axis)
    return fig


def _name_markers(axis, published: Sequence[PublishedGap]) -> None:
    """A label beside each marker, where it covers no marker and no other label."""
    axis.autoscale_view()
    points = [(known.calls, known.gap) for known in published]
    places = axis.transAxes.inverted().transform(axis.transData.transform(points)) if points else []
    taken = [(x - 0.015, x + 0.015, y) for x, y in places]
    for known, (x, y) in zip(published, places, strict=True):
        width = 0.0115 * len(known.name)
        tries = [
            (left, y + up)
            for left in (x + 0.022, x - 0.022 - width)
            for up in (0, 0.045, -0.045, 0.09)
        ]
        free = [
            (left, level)
            for left, level in tries
            if left > 0
            and left + width < 1
            and all(left > b or left + width < a or abs(level - c) > 0.042 for a, b, c in taken)
        ]
        left, level = free[0] if free else tries[0]
        taken.append((left, left + width, level))
        axis.annotate(
            known.name,
            (known.calls, known.gap),
            xytext=(left, level),
            textcoords="axes fraction",
            ha="left",
            va="center",
            fontsize=7.5,
            zorder=5,
        )
