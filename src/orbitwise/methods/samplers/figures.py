"""Static figures of a sampler of an energy (matplotlib): what it drew beside the target.

Every function returns a ``matplotlib.figure.Figure``; ``canvas.save`` writes it. Arrays are numpy,
energies kT.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from orbitwise.metrics.divergence import AngleKL
from orbitwise.metrics.evidence import Evidence
from orbitwise.metrics.modes import ModeWeights, WellCoverage
from orbitwise.metrics.torus import TorusW2
from orbitwise.report.canvas import (
    FILL,
    PALE,
    canvas,
    depths,
    figure,
    legend,
    plain,
    stairs,
    styled,
)
from orbitwise.report.figures import INK, REFERENCE, SAMPLES, SEARCHER, TICKS, free_energy_map

_BACK = SEARCHER
LogDensity = Callable[[np.ndarray], np.ndarray]


@styled
def mixture_figure(x: np.ndarray, log_density: LogDensity, modes: ModeWeights, show: int = 2000):
    """Mode coverage of a planar mixture: samples ``x: (n, 2)`` on contours of the log density, and
    the weight of every mode beside the exact one, with the band that holds 19 of 20 exact sets of
    this size.

    ``log_density``: ``(k, 2) -> (k,)``; ``show``: at most so many samples are drawn.
    """
    fig, (left, right) = figure(9.6, 4.2, 1, 2, width_ratios=[1, 1.25])
    exact, weight = modes.exact.cpu().numpy(), modes.weight.cpu().numpy()
    shown = x[:: max(1, math.ceil(len(x) / show))]
    side = _axis(x)
    z = log_density(np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)).reshape(len(side), -1)
    top = z.max()
    left.contour(
        side,
        side,
        np.maximum(z, top - 30),
        levels=top - np.array([20, 12, 7, 4, 2, 0.7]),
        colors=PALE,
        linewidths=0.6,
        linestyles="solid",
    )
    left.plot(shown[:, 0], shown[:, 1], ".", ms=2.2, color=SAMPLES, alpha=0.55, mew=0)
    left.set(xlim=side[[0, -1]], ylim=side[[0, -1]], aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    left.set_title(
        f"{modes.found} of {len(exact)} modes found, {len(shown):,} samples shown", fontsize=10
    )
    order = np.argsort(-weight)
    place = np.arange(len(exact))
    right.bar(
        place,
        100 * weight[order],
        0.75,
        color=FILL,
        yerr=100 * modes.error.cpu().numpy()[order],
        error_kw={"lw": 0.8, "ecolor": INK},
        label="samples",
    )
    right.step(
        np.append(place - 0.5, place[-1] + 0.5),
        100 * np.append(exact[order], exact[order][-1]),
        where="post",
        color=REFERENCE,
        lw=1.2,
        label="exact",
    )
    band = modes.largest.exact_95
    right.fill_between(
        np.append(place - 0.5, place[-1] + 0.5),
        100 * np.append(np.maximum(exact - band, 0)[order], max(exact[order][-1] - band, 0)),
        100 * np.append((exact + band)[order], exact[order][-1] + band),
        step="post",
        color=REFERENCE,
        alpha=0.1,
        lw=0,
        label="95 % of exact sets",
    )
    right.set(xlabel="mode, heaviest first", ylabel="weight (%)", xlim=(-1, len(exact)))
    right.set_title(
        f"largest error {100 * modes.largest.value:.2f} %, total variation "
        f"{modes.total_variation.value:.3f} (exact sampler {modes.total_variation.exact_mean:.3f})",
        fontsize=10,
    )
    heaviest = max(float((weight + modes.error.cpu().numpy()).max()), float(exact.max()) + band)
    right.set_ylim(0, 125 * heaviest)
    legend(right, loc="upper right", ncols=3)
    return fig


@styled
def wells_figure(x: np.ndarray, log_density: LogDensity, coverage: WellCoverage, panels: int = 3):
    """Many-well coverage: two-dimensional marginals of the first double wells as in the papers, the
    mass on the minor side of every well, and how many wells of a sample are on it.

    ``x: (n, 2W)``; ``log_density``: ``(k, 2W) -> (k,)``, a product over wells, so that a slice is a
    marginal.
    """
    wells = x.shape[1] // 2
    panels = min(panels, wells - 1)
    fig = canvas(9.6, 6.2)
    grid = fig.add_gridspec(2, 12, height_ratios=[1, 0.95])
    side = np.linspace(-2.9, 2.9, 120)
    plane = np.zeros((len(side) ** 2, x.shape[1]))
    for k in range(panels):
        axis = fig.add_subplot(grid[0, 12 // panels * k : 12 // panels * (k + 1)])
        plain(axis)
        i, j = 0, 2 * (k + 1)
        points = plane.copy()
        points[:, [i, j]] = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
        z = log_density(points).reshape(len(side), -1)
        counts, _, _ = np.histogram2d(x[:, j], x[:, i], bins=[np.linspace(-2.9, 2.9, 59)] * 2)
        axis.pcolormesh(
            np.linspace(-2.9, 2.9, 59),
            np.linspace(-2.9, 2.9, 59),
            np.where(counts > 0, counts, np.nan),
            cmap=depths(),
            norm="log",
            rasterized=True,
        )
        axis.contour(
            side,
            side,
            np.maximum(z, z.max() - 20),
            levels=z.max() - np.array([8, 5.5, 3.5, 2, 0.7]),
            colors=REFERENCE,
            linewidths=0.6,
            linestyles="solid",
        )
        axis.set(aspect="equal", xlabel=f"$x_{{{i + 1}}}$", ylabel=f"$x_{{{j + 1}}}$")
        axis.set_title(f"wells 1 and {k + 2}", fontsize=10)

    _minor_mass(fig.add_subplot(grid[1, :7]), coverage)
    _minor_count(fig.add_subplot(grid[1, 7:]), coverage)
    return fig


def _minor_mass(axis, coverage: WellCoverage) -> None:
    plain(axis)
    minor, error = coverage.minor.cpu().numpy(), coverage.error.cpu().numpy()
    place = np.arange(1, len(minor) + 1)
    axis.axhline(
        100 * coverage.exact, color=REFERENCE, lw=1.2, label=f"exact {100 * coverage.exact:.2f} %"
    )
    axis.errorbar(
        place,
        100 * minor,
        100 * error,
        fmt="o",
        ms=3,
        color=SAMPLES,
        elinewidth=0.9,
        capsize=1.5,
        label="samples, standard error",
    )
    low, high = 100 * min(minor.min(), coverage.exact), 100 * max(minor.max(), coverage.exact)
    margin = max(300 * float(error.max()), 0.25 * (high - low))
    axis.set(
        xlabel="well",
        ylabel="mass on the minor side (%)",
        xlim=(0, len(minor) + 1),
        ylim=(max(0, low - margin), high + 1.6 * margin),
    )
    legend(axis, ncols=2, loc="upper right")


def _minor_count(axis, coverage: WellCoverage) -> None:
    plain(axis)
    exact, found = coverage.binomial.cpu().numpy(), coverage.minor_wells.cpu().numpy()
    seen = np.flatnonzero((exact > 1e-4) | (found > 1e-4))
    k = np.arange(seen[0], seen[-1] + 1)
    axis.bar(k, found[k], 0.8, color=FILL, label="samples")
    axis.errorbar(
        k,
        exact[k],
        np.sqrt(exact[k] * (1 - exact[k]) / coverage.effective),
        fmt="_",
        ms=7,
        mew=1.3,
        color=REFERENCE,
        elinewidth=0.9,
        label="binomial",
    )
    axis.set(xlabel="minor wells per sample", ylabel="share of samples", ylim=(0, None))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_title(
        f"total variation {coverage.total_variation.value:.3f} "
        f"(exact sampler {coverage.total_variation.exact_mean:.3f})",
        fontsize=10,
    )
    legend(axis)


@styled
def ensemble_figure(
    energy: np.ndarray,
    reference_energy: np.ndarray | None = None,
    distances: np.ndarray | None = None,
    reference_distances: np.ndarray | None = None,
    unit: str = "",
):
    """Histogram of energies (kT) and, with ``distances``, of pair distances: samples filled,
    reference as a line. Energies far above the reference are left out, and the axis says which
    share."""
    columns = 1 if distances is None else 2
    fig, axes = figure(4.8 * columns, 3.4, 1, columns)
    axes = np.atleast_1d(axes)
    finite = energy[np.isfinite(energy)]
    known = finite if reference_energy is None else reference_energy
    low, high = _window(known, finite)
    beyond = 1 - np.mean(np.isfinite(energy) & (energy >= low) & (energy <= high))
    label = "energy (kT)" + (
        f"; {100 * beyond:.1f} % of samples not on the axis" if beyond > 5e-4 else ""
    )
    _pair_of_histograms(
        axes[0], energy, reference_energy, np.linspace(low, high, _bins(known, finite)), label
    )
    axes[0].set_ylabel("density")
    if distances is not None:
        a = distances.ravel()
        b = None if reference_distances is None else reference_distances.ravel()
        low, high = _window(a if b is None else b, a[np.isfinite(a)])
        _pair_of_histograms(
            axes[1],
            a,
            b,
            np.linspace(max(low, 0.0), high, 121),
            f"pair distance{unit and f' ({unit})'}",
        )

    legend(axes[-1])
    return fig


@styled
def ramachandran_figure(
    samples: np.ndarray,
    reference: np.ndarray | None = None,
    kl: AngleKL | None = None,
    w2: TorusW2 | None = None,
    names: tuple[str, str] = ("φ", "ψ"),
):
    """Free-energy maps of two torsions, ``(n, 2)`` radians, in kT: the reference, the samples, one
    colour scale; KL and W2 with their floors in the title."""
    sets = [("Reference", reference)] if reference is not None else []
    sets.append(("Samples", samples))
    fig, axes = figure(4.1 * len(sets) + 0.6, 4.6, 1, len(sets))
    deepest = 8.0
    grid = np.arange(-1, 73) * 5.0 - 177.5
    for k, (axis, (title, angles)) in enumerate(zip(np.atleast_1d(axes), sets, strict=True)):
        z = np.pad(
            np.minimum(free_energy_map(angles[:, 0], angles[:, 1], 1.0), 2 * deepest),
            1,
            mode="wrap",
        )
        shown = axis.contourf(
            grid, grid, z, levels=np.linspace(0, deepest, 9), cmap=depths(white=True), vmax=deepest
        )
        axis.set(xlim=(-180, 180), ylim=(-180, 180), xticks=TICKS, yticks=TICKS, aspect="equal")
        axis.set_xlabel(f"{names[0]} (°)")
        axis.spines[["top", "right"]].set_visible(True)
        axis.tick_params(labelsize=7.5)
        axis.set_title(f"{title} ({len(angles):,})", fontsize=10)
        if k == 0:
            axis.set_ylabel(f"{names[1]} (°)")
        else:
            axis.set_yticklabels([])

    fig.colorbar(
        shown, ax=list(np.atleast_1d(axes)), label="free energy (kT)", shrink=0.85, pad=0.015
    )
    parts = []
    if kl is not None:
        parts.append(f"KL(reference‖samples) {kl.value:.3f} (exact samples {kl.floor:.3f})")
    if w2 is not None:
        parts.append(f"W₂ {w2.value:.3f} rad (exact samples {w2.floor:.3f})")
    if parts:
        fig.suptitle(",  ".join(parts), fontsize=10)
    return fig


@styled
def weights_figure(forward: np.ndarray, evidence: Evidence, backward: np.ndarray | None = None):
    """Histogram of the log weights of the sampler's paths and of paths from reference samples, with
    ELBO, EUBO and log Z. For any sampler the two densities cross at log Z, as p_B/p_F = w/Z."""
    fig, axis = figure(6.4, 3.6)
    finite = forward[np.isfinite(forward)]
    pooled = finite if backward is None else np.concatenate([finite, backward])
    low, high = np.quantile(finite, 0.005), np.quantile(pooled, 0.999)
    margin = 0.08 * (high - low) + 1e-3
    edges = np.linspace(low - margin, high + margin, 81)
    stairs(axis, forward, edges, "paths of the sampler", fill=True)
    if backward is not None:
        stairs(axis, backward, edges, "paths from the reference", colour=_BACK)
    top = axis.get_ylim()[1]
    lines = [("ELBO", evidence.elbo, SAMPLES), ("EUBO", evidence.eubo, _BACK)]
    best = evidence.log_z if evidence.log_z_bridge is None else evidence.log_z_bridge
    if evidence.log_z_true is not None:
        lines.append(("log Z", evidence.log_z_true, REFERENCE))
    else:
        lines.append(("log Z (estimate)", best, REFERENCE))

    for name, value, colour in lines:
        if value is not None and math.isfinite(value) and edges[0] <= value <= edges[-1]:
            axis.axvline(
                value,
                color=colour,
                lw=1.1,
                ls="--" if colour != REFERENCE else "-",
                label=f"{name} {value:.2f}",
            )

    beyond = 1 - np.mean((forward >= edges[0]) & (forward <= edges[-1]))
    text = "log weight (nats)" + (
        f"; {100 * beyond:.1f} % of paths not on the axis" if beyond > 5e-4 else ""
    )
    axis.set(xlabel=text, ylabel="density", ylim=(0, top * 1.05), xlim=edges[[0, -1]])
    axis.set_title(
        f"effective samples {100 * evidence.ess:.3g} %, largest weight "
        f"{100 * evidence.largest_share:.2g} %",
        fontsize=10,
    )
    legend(axis)
    return fig


def _axis(x: np.ndarray, count: int = 220) -> np.ndarray:
    """A square range that holds the samples but for far outliers."""
    edge = float(np.quantile(np.abs(x), 0.999, axis=0).max()) * 1.1
    return np.linspace(-edge, edge, count)


def _window(known: np.ndarray, samples: np.ndarray) -> tuple[float, float]:
    """Where the reference lies, widened by at most its own width towards the samples."""
    low, high = np.quantile(known, [0.0005, 0.9995])
    width = high - low or 1.0
    a, b = np.quantile(samples, [0.005, 0.995]) if len(samples) else (low, high)
    return (
        float(max(min(low, a), low - width)) - 0.05 * width,
        float(min(max(high, b), high + width)) + 0.05 * width,
    )


def _bins(known: np.ndarray, samples: np.ndarray) -> int:
    return int(np.clip(1.2 * math.sqrt(max(1, min(len(known), len(samples)))), 25, 90)) + 1


def _pair_of_histograms(axis, samples, reference, edges, label: str) -> None:
    stairs(axis, samples, edges, "samples", fill=True)
    if reference is not None:
        stairs(axis, reference, edges, "reference")
    axis.set(xlabel=label, xlim=edges[[0, -1]], ylim=(0, None))
