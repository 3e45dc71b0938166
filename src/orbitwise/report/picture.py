"""The static picture of an ensemble (matplotlib), for a README or a slide."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from orbitwise.report.canvas import canvas, depths, legend, save, stairs, styled
from orbitwise.report.ensemble import ConformerRow, Ensemble, others
from orbitwise.report.figures import (
    BESIDE,
    INK,
    NAMES,
    SAMPLES,
    TICKS,
    depth,
    free_energy_map,
    map_panels,
    marks,
)
from orbitwise.units import KCAL_PER_MOL_K

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAIN = ("samples", "reference")


@styled
def main_picture(ensemble: Ensemble, path: str | Path) -> Path:
    """The static picture (PNG or any format matplotlib writes by the suffix of ``path``).

    With a torsion pair: the free-energy maps of samples and reference; with one torsion its
    histogram; with none the energies. Populations stand beside it.
    """
    pair = ensemble.pair
    panels = [p for p in map_panels(*pair) if p[0] != "Learned samples"] if pair else []
    left = len(panels) or 1
    rows = ensemble.conformers[:10]

    widths = [*[1.0 if panels else 1.6] * left, *([1.0] if rows else [])]
    fig = canvas(3.3 * sum(widths) + 0.6, 3.4)
    axes = list(np.atleast_1d(fig.subplots(1, len(widths), width_ratios=widths)))

    if pair:
        _maps(fig, axes[:left], ensemble, panels)
    else:
        _histogram(axes[0], ensemble)
    if rows:
        _populations(axes[-1], rows, ensemble.head)
    return save(fig, path)


def _maps(
    fig: Figure,
    axes: Sequence[Axes],
    ensemble: Ensemble,
    panels: Sequence[tuple[str, np.ndarray, np.ndarray]],
) -> None:
    first, second = ensemble.pair
    kt = KCAL_PER_MOL_K * ensemble.temperature_kelvin
    deepest = depth(kt)
    grid = np.arange(-1, 73) * 5.0 - 177.5
    x, y, text = marks(ensemble)

    for axis, (title, a, b) in zip(axes, panels, strict=True):
        z = np.pad(np.minimum(free_energy_map(a, b, kt), 2 * deepest), 1, mode="wrap")
        levels = np.linspace(0, deepest, 9)
        shown = axis.contourf(grid, grid, z, levels=levels, cmap=depths(white=True), vmax=deepest)

        axis.scatter(x, y, s=60, c="white", ec=INK, lw=0.7, zorder=3, clip_on=False)
        for xi, yi, ti in zip(x, y, text, strict=True):
            axis.text(xi, yi, ti, ha="center", va="center", fontsize=6.5, zorder=4)

        axis.set(xlim=(-180, 180), ylim=(-180, 180), xticks=TICKS, yticks=TICKS, aspect="equal")
        axis.tick_params(labelsize=7.5)
        axis.set_xlabel(f"{first.label} (°)")
        axis.set_title(title, fontsize=10)

    axes[0].set_ylabel(f"{second.label} (°)")
    for axis in axes[1:]:
        axis.set_yticklabels([])
    fig.colorbar(shown, ax=list(axes), label="kcal/mol", shrink=0.85, pad=0.01)


def _histogram(axis: Axes, ensemble: Ensemble) -> None:
    """Of the first torsion, or else of the energies."""
    if ensemble.torsions:
        panel = ensemble.torsions[0]
        edges = np.linspace(-180, 180, 73)
        found = [(k, (np.degrees(v) + 180) % 360 - 180) for k, v in panel.angles.present()]
        axis.set(xlabel=f"{panel.label} (°)", xlim=(-180, 180), xticks=TICKS)
    elif ensemble.energies_kcal is not None:
        found = ensemble.energies_kcal.present()
        top = max(float(np.quantile(v, 0.998)) for k, v in found if k in _MAIN)
        edges = np.linspace(0, 1.1 * top, 61)
        axis.set(xlabel="energy above the lowest minimum (kcal/mol)")
    else:
        axis.set_axis_off()
        return

    for key, values in found:
        if key in _MAIN:
            stairs(axis, values, edges, NAMES[key], fill=key == "samples")
    axis.set_ylabel("probability density")
    legend(axis)
    axis.spines[["top", "right"]].set_visible(False)


def _populations(axis: Axes, rows: Sequence[ConformerRow], head: str) -> None:
    """Bars with errors, of the samples and of what stands beside them."""
    place = np.arange(len(rows))
    names = others(rows)
    width = 0.6 if not names else 0.76 / (1 + len(names))
    style = {"error_kw": {"lw": 0.9, "ecolor": INK}, "capsize": 1.8, "width": width}

    sets = [(head, [(r.population, r.population_error) for r in rows], SAMPLES)]
    sets += [
        (name, [r.population_in(name) for r in rows], colour)
        for name, colour in zip(names, cycle(BESIDE), strict=False)
    ]
    for k, (name, pairs, colour) in enumerate(sets):
        values, errors = ([100 * (v or 0) for v in column] for column in zip(*pairs, strict=True))
        aside = (k - (len(sets) - 1) / 2) * (width + 0.02)
        axis.bar(place + aside, values, color=colour, label=name, yerr=errors, **style)
    if names:
        legend(axis)

    axis.set_xticks(place, [str(k + 1) for k in place])
    axis.set(xlabel="conformer", ylabel="population (%)")
    axis.set_title("Populations", fontsize=10)
    if len(rows) == 1:
        axis.set_xlim(-1, 1)
    axis.spines[["top", "right"]].set_visible(False)
