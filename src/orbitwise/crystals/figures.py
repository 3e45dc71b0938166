"""Figures of crystal structure prediction (matplotlib): matches against guesses, distances, cells
side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

from orbitwise.report.canvas import canvas, figure, legend, styled
from orbitwise.report.figures import INK, REFERENCE, SAMPLES, SEARCHER


@styled
def guesses_figure(
    rates: Sequence[float], rmses: Sequence[float], first: np.ndarray, best: np.ndarray
):
    """Match rate and RMSE of the best of 1, 2, ... guesses, and the distances themselves (NaN: no
    match)."""
    fig, (left, right) = figure(9.6, 3.5, 1, 2)
    k = np.arange(1, len(rates) + 1)
    left.plot(k, 100 * np.asarray(rates), marker="o", ms=4, lw=1.4, color=SAMPLES)
    left.set(xlabel="guesses for each composition", ylabel="match rate (%)", ylim=(0, 102))
    left.set_xticks(k[:: max(1, len(k) // 10)])
    twin = left.twinx()
    twin.plot(k, rmses, marker="s", ms=3.5, lw=1.2, color=SEARCHER)
    twin.set_ylabel("RMSE of the matches, (V/N)^⅓", color=SEARCHER)
    twin.set_ylim(bottom=0)
    twin.tick_params(labelsize=8, labelcolor=SEARCHER)
    edges = np.logspace(-3.5, np.log10(0.5), 36)
    shown = [("first guess", first, SAMPLES)]
    if len(k) > 1:
        shown.append((f"best of {len(k)}", best, REFERENCE))
    for name, values, colour in shown:
        values = np.clip(values[np.isfinite(values)], edges[0], None)
        right.stairs(np.histogram(values, edges)[0], edges, label=name, color=colour, lw=1.4)
    right.set(xscale="log", xlabel="distance to the true structure, (V/N)^⅓", ylabel="compositions")
    legend(right)
    return fig


@styled
def cells_figure(pairs: Sequence[tuple]):
    """True structures above their guesses; each entry ``(title, truth, guess, distance)`` with
    objects that have ``frac``, ``lattice``, ``species``."""
    fig = canvas(9.6, 4.6)
    for column, (title, truth, guess, distance) in enumerate(pairs):
        for row, crystal in enumerate((truth, guess)):
            axis = fig.add_subplot(2, len(pairs), 1 + column + row * len(pairs), projection="3d")
            _draw(axis, crystal)
            text = (
                title
                if row == 0
                else ("no match" if np.isnan(distance) else f"guess: {distance:.3f}")
            )
            axis.set_title(text, fontsize=9, color=INK, pad=0)
    return fig


def _draw(axis, crystal) -> None:
    """A cell with the images of its atoms on faces, edges and corners."""
    corners = np.array(list(product((0.0, 1.0), repeat=3)))
    for a in corners:
        for b in corners:
            if np.abs(a - b).sum() == 1 and a.sum() < b.sum():
                axis.plot(*np.stack([a, b]).dot(crystal.lattice).T, color="#8a94a3", lw=0.7)
    frac = crystal.frac % 1.0
    images = (frac[:, None] + np.array(list(product((-1, 0, 1), repeat=3)))).reshape(-1, 3)
    species = np.repeat(crystal.species, 27)
    inside = ((images > -0.06) & (images < 1.06)).all(-1)
    x, z = images[inside] @ crystal.lattice, species[inside]
    axis.scatter(
        *x.T,
        s=75 * covalent_radii[z] ** 1.3,
        c=jmol_colors[z],
        edgecolors=INK,
        linewidths=0.4,
        alpha=1,
    )
    axis.set_axis_off()
    axis.set_box_aspect(np.ptp(corners @ crystal.lattice, axis=0), zoom=1.15)
    axis.view_init(14, -66)
    axis.set_proj_type("ortho")


def formula(species: np.ndarray) -> str:
    """Elements with their counts, as in SrTiO3, in the order they first appear."""
    order = dict.fromkeys(int(z) for z in species)
    return "".join(
        chemical_symbols[z] + (str(c) if (c := int((species == z).sum())) > 1 else "")
        for z in order
    )
