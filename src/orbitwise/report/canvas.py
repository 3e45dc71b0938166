"""The ground that the static figures stand on: style, axes, histograms (matplotlib)."""

from __future__ import annotations

from functools import wraps
from pathlib import Path

import numpy as np

from orbitwise.report.figures import DEPTHS, REFERENCE
from orbitwise.report.picture import STYLE

FILL, PALE = "#a9cbe6", "#b9c1cc"


def save(figure, path: str | Path) -> Path:
    """Write a figure (PNG or whatever the suffix says)."""
    figure.savefig(path, dpi=160)
    return Path(path)


def styled(draw):
    """Draw within the style of the package; nothing global changes."""

    @wraps(draw)
    def within(*args, **options):
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **options)

    return within


def stairs(axis, values, edges, label: str, fill: bool = False, colour: str = REFERENCE) -> None:
    """A histogram as a density, filled or as a line; values beyond the edges count in its total."""
    density = np.histogram(values, edges)[0] / len(values) / np.diff(edges)
    axis.stairs(density, edges, fill=fill, label=label, lw=1.3, color=FILL if fill else colour)


def depths(white: bool = False):
    """The colours of the maps: of free energies (ending in white), or of counts."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = [*DEPTHS, "#ffffff"] if white else DEPTHS[::-1][1:]
    return LinearSegmentedColormap.from_list("depth", colours)


def canvas(width: float, height: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), dpi=160, layout="constrained")
    FigureCanvasAgg(fig)
    return fig


def figure(width: float, height: float, rows: int = 1, columns: int = 1, width_ratios=None):
    fig = canvas(width, height)
    axes = fig.subplots(rows, columns, width_ratios=width_ratios)
    for axis in np.atleast_1d(axes).ravel():
        plain(axis)
    return fig, axes


def plain(axis) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def legend(axis, loc: str = "best", ncols: int = 1) -> None:
    axis.legend(frameon=False, fontsize=8, loc=loc, ncols=ncols)
