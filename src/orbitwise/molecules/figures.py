"""Figures of a model of many molecules (matplotlib): figure by molecule, and structures laid over
each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orbitwise.report.canvas import figure, legend, plain, styled
from orbitwise.report.figures import GRID, INK, REFERENCE, SAMPLES, SEARCHER


@dataclass(frozen=True)
class Overlay:
    """One reference conformer and the nearest samples: heavy atoms ``(N, 3)`` Å in one frame,
    ``bonds`` between them, and the RMSD of each in Å."""

    title: str
    reference: np.ndarray
    model: np.ndarray
    baseline: np.ndarray
    bonds: tuple[tuple[int, int], ...]
    model_rmsd: float
    baseline_rmsd: float


@styled
def scatter_figure(
    model: Sequence[float], baseline: Sequence[float], name: str, atoms: Sequence[int]
):
    """Recall AMR of each molecule: the model against the ``name``d baseline, and both against the
    size."""
    fig, (left, right) = figure(9.6, 4.0, 1, 2)
    y, x, n = np.array(model), np.array(baseline), np.array(atoms)
    top = 1.05 * max(x.max(), y.max(), 0.1)
    left.plot([0, top], [0, top], color=GRID, lw=1.2, zorder=0)
    left.scatter(x, y, s=16, color=SAMPLES, alpha=0.7, lw=0)
    left.set(
        xlabel=f"{name}, recall AMR (Å)",
        ylabel="model, recall AMR (Å)",
        xlim=(0, top),
        ylim=(0, top),
    )
    left.text(
        0.97 * top,
        0.03 * top,
        f"model better: {int((y < x).sum())} of {len(x)}",
        ha="right",
        fontsize=8,
    )

    for values, colour, label in ((x, SEARCHER, name), (y, SAMPLES, "model")):
        right.scatter(
            n + (0.15 if label == "model" else -0.15), values, s=10, color=colour, alpha=0.45, lw=0
        )
        sizes = np.unique(n)
        edges = np.array_split(sizes, max(1, min(6, len(sizes) // 2)))
        middle = [(n[np.isin(n, e)].mean(), values[np.isin(n, e)].mean()) for e in edges]
        right.plot(*np.array(middle).T, color=colour, lw=1.6, marker="o", ms=4, label=label)

    right.set(xlabel="atoms, with hydrogens", ylabel="recall AMR (Å)", ylim=(0, top))
    legend(right, "upper left")
    return fig


@styled
def overlay_figure(overlays: Sequence[Overlay], name: str):
    """Reference (dark), nearest sample of the model (blue) and of the baseline (orange), seen along
    their flat side."""
    columns = min(4, len(overlays))
    rows = -(-len(overlays) // columns)
    fig, axes = figure(2.5 * columns, 2.6 * rows, rows, columns)
    axes = np.atleast_1d(axes).ravel()
    for axis in axes:
        plain(axis)
        axis.set_axis_off()

    for axis, o in zip(axes, overlays, strict=False):
        turn = np.linalg.svd(o.reference - o.reference.mean(0), full_matrices=False)[2][:2].T
        for x, colour, width in (
            (o.baseline, SEARCHER, 1.4),
            (o.model, SAMPLES, 1.8),
            (o.reference, REFERENCE, 0.9),
        ):
            flat = (x - o.reference.mean(0)) @ turn
            for i, j in o.bonds:
                axis.plot(
                    *flat[[i, j]].T, color=colour, lw=width, solid_capstyle="round", alpha=0.9
                )
        axis.set_aspect("equal")
        axis.set_title(o.title if len(o.title) < 34 else o.title[:32] + "…", fontsize=7, color=INK)
        axis.text(
            0.5,
            -0.02,
            f"model {o.model_rmsd:.2f} Å, {name} {o.baseline_rmsd:.2f} Å",
            transform=axis.transAxes,
            ha="center",
            va="top",
            fontsize=7,
            color=INK,
        )
    return fig
