"""The interactive figures of a report (plotly), and the free-energy map that they and the picture
share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from orbitwise.report.ensemble import (
    ConformerRow,
    Distributions,
    Ensemble,
    TorsionPanel,
    others,
)
from orbitwise.units import KCAL_PER_MOL_K

if TYPE_CHECKING:
    from plotly.graph_objects import Contour, Figure, Scatter

SAMPLES, REFERENCE, SEARCHER = "#1f6fb4", "#1c2430", "#e08214"
COLOURS = {"samples": SAMPLES, "reference": REFERENCE, "learned": SEARCHER}
BESIDE = ["#9aa5b4", "#e0b07a", "#5b6675"]  # bars of other ensembles
INK, GRID = "#3b4656", "#e6eaf0"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
# deep blue at the minimum, white where nothing was seen
DEPTHS = ["#0b2559", "#1a4d8f", "#2c7fb8", "#41b6c4", "#7fcdbb", "#c7e9b4", "#f4fbd9"]
NAMES = {"samples": "samples", "learned": "learned samples", "reference": "reference"}
_DISC = 14  # degrees on the map that a number covers
TICKS = [-180, -120, -60, 0, 60, 120, 180]


def free_energy_map(a: np.ndarray, b: np.ndarray, kt: float, cells: int = 72) -> np.ndarray:
    """``-kT ln(p/p_max)`` on a periodic ``(cells, cells)`` grid (rows b, columns a), angles in
    radians.

    A histogram smoothed by a periodic Gaussian of 5° (10⁴ samples) to 9° (few); inf where p is
    zero. Pairs that are not finite are left out.
    """
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]

    width = 360 / cells
    ij = [np.floor((np.degrees(v) + 180) % 360 / width).astype(int) % cells for v in (b, a)]
    counts = np.zeros((cells, cells))
    np.add.at(counts, tuple(ij), 1.0)

    sigma = float(np.clip(9 - 4 * math.log10(max(len(a), 1) / 1000), 5, 9)) / width
    wave = np.exp(-2 * (np.pi * np.fft.fftfreq(cells) * sigma) ** 2)
    p = np.fft.ifft2(np.fft.fft2(counts) * wave[:, None] * wave[None]).real
    p[p < p.max() * 1e-9] = 0.0  # round-off of the transform

    with np.errstate(divide="ignore"):
        return -kt * np.log(p / p.max())


def torsion_figure(panel: TorsionPanel, path: str) -> Figure:
    """Histogram of one torsion: samples filled, the others as step lines. ``path`` names its
    atoms."""
    fig = _figure(height=215)
    for key, values in panel.angles.present():
        bins = 72 if len(values) >= 3000 else 36
        edges = np.linspace(-180, 180, bins + 1)
        share = np.histogram((np.degrees(values) + 180) % 360 - 180, edges)[0] / len(values)
        _steps(fig, key, edges, share / (360 / bins) * 100)

    where = "" if path in ("", panel.label) else f" · {path}"
    fig.update_layout(
        showlegend=False, title={"text": f"<b>{panel.label}</b>{where}", "font": {"size": 13}}
    )
    fig.update_xaxes(title_text="degrees", range=[-180, 180], tickvals=TICKS)
    fig.update_yaxes(title_text="% per degree", rangemode="tozero")
    return fig


def energy_figure(energies: Distributions) -> Figure:
    """Histogram of energies over the range of samples and reference; ``energies_beyond`` says what
    is left out."""
    fig = _figure(height=300)
    edges = _energy_edges(energies)
    for key, values in energies.present():
        counts = np.histogram(values, edges)[0]
        _steps(fig, key, edges, counts / len(values) / (edges[1] - edges[0]))
    fig.update_xaxes(
        title_text="energy above the lowest minimum (kcal/mol)", range=[edges[0], edges[-1]]
    )
    fig.update_yaxes(title_text="density (mol/kcal)", rangemode="tozero")
    return fig


def energies_beyond(energies: Distributions) -> str:
    """Which share of each ensemble lies outside the axis of ``energy_figure``, as a sentence; empty
    for none."""
    edges = _energy_edges(energies)
    shares = [
        (k, 1 - float(((v >= edges[0]) & (v <= edges[-1])).mean())) for k, v in energies.present()
    ]
    said = [f"{100 * share:.0f} % of {NAMES[key]}" for key, share in shares if share > 0.005]
    return f"Not on the axis: {', '.join(said)}." if said else ""


def map_figure(ensemble: Ensemble) -> Figure:
    """Free-energy maps of its two torsions side by side, one colour scale, conformers marked by
    their number."""
    from plotly.subplots import make_subplots

    first, second = ensemble.pair
    panels = map_panels(first, second)
    kt = KCAL_PER_MOL_K * ensemble.temperature_kelvin
    fig = make_subplots(
        cols=len(panels),
        subplot_titles=[p[0] for p in panels],
        shared_yaxes=True,
        horizontal_spacing=0.055,
    )
    _style(fig, height=430 if len(panels) < 3 else 370)

    for k, (_, a, b) in enumerate(panels, 1):
        fig.add_trace(_contours(a, b, kt, (first, second), scale=k == len(panels)), row=1, col=k)
        fig.add_trace(_numbers(*marks(ensemble)), row=1, col=k)
        fig.update_xaxes(title_text=f"{first.label} (°)", row=1, col=k)

    # the whole turn is always shown: no margins, square panels
    turn = {"range": [-180, 180], "tickvals": TICKS, "constrain": "domain"}
    fig.update_xaxes(**turn, showgrid=False, mirror=True, scaleanchor="y")
    fig.update_yaxes(**turn, showgrid=False, mirror=True)
    fig.update_yaxes(title_text=f"{second.label} (°)", row=1, col=1)
    return fig


def _contours(
    a: np.ndarray, b: np.ndarray, kt: float, pair: tuple[TorsionPanel, TorsionPanel], scale: bool
) -> Contour:
    """The free energy of two angles in radians; ``scale``: with the bar of the colours."""
    from plotly.graph_objects import Contour

    deepest = depth(kt)
    axis = np.arange(-1, 73) * 5.0 - 177.5
    z = np.pad(np.minimum(free_energy_map(a, b, kt), 2 * deepest), 1, mode="wrap")
    colours = [[i / len(DEPTHS), c] for i, c in enumerate(DEPTHS)] + [[1, "#ffffff"]]
    where = f"{pair[0].label} %{{x:.0f}}°, {pair[1].label} %{{y:.0f}}°"
    return Contour(
        x=axis,
        y=axis,
        z=z.astype(np.float32),
        zmin=0,
        zmax=deepest,
        colorscale=colours,
        contours={"start": 0, "end": deepest, "size": deepest / 8, "coloring": "fill"},
        line={"width": 0.4, "color": "rgba(255,255,255,0.7)"},
        showscale=scale,
        colorbar={
            "title": {"text": "kcal/mol", "side": "right"},
            "thickness": 14,
            "outlinewidth": 0,
        },
        hovertemplate=f"{where}<br>%{{z:.1f}} kcal/mol<extra></extra>",
    )


def _numbers(x: list[float], y: list[float], text: list[str]) -> Scatter:
    """Numbers in white discs."""
    from plotly.graph_objects import Scatter

    return Scatter(
        x=x,
        y=y,
        text=text,
        mode="markers+text",
        showlegend=False,
        hoverinfo="skip",
        cliponaxis=False,
        marker={
            "size": 17,
            "color": "rgba(255,255,255,0.92)",
            "line": {"color": INK, "width": 1},
        },
        textfont={"size": 10.5, "color": INK},
    )


def population_figure(rows: Sequence[ConformerRow], head: str = "Samples") -> Figure:
    """Populations with error bars, and those of the ensembles beside."""
    fig = _figure(height=260)
    numbers = [str(i) for i in range(1, len(rows) + 1)]
    sets = [(head, [r.population for r in rows], [r.population_error for r in rows], SAMPLES)]
    for other, colour in zip(others(rows), cycle(BESIDE), strict=False):
        values, errors = zip(*(r.population_in(other) for r in rows), strict=True)
        sets.append((other, values, errors, colour))

    for name, values, errors, colour in sets:
        y = [None if v is None else 100 * v for v in values]
        error = [0 if e is None else 100 * e for e in errors]
        fig.add_bar(
            x=numbers,
            y=y,
            name=name,
            marker_color=colour,
            error_y={"type": "data", "array": error, "thickness": 1.2, "width": 3, "color": INK},
        )

    fig.update_layout(barmode="group", bargap=0.3 if len(rows) > 3 else 0.6)
    fig.update_xaxes(title_text="conformer", type="category", showgrid=False)
    fig.update_yaxes(title_text="population (%)", rangemode="nonnegative")
    return fig


def map_panels(
    first: TorsionPanel, second: TorsionPanel
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """``(title, a, b)`` of each map: samples, reference, learned samples."""
    titles = {"samples": "Samples", "reference": "Reference", "learned": "Learned samples"}
    a, b = dict(first.angles.present()), dict(second.angles.present())
    return [(title, a[key], b[key]) for key, title in titles.items() if key in a and key in b]


def marks(ensemble: Ensemble, limit: int = 9) -> tuple[list[float], list[float], list[str]]:
    """Where the minima of the first conformers lie on the map, in degrees, and their numbers; one
    that would cover the number of an earlier one is left out."""
    i, j = ensemble.map_pair
    marks: list[tuple[float, float, str]] = []
    for k, row in enumerate(ensemble.conformers[:limit], 1):
        if len(row.torsions) <= max(i, j) or None in (row.torsions[i], row.torsions[j]):
            continue
        x, y = math.degrees(row.torsions[i]), math.degrees(row.torsions[j])
        if all(math.hypot(_turn(x - a), _turn(y - b)) > _DISC for a, b, _ in marks):
            marks.append((x, y, str(k)))
    return [x for x, _, _ in marks], [y for _, y, _ in marks], [text for _, _, text in marks]


def _turn(degrees: float) -> float:
    """The shorter way round."""
    return (degrees + 180) % 360 - 180


def depth(kt: float) -> float:
    """Depth of the colour scale: seven kT (one structure in a thousand), rounded to half a
    kcal/mol."""
    return max(0.5, round(2 * 7 * kt) / 2)


def _steps(fig: Figure, key: str, edges: np.ndarray, height: np.ndarray) -> None:
    dash = "dot" if key == "learned" else "solid"
    fill = {"fill": "tozeroy", "fillcolor": "rgba(31,111,180,0.30)"} if key == "samples" else {}
    fig.add_scatter(
        x=edges,
        y=np.append(height, height[-1]),
        name=NAMES[key],
        mode="lines",
        hoverinfo="skip",
        line={"shape": "hv", "color": COLOURS[key], "width": 1.6, "dash": dash},
        **fill,
    )


def _energy_edges(energies: Distributions) -> np.ndarray:
    """From 0 to a little above samples and reference, 20 to 60 bins as the smaller of them can
    fill. Samples far above the reference do not stretch the axis beyond three times its range."""
    main = {k: v[np.isfinite(v)] for k, v in energies.present() if k in ("samples", "reference")}
    main = {k: v for k, v in main.items() if len(v)} or {"samples": np.ones(1)}

    low = min(0.0, *(float(v.min()) for v in main.values()))
    tops = {k: float(np.quantile(v, 0.998)) for k, v in main.items()}
    known = tops.get("reference", math.inf)
    high = 1.15 * max(tops.get("reference", 0.0), min(tops.get("samples", 0.0), 3 * known)) + 1e-6

    high = max(high, low + 1e-3)
    bins = int(np.clip(1.2 * math.sqrt(min(len(v) for v in main.values())), 20, 60))
    return np.linspace(low, high, bins + 1)


def _figure(height: int) -> Figure:
    import plotly.graph_objects as go

    fig = go.Figure()
    _style(fig, height)
    return fig


def _style(fig: Figure, height: int) -> None:
    fig.update_layout(
        template="none",
        height=height,
        margin={"l": 62, "r": 14, "t": 34, "b": 48},
        autosize=True,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="closest",
        font={"family": FONT, "size": 13, "color": INK},
        dragmode="zoom",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#c3cad3", "activecolor": SAMPLES},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
    )
    line = {
        "linecolor": "#b4bdc9",
        "gridcolor": GRID,
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
    }
    line |= {"tickcolor": "#b4bdc9", "ticklen": 4, "title_standoff": 8}
    fig.update_xaxes(**line)
    fig.update_yaxes(**line)
