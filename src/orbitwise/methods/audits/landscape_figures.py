"""Static figures of the loss terms as functions of the parameters (matplotlib): spectra and
landscapes.

They take what ``orbitwise.audit`` returns: ``Conditioning``, ``Spectrum``, ``Landscape``, or
anything with the same attributes. Every function returns a ``matplotlib.figure.Figure``;
``canvas.save`` writes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orbitwise.report.canvas import PALE, canvas, depths, figure, legend, plain, styled
from orbitwise.report.figures import INK, REFERENCE, SAMPLES, SEARCHER

COLOURS = {"total": REFERENCE, "twirled": SAMPLES, "equivariance": SEARCHER}
NAMES = {
    "total": "total loss",
    "twirled": "twirled prediction error",
    "equivariance": "equivariance error",
}


@styled
def conditioning_figure(conditioning: Any, title: str = ""):
    """Eigenvalues of the last layer's Hessian for the three terms, largest first, and the condition
    numbers with their errors; eigenvalues that are not above the floor are pale, lower bounds are
    triangles."""
    fig, (left, right) = figure(9.8, 3.7, 1, 2, width_ratios=[1.7, 1])
    bottom = math.inf
    for name, colour in COLOURS.items():
        term = getattr(conditioning, name)
        values = np.asarray(term.spectrum)[::-1]
        rank = np.arange(1, len(values) + 1)
        kept = len(values) - term.unresolved
        style = {"color": colour, "lw": 1.5, "marker": "o", "ms": 2.6 if len(values) > 40 else 4}
        left.plot(rank[:kept], values[:kept], label=NAMES[name], **style)
        hidden = values[kept:] > 0
        left.plot(
            rank[kept:][hidden], values[kept:][hidden], "o", color=colour, ms=2.2, alpha=0.22, mew=0
        )
        bottom = min(bottom, term.smallest)
    left.set(
        xscale="log", yscale="log", xlabel="rank", ylabel="eigenvalue (loss per squared parameter)"
    )
    top = max(getattr(conditioning, name).largest for name in COLOURS)
    left.set_ylim(bottom / 5, 3 * top)
    left.grid(which="major", color="#e6eaf0", lw=0.8, zorder=0)
    legend(left, loc="lower left")
    terms = [getattr(conditioning, name) for name in COLOURS]
    _with_errors(right, terms, list(COLOURS.values()))
    right.set_xticks(range(3), ["total", "twirled", "equivariance"])
    right.set(
        ylabel=f"condition number (floor {conditioning.floor:g})", yscale="log", xlim=(-0.6, 2.6)
    )
    low, high = min(t.value.value for t in terms), max(t.value.value for t in terms)
    right.set_ylim(10 ** math.floor(math.log10(low / 1.5)), 10 ** math.ceil(math.log10(high * 1.5)))
    right.grid(axis="y", color="#e6eaf0", lw=0.8, zorder=0)
    ratio = conditioning.total_over_equivariance
    right.set_title(f"total / equivariance {_said(ratio)}", fontsize=10)
    left.set_title(title or f"last layer, {conditioning.dimension} parameters", fontsize=10)
    return fig


@styled
def spectrum_figure(spectra: Mapping[str, Any] | Sequence[Any], title: str = ""):
    """Extreme eigenvalues of the whole network's Hessian for each term, with their errors over
    batches, on an axis that is linear near zero; effective rank and stretch in the labels."""
    given = list(spectra.values()) if isinstance(spectra, Mapping) else list(spectra)
    fig, axis = figure(7.6, 0.75 * len(given) + 1.5)
    sizes = np.concatenate([np.abs(np.asarray(s.values)) for s in given])
    small = float(np.quantile(sizes[sizes > 0], 0.1)) if (sizes > 0).any() else 1.0
    labels = []
    for row, spectrum in enumerate(given):
        values, errors = (
            np.asarray(spectrum.values, dtype=float),
            np.asarray(spectrum.errors, dtype=float),
        )
        colour = COLOURS.get(spectrum.term, REFERENCE)
        axis.axhline(row, color=PALE, lw=0.6, zorder=1)
        axis.errorbar(
            values,
            np.full(len(values), row),
            xerr=np.nan_to_num(errors),
            fmt="|",
            ms=15,
            mew=1.6,
            color=colour,
            elinewidth=1.0,
            capsize=2,
            zorder=3,
        )
        labels.append(
            f"{NAMES.get(spectrum.term, spectrum.term)}\neffective rank"
            f" {spectrum.effective_rank:.3g} of {spectrum.dimension:,}, λmax/rms"
            f" {spectrum.stretch:.3g}"
        )
    axis.axvline(0, color=INK, lw=0.7, zorder=2)
    axis.set_xscale("symlog", linthresh=small)
    axis.set_yticks(range(len(given)), labels, fontsize=8)
    axis.set(ylim=(len(given) - 0.4, -0.6), xlabel="eigenvalue (loss per squared parameter)")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    edge = 2.5 * float(sizes.max())
    lowest = min(float(np.min(np.asarray(s.values))) for s in given)
    axis.set_xlim(min(2.5 * lowest, -small), edge)
    _few_ticks(axis, sizes, small)
    axis.set_title(title or "extreme eigenvalues, errors over batches", fontsize=10)
    return fig


@styled
def landscape_figure(landscape: Any, fresh: Any = None, title: str = ""):
    """Both terms on the plane of two eigenvectors, side by side, with curvatures and R² of the
    quadratic fit. With ``fresh``: in a second row the same plane with random numbers drawn anew at
    every point."""
    rows = [(landscape, "common random numbers")]
    if fresh is not None:
        rows.append((fresh, "random numbers drawn anew"))
    fig = canvas(9.2, 4.5 * len(rows) + (0.3 if title else 0))
    for axes, (surface, how) in zip(fig.subplots(len(rows), 2, squeeze=False), rows, strict=True):
        for axis, name in zip(axes, ("twirled", "equivariance"), strict=True):
            _surface(fig, axis, surface, name, how)
    if title:
        fig.suptitle(title, fontsize=10.5)
    return fig


def _surface(fig, axis, surface: Any, name: str, how: str) -> None:
    plain(axis)
    steps, values = (
        np.asarray(surface.axis, dtype=float),
        np.asarray(getattr(surface, name), dtype=float),
    )
    fit = surface.fit(name)
    fitted = np.asarray(fit.fitted, dtype=float)
    middle = float(fitted[len(steps) // 2, len(steps) // 2])
    percent = 100 * (values - middle) / abs(middle)
    power = math.floor(math.log10(abs(steps).max()))
    shown = steps / 10.0**power
    # points are cells here, so that what a single evaluation adds is seen and not interpolated away
    mesh = axis.pcolormesh(
        shown, shown, percent.T, cmap=depths().reversed(), shading="nearest", rasterized=True
    )
    if float(np.ptp(fitted)) > 1e-12 * abs(middle):
        axis.contour(shown, shown, fitted.T, levels=8, colors="white", linewidths=0.7, alpha=0.85)
    axis.plot(0, 0, "+", color=SEARCHER, ms=9, mew=1.6)
    unit = f" (10$^{{{power}}}$)" if power else ""
    axis.set(
        xlabel=f"along the first direction{unit}", ylabel=f"along the second{unit}", aspect="equal"
    )
    bar = fig.colorbar(mesh, ax=axis, shrink=0.8, pad=0.03, aspect=28, label="change (%)")
    bar.ax.tick_params(labelsize=7.5)
    bar.ax.locator_params(nbins=6)
    bar.outline.set_visible(False)
    curvature = ", ".join(f"{float(c):.2g}" for c in fit.curvatures)
    neighbours = fit.neighbour_correlation
    text = (
        f"{NAMES[name]}, {how}\nquadratic fit: curvatures {curvature};  R² {fit.r_squared:.3f}\n"
        f"residual {100 * abs(fit.relative_residual):.2g} %"
        + ("" if math.isnan(neighbours) else f", correlation of neighbours {neighbours:+.2f}")
    )
    axis.set_title(text.replace("-", "−"), fontsize=8.5)


def _with_errors(axis, terms: Sequence[Any], colours: Sequence[str]) -> None:
    for k, (term, colour) in enumerate(zip(terms, colours, strict=True)):
        value = term.value.value
        error = term.value.error if math.isfinite(term.value.error) else 0.0
        axis.errorbar(
            k,
            value,
            [[min(error, 0.9 * value)], [error]],
            fmt="^" if term.lower_bound else "o",
            ms=6,
            color=colour,
            elinewidth=1.2,
            capsize=3,
            zorder=3,
        )
        text = f"{'≥ ' if term.lower_bound else ''}{value:.3g}"
        axis.annotate(
            text, (k, value), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=8
        )


def _said(estimate: Any) -> str:
    return f"{estimate.value:.3g}" + (
        f" ± {estimate.error:.2g}" if math.isfinite(estimate.error) else ""
    )


def _few_ticks(axis, sizes: np.ndarray, small: float) -> None:
    """Powers of ten on both sides of zero, at most four on each."""
    low, high = math.ceil(math.log10(small)), math.floor(math.log10(float(sizes.max())))
    powers = list(range(low, high + 1, max(1, math.ceil((high - low + 1) / 4)))) or [high]
    ticks = [-(10.0**p) for p in powers[::-1]] + [0.0] + [10.0**p for p in powers]
    axis.set_xticks(ticks)
