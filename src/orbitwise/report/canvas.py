"""The ground that the static figures stand on: style, axes, histograms (matplotlib)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from orbitwise.data.folder import replacing
from orbitwise.report.blocks import Picture
from orbitwise.report.figures import DEPTHS, INK, REFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

FILL, PALE = "#a9cbe6", "#b9c1cc"
STYLE = {
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure (PNG or whatever the suffix says), atomically."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=160)
    return Path(path)


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG."""
    from io import BytesIO

    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()


def keep(figure: Figure, path: Path, title: str, caption: str = "") -> Picture:
    """Write a figure beside its page; returns the block that shows the same."""
    save(figure, path)
    return Picture(path.read_bytes(), title, caption)


def styled(draw: Callable) -> Callable:
    """Draw within the style of the package; nothing global changes."""

    @wraps(draw)
    def within(*args, **options):
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **options)

    return within


def stairs(
    axis: Axes,
    values: np.ndarray,
    edges: np.ndarray,
    label: str,
    fill: bool = False,
    colour: str = REFERENCE,
) -> None:
    """A histogram as a density, filled or as a line; values beyond the edges count in its total."""
    density = np.histogram(values, edges)[0] / len(values) / np.diff(edges)
    axis.stairs(density, edges, fill=fill, label=label, lw=1.3, color=FILL if fill else colour)


def depths(white: bool = False) -> LinearSegmentedColormap:
    """The colours of the maps: of free energies (ending in white), or of counts."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = [*DEPTHS, "#ffffff"] if white else DEPTHS[::-1][1:]
    return LinearSegmentedColormap.from_list("depth", colours)


def canvas(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), dpi=160, layout="constrained")
    FigureCanvasAgg(fig)
    return fig


def figure(
    width: float,
    height: float,
    rows: int = 1,
    columns: int = 1,
    width_ratios: Sequence[float] | None = None,
) -> tuple[Figure, Axes | np.ndarray]:
    """A figure with plain axes."""
    fig = canvas(width, height)
    axes = fig.subplots(rows, columns, width_ratios=width_ratios)
    for axis in np.atleast_1d(axes).ravel():
        plain(axis)
    return fig, axes


def plain(axis: Axes) -> None:
    """No frame above and to the right."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def legend(axis: Axes, loc: str = "best", ncols: int = 1) -> None:
    """Without a frame."""
    axis.legend(frameon=False, fontsize=8, loc=loc, ncols=ncols)
