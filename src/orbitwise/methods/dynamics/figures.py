"""Static figures of symmetry in training: share of the loss and both terms against steps, loss
against time.

Every function returns a ``matplotlib.figure.Figure``; ``canvas.save`` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orbitwise.report.canvas import figure, legend, styled
from orbitwise.report.figures import GRID, INK, SAMPLES, SEARCHER

_SERIES = [SAMPLES, SEARCHER, "#8e63b0", "#1b9e77", "#c0392b", "#7f6a3b", "#5b6675", "#d16ba5"]
_FLOOR = 1e-3  # percent; what is below is drawn here


@dataclass(frozen=True)
class Curve:
    """Audits of one training, or of one level of it: arrays ``(k,)``. ``percent`` of the loss with
    its standard error, ``total = twirled + equivariance``, ``seconds`` of training."""

    name: str
    steps: np.ndarray
    seconds: np.ndarray
    percent: np.ndarray
    percent_error: np.ndarray
    total: np.ndarray
    twirled: np.ndarray
    equivariance: np.ndarray


@styled
def dynamics_figure(curves: Sequence[Curve], whole: Curve, title: str, threshold: float = 2.0):
    """One training: the share of the loss by level, and both terms of the loss of all levels
    ``whole``."""
    fig, (left, right) = figure(9.6, 3.8, 1, 2)
    for curve, colour in zip(curves, _colours(len(curves)), strict=True):
        _percent(left, curve, colour)
    if len(curves) > 1:
        _percent(left, whole, INK, width=2.0)
    _finish_percent(left, threshold, many=len(curves) > 1)
    for values, name, colour in (
        (whole.total, "loss", INK),
        (whole.twirled, "twirled", SAMPLES),
        (whole.equivariance, "equivariance error", SEARCHER),
    ):
        right.plot(
            whole.steps, np.where(values > 0, values, np.nan), color=colour, lw=1.6, label=name
        )
    _steps(right)
    right.set(yscale="log", ylabel="held-out loss")
    legend(right)
    fig.suptitle(title, fontsize=11)
    return fig


@styled
def variants_figure(curves: Sequence[Curve], title: str, threshold: float = 2.0):
    """Several trainings: the share of the loss and the loss itself against steps, one colour
    each."""
    fig, (left, right) = figure(9.6, 3.8, 1, 2)
    for curve, colour in zip(curves, _colours(len(curves)), strict=True):
        _percent(left, curve, colour)
        right.plot(curve.steps, curve.total, color=colour, lw=1.6, label=curve.name)
    _finish_percent(left, threshold, many=False)
    _steps(right)
    right.set(yscale="log", ylabel="held-out loss")
    legend(right)
    fig.suptitle(title, fontsize=11)
    return fig


@styled
def efficiency_figure(curves: Sequence[Curve], level: float, title: str):
    """Held-out loss against seconds of training, with the common ``level`` that the methods are
    compared at."""
    fig, axis = figure(6.2, 4.0)
    for curve, colour in zip(curves, _colours(len(curves)), strict=True):
        later = curve.seconds > 0
        axis.plot(
            curve.seconds[later],
            curve.total[later],
            color=colour,
            lw=1.6,
            marker="o",
            ms=2.5,
            label=curve.name,
        )
    axis.axhline(level, color=INK, lw=0.9, ls=":", label=f"level {level:.3g}")
    axis.set(xscale="log", yscale="log", xlabel="seconds of training", ylabel="held-out loss")
    axis.grid(color=GRID, lw=0.6)
    legend(axis)
    axis.set_title(title, fontsize=11)
    return fig


def _percent(axis, curve: Curve, colour, width: float = 1.4) -> None:
    value = np.maximum(curve.percent, _FLOOR)
    axis.plot(curve.steps, value, color=colour, lw=width, label=curve.name)
    low, high = (np.maximum(curve.percent + s * curve.percent_error, _FLOOR) for s in (-1, 1))
    axis.fill_between(curve.steps, low, high, color=colour, alpha=0.15, lw=0)


def _finish_percent(axis, threshold: float, many: bool) -> None:
    _steps(axis)
    axis.axhline(threshold, color=INK, lw=0.9, ls=":")
    axis.text(
        1.005,
        threshold,
        f"{threshold:g} %",
        ha="left",
        va="center",
        fontsize=8,
        color=INK,
        transform=axis.get_yaxis_transform(),
    )
    axis.set(yscale="log", ylabel="equivariance error (% of loss)")
    if many:
        legend(axis, ncols=2)


def _steps(axis) -> None:
    """Logarithmic from 10 on, with room for step 0."""
    axis.set_xscale("symlog", linthresh=10, linscale=0.5)
    axis.set_xlim(left=0)
    axis.set_xlabel("training steps")
    axis.grid(color=GRID, lw=0.6)


def _colours(count: int):
    """Distinct ones for a few, a scale for many."""
    if count <= 4:
        return _SERIES[:count]
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0.0, 0.9, count)))
