"""The static picture of an ensemble (matplotlib), for a README or a slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from orbitwise.report.data import ConformerRow, ReportData, beside
from orbitwise.report.figures import (
    DEPTHS,
    INK,
    NAMES,
    REFERENCE,
    SAMPLES,
    TICKS,
    depth,
    free_energy_map,
    map_panels,
    marks,
    present,
    torsion_pair,
)
from orbitwise.units import KCAL_PER_MOL_K

STYLE = {
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def main_picture(data: ReportData, path: str | Path) -> Path:
    """The static picture (PNG or any format matplotlib writes by the suffix of ``path``).

    With a torsion pair: the free-energy maps of samples and reference; with one torsion its
    histogram; with none the energies. Populations stand beside it.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pair = torsion_pair(data)
    panels = [p for p in map_panels(data, *pair) if p[0] != "Before relaxation"] if pair else []
    left = len(panels) or 1
    rows = data.conformers[:10]
    widths = [*[1.0 if panels else 1.6] * left, *([1.0] if rows else [])]
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(3.3 * sum(widths) + 0.6, 3.4), dpi=160, layout="constrained")
        FigureCanvasAgg(fig)
        axes = list(np.atleast_1d(fig.subplots(1, len(widths), width_ratios=widths)))
        if pair:
            _static_maps(fig, axes[:left], data, panels, pair)
        else:
            _static_histogram(axes[0], data)
        if rows:
            _static_populations(axes[-1], rows)
        fig.savefig(path)
    return Path(path)


def _static_maps(fig, axes, data: ReportData, panels, pair) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    kt = KCAL_PER_MOL_K * data.temperature_kelvin
    deepest = depth(kt)
    colours = LinearSegmentedColormap.from_list("depth", [*DEPTHS, "#ffffff"])
    grid = np.arange(-1, 73) * 5.0 - 177.5
    for k, (axis, (title, a, b)) in enumerate(zip(axes, panels, strict=True)):
        z = np.pad(np.minimum(free_energy_map(a, b, kt), 2 * deepest), 1, mode="wrap")
        shown = axis.contourf(
            grid, grid, z, levels=np.linspace(0, deepest, 9), cmap=colours, vmax=deepest
        )
        x, y, text = marks(data)
        axis.scatter(x, y, s=60, c="white", edgecolors=INK, linewidths=0.7, zorder=3)
        for xi, yi, ti in zip(x, y, text, strict=True):
            axis.text(xi, yi, ti, ha="center", va="center", fontsize=6.5, zorder=4)
        axis.set(xlim=(-180, 180), ylim=(-180, 180), xticks=TICKS, yticks=TICKS, aspect="equal")
        axis.tick_params(labelsize=7.5)
        axis.set_xlabel(f"{pair[0].label} (°)")
        axis.set_title(title, fontsize=10)
        if k == 0:
            axis.set_ylabel(f"{pair[1].label} (°)")
        else:
            axis.set_yticklabels([])
    fig.colorbar(shown, ax=list(axes), label="kcal/mol", shrink=0.85, pad=0.01)


def _static_histogram(axis, data: ReportData) -> None:
    if data.torsions:
        panel = data.torsions[0]
        edges = np.linspace(-180, 180, 73)
        found = [(k, (np.degrees(v) + 180) % 360 - 180) for k, v in present(panel.angles)]
        axis.set(
            xlabel=f"{panel.label} (°)",
            ylabel="probability density",
            xlim=(-180, 180),
            xticks=TICKS,
        )
    elif data.energies_kcal is not None:
        found = present(data.energies_kcal)
        top = 1.1 * max(
            float(np.quantile(v, 0.998)) for k, v in found if k in ("samples", "reference")
        )
        edges = np.linspace(0, top, 61)
        axis.set(xlabel="energy above the lowest minimum (kcal/mol)", ylabel="probability density")
    else:
        axis.set_axis_off()
        return
    for key, values in found:
        if key not in ("samples", "reference"):
            continue
        fill = key == "samples"
        density = np.histogram(values, edges)[0] / len(values) / np.diff(edges)
        axis.stairs(
            density,
            edges,
            fill=fill,
            label=NAMES[key],
            lw=1.2,
            color="#a9cbe6" if fill else REFERENCE,
        )
    axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _static_populations(axis, rows: tuple[ConformerRow, ...]) -> None:
    place = np.arange(len(rows))
    other = beside(rows)
    known = other is not None
    width = 0.38 if known else 0.6
    style = {"error_kw": {"lw": 0.9, "ecolor": INK}, "capsize": 1.8}
    axis.bar(
        place - known * 0.2,
        [100 * r.population for r in rows],
        width,
        color=SAMPLES,
        label="samples",
        yerr=[100 * r.population_error for r in rows],
        **style,
    )
    if known:
        values, errors = zip(*(r.population_in(other) for r in rows), strict=True)
        y, error = [100 * (v or 0) for v in values], [100 * (e or 0) for e in errors]
        axis.bar(place + 0.2, y, width, color="#b9c1cc", label=other, yerr=error, **style)
        axis.legend(frameon=False, fontsize=8)
    axis.set_xticks(place, [str(k + 1) for k in place])
    axis.set(xlabel="conformer", ylabel="population (%)")
    axis.set_title("Populations", fontsize=10)
    if len(rows) == 1:
        axis.set_xlim(-1, 1)
    axis.spines[["top", "right"]].set_visible(False)
