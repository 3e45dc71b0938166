"""Geometry for the 3-D view: structures laid on top of each other, atoms with colours and radii."""

from __future__ import annotations

import numpy as np

from orbitwise.report.atoms import colour_of, radius_of
from orbitwise.report.ensemble import Ensemble


def viewer_data(ensemble: Ensemble, limit: int = 500) -> dict | None:
    """What ``viewer.js`` draws: symbols, colours and ball radii of atoms, bonds, and up to
    ``limit`` structures, superposed on the first over heavy atoms, its longest extent along x and
    its shortest along the line of sight. None without conformers."""
    from ase.data import chemical_symbols

    if not ensemble.conformers:
        return None

    numbers = np.asarray(ensemble.numbers, dtype=int)
    shown = np.stack(
        [np.asarray(row.positions_angstrom, dtype=float) for row in ensemble.conformers[:limit]]
    )
    heavy = numbers > 1 if (numbers > 1).any() else np.ones(len(numbers), dtype=bool)
    shown = superpose(shown, heavy)

    return {
        "symbols": [chemical_symbols[z] for z in numbers],
        "colours": [colour_of(z) for z in numbers],
        "radii": [radius_of(z) for z in numbers],
        "bonds": [[int(i), int(j)] for i, j in ensemble.bonds],
        "structures": np.round(shown, 3).tolist(),
        "extent": round(float(np.linalg.norm(shown, axis=-1).max()) + 0.5, 3),
    }


def superpose(x: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Centre ``(n, N, 3)`` on the chosen atoms, turn the first to its principal axes and lay the
    rest on it (proper rotations only)."""
    x = x - x[:, chosen].mean(1, keepdims=True)

    axes = np.linalg.svd(x[0, chosen], full_matrices=True)[2].T
    axes[:, 2] *= np.sign(np.linalg.det(axes))
    x[0] = x[0] @ axes

    u, _, vt = np.linalg.svd(np.swapaxes(x[:, chosen], 1, 2) @ x[0, chosen])
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    return np.concatenate([x[:1], (x @ (u @ vt))[1:]])
