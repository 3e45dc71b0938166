"""Figures of sampled protein backbones (matplotlib): traces, maps of angles, bond lengths, size
against length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orbitwise.report.canvas import canvas, depths, figure, legend, plain, stairs, styled
from orbitwise.report.figures import INK, REFERENCE, SAMPLES

COLOURS = {"a": "#c8553d", "b": "#2c7fb8", "c": "#9aa5b1"}  # helix, strand, coil
WIDTHS = {"a": 5.0, "b": 5.0, "c": 2.4}
_BETWEEN = 8  # points drawn per residue


@dataclass(frozen=True)
class Trace:
    """A chain to draw: Cα ``positions: (R, 3)`` Å, one letter of ``structure`` per residue, and its
    ``title``."""

    positions: np.ndarray
    structure: Sequence[str]
    title: str


@dataclass(frozen=True)
class Compared:
    """Values of one quantity in the samples and in the held-out chains."""

    label: str
    unit: str
    samples: np.ndarray
    held_out: np.ndarray


@styled
def traces_figure(traces: Sequence[Trace], columns: int = 4):
    """Smoothed Cα traces seen along their shortest axis, near parts over far ones; helices red,
    strands blue."""
    rows = -(-len(traces) // columns)
    fig = canvas(2.6 * columns, 2.6 * rows + 0.3)
    axes = np.atleast_1d(fig.subplots(rows, columns)).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, trace in zip(axes, traces, strict=False):
        _trace(axis, trace)
    handles = [
        axes[0].plot([], [], color=COLOURS[k], lw=4, label=word)[0]
        for k, word in (("a", "helix"), ("b", "strand"), ("c", "coil"))
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return fig


def _trace(axis, trace: Trace) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb
    from scipy.interpolate import CubicSpline

    centred = trace.positions - trace.positions.mean(0)
    _, _, frame = np.linalg.svd(centred, full_matrices=False)
    frame[2] *= np.sign(np.linalg.det(frame))  # a rotation: the picture keeps the handedness
    points = centred @ frame.T
    place = np.arange(len(points))
    fine = np.linspace(0, len(points) - 1, _BETWEEN * (len(points) - 1) + 1)
    curve = CubicSpline(place, points)(fine)
    letters = [trace.structure[round(k)] for k in 0.5 * (fine[1:] + fine[:-1])]
    depth = 0.5 * (curve[1:, 2] + curve[:-1, 2])
    shade = (depth - depth.min()) / max(float(np.ptp(depth)), 1e-9)
    order = np.argsort(depth)
    colours = np.array([to_rgb(COLOURS[k]) for k in letters])
    colours = 1 - (0.45 + 0.55 * shade[:, None]) * (1 - colours)  # paler farther away
    widths = np.array([WIDTHS[k] for k in letters])
    segments = np.stack([curve[:-1, :2], curve[1:, :2]], 1)[order]
    edge = LineCollection(segments, colors="white", linewidths=widths[order] + 1.6, capstyle="butt")
    line = LineCollection(
        segments, colors=colours[order], linewidths=widths[order], capstyle="round"
    )
    for k in (edge, line):
        axis.add_collection(k)
    reach = np.abs(points[:, :2]).max() * 1.1
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axis.set_title(trace.title, fontsize=8)


@styled
def angle_maps(
    first: Compared, second: Compared, limits: tuple[tuple[float, float], tuple[float, float]]
):
    """Density of two angles against each other, samples left and held-out chains right, one colour
    scale."""
    fig, axes = figure(8.6, 3.7, 1, 2)
    edges = [np.linspace(*limit, 73) for limit in limits]
    maps = [
        np.histogram2d(x, y, edges, density=True)[0].T
        for x, y in ((first.samples, second.samples), (first.held_out, second.held_out))
    ]
    top = np.quantile(maps[1][maps[1] > 0], 0.98) if (maps[1] > 0).any() else 1.0
    for axis, density, title in zip(axes, maps, ("samples", "held-out chains"), strict=True):
        shown = axis.pcolormesh(
            *edges, np.where(density > 0, density, np.nan), cmap=depths(), vmin=0, vmax=top
        )
        axis.set(xlabel=f"{first.label} (°)", ylabel=f"{second.label} (°)")
        axis.set_title(title, fontsize=9)
    fig.colorbar(shown, ax=axes, label="density (1/deg²)", shrink=0.85)
    return fig


@styled
def histograms_figure(compared: Sequence[Compared], columns: int = 3):
    """Histograms of distances or angles: samples filled, held-out chains as lines."""
    columns = min(columns, len(compared))
    rows = -(-len(compared) // columns)
    fig, axes = figure(3.3 * columns, 2.5 * rows, rows, columns)
    axes = np.atleast_1d(axes).ravel()
    for axis, one in zip(axes, compared, strict=False):
        both = np.concatenate([one.samples, one.held_out])
        low, high = np.quantile(both, [0.002, 0.998])
        margin = 0.05 * (high - low) + 1e-3
        edges = np.linspace(low - margin, high + margin, 61)
        stairs(axis, one.samples, edges, "samples", fill=True)
        stairs(axis, one.held_out, edges, "held-out")
        axis.set(xlabel=f"{one.label} ({one.unit})", yticks=[])
    for axis in axes[len(compared) :]:
        axis.set_axis_off()
    legend(axes[0])
    return fig


@styled
def size_figure(
    lengths: np.ndarray,
    radii: np.ndarray,
    held_out_lengths: np.ndarray,
    held_out_radii: np.ndarray,
    scale: float,
    power: float,
):
    """Radius of gyration against length, with the law ``scale · length^power`` of the held-out
    chains."""
    fig = canvas(5.2, 3.5)
    axis = fig.subplots()
    plain(axis)
    axis.scatter(
        held_out_lengths,
        held_out_radii,
        s=14,
        color="none",
        edgecolors=REFERENCE,
        lw=0.8,
        label="held-out",
    )
    axis.scatter(lengths, radii, s=9, color=SAMPLES, alpha=0.6, lw=0, label="samples")
    x = np.linspace(
        min(lengths.min(), held_out_lengths.min()), max(lengths.max(), held_out_lengths.max()), 60
    )
    axis.plot(
        x, scale * x**power, color=INK, lw=1.0, ls="--", label=f"{scale:.2f} · length^{power:.2f}"
    )
    axis.set(xlabel="residues", ylabel="radius of gyration (Å)")
    legend(axis)
    return fig
