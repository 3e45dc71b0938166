"""The block of crystals, and the geometry of their cells for the 3-D view: atoms with their images
on the border, bonds, edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from orbitwise.report.atoms import colour_of, radius_of

_ROWS, _STRUCTURES = 30, 12  # in the table, in the view
_BORDER = 0.04  # fractional; an atom this near a face is drawn on the other side too
_SHELL = 1.3  # bonds up to this multiple of the shortest distance of both atoms
_TURN, _TILT = math.radians(-24), math.radians(17)


@dataclass(frozen=True)
class CellRow:
    """One crystal of the page: ``frac (N, 3)``, ``lattice (3, 3)`` rows in Å, ``numbers (N,)``;
    ``columns``: its cells of the table; ``caption`` below the view."""

    frac: np.ndarray
    lattice: np.ndarray
    numbers: np.ndarray
    columns: tuple[str, ...]
    caption: str


@dataclass(frozen=True)
class Cells:
    """Crystals in a table beside a view of their cells. ``head`` names the columns; ``rest`` is the
    file that lists those that the table leaves out."""

    rows: tuple[CellRow, ...]
    head: tuple[str, ...]
    note: str = ""
    rest: str = ""


def view(block: Cells) -> dict:
    """What its template draws."""
    return {
        "viewer": cells_data(block.rows),
        "structures": min(len(block.rows), _STRUCTURES),
        "shown": block.rows[:_ROWS],
        "left_out": max(0, len(block.rows) - _ROWS),
    }


def cells_data(rows: Sequence[CellRow], limit: int = _STRUCTURES) -> dict | None:
    """What ``viewer.js`` draws for up to ``limit`` cells, each with its own atoms, bonds and edges;
    None for none."""
    if not rows:
        return None

    items = [_item(row) for row in rows[:limit]]
    reach = max(float(np.abs(item["reach"])) for item in items)
    return {"items": items, "extent": round(reach, 3)}


def _item(row: CellRow) -> dict:
    from ase.data import chemical_symbols

    lattice = _upright(np.asarray(row.lattice, dtype=float))
    centre = np.full(3, 0.5) @ lattice

    frac = np.asarray(row.frac, dtype=float) % 1.0
    frac = np.where(frac > 1 - _BORDER, frac - 1, frac)
    atom, places = _with_border(frac)
    positions = places @ lattice - centre
    numbers = np.asarray(row.numbers, dtype=int)
    shown = numbers[atom]

    corners = np.array(list(product((0.0, 1.0), repeat=3)))
    edges = [
        (p, q) for p in corners for q in corners if np.abs(p - q).sum() == 1 and p.sum() < q.sum()
    ]

    units = lattice / np.linalg.norm(lattice, axis=-1, keepdims=True)
    names = [(lattice[k] + 0.95 * units[k] - centre, "abc"[k]) for k in range(3)]
    reach = max(float(np.abs(corners @ lattice - centre).max()), 1.0) + 0.8  # with balls and names

    return {
        "symbols": [chemical_symbols[z] for z in shown],
        "labels": [f"{chemical_symbols[numbers[k]]}{k + 1}" for k in atom],
        "colours": [colour_of(z) for z in shown],
        "radii": [radius_of(z) for z in shown],
        "bonds": _bonds(frac, lattice, atom, positions),
        "positions": np.round(positions, 3).tolist(),
        "edges": np.round(
            [[p @ lattice - centre, q @ lattice - centre] for p, q in edges], 3
        ).tolist(),
        "axes": [[*np.round(place, 3).tolist(), name] for place, name in names],
        "reach": round(float(reach), 3),
    }


def _with_border(frac: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index and fractional place of every atom that is drawn: those in the cell, and images on
    opposite faces."""
    shifts = np.array(list(product((0.0, 1.0), repeat=3)))
    places = frac[:, None] + shifts
    inside = (places < 1 + _BORDER).all(-1)
    return np.nonzero(inside)[0], places[inside]


def _bonds(
    frac: np.ndarray, lattice: np.ndarray, atom: np.ndarray, positions: np.ndarray
) -> list[list[int]]:
    """Pairs of drawn atoms within the near shell of both, distances in the crystal (all images)
    considered."""
    images = np.array(list(product((-1, 0, 1), repeat=3)))
    apart = (frac[:, None, None] - frac[None, :, None] + images) @ lattice
    distance = np.linalg.norm(apart, axis=-1)
    nearest = np.where(distance < 1e-6, np.inf, distance).min((1, 2))
    shell = _SHELL * np.minimum(nearest[atom][:, None], nearest[atom])
    between = np.linalg.norm(positions[:, None] - positions, axis=-1)
    i, j = np.nonzero(np.triu((between > 1e-6) & (between < shell), 1))
    return np.stack([i, j], 1).tolist()


def _upright(lattice: np.ndarray) -> np.ndarray:
    """The cell turned for the eye: a to the right, c up, seen a little from the side and from
    above."""
    a, b, _ = lattice
    x = a / np.linalg.norm(a)
    z = np.cross(a, b)
    z = z / np.linalg.norm(z) * np.sign(np.linalg.det(lattice))
    own = lattice @ np.stack([x, np.cross(z, x), z]).T  # in the frame a ∥ x, b in the xy plane
    screen = own[:, [0, 2, 1]] * [1, 1, -1]  # c up, b away from the eye
    turn = np.array(
        [[math.cos(_TURN), 0, -math.sin(_TURN)], [0, 1, 0], [math.sin(_TURN), 0, math.cos(_TURN)]]
    )
    tilt = np.array(
        [[1, 0, 0], [0, math.cos(_TILT), math.sin(_TILT)], [0, -math.sin(_TILT), math.cos(_TILT)]]
    )
    return screen @ turn @ tilt
