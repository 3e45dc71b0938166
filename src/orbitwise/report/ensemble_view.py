"""What the template of an ensemble draws: its table, its figures, its captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orbitwise.report import figures
from orbitwise.report.ensemble import ConformerRow, Ensemble, FreeEnergy, TorsionPanel, others
from orbitwise.report.numbers import between, with_error
from orbitwise.report.viewer import viewer_data

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_ROWS, _OPEN, _FEW, _TORSIONS = 500, 15, 12, 12  # in the table, shown at once, drawn
_COLUMNS = 4  # of torsions; one less for each ensemble beside, and for long names
_LONG = 24  # characters


def view(block: Ensemble) -> dict:
    """Rows of text, figures by name and the data of the viewer."""
    rows = block.conformers[:_ROWS]
    names = others(rows)
    long = any(len(r.name) > _LONG for r in rows)
    shown = table_torsions(block, max(1, _COLUMNS - len(names) - long))
    torsions = range(min(len(block.torsions), _TORSIONS))
    left_out = len(block.torsions) - _TORSIONS
    return {
        "viewer": viewer_data(block, _ROWS),
        "structures": len(rows),
        "buttons": _FEW,
        "open": _OPEN if len(rows) > _OPEN + 3 else len(rows),
        "rows": [_row(k, row, shown, names) for k, row in enumerate(rows, 1)],
        "rest": _rest(block.conformers[_ROWS:]),
        "named": any(r.name for r in rows),
        "names": names,
        "degenerate": any(r.degeneracy is not None for r in rows),
        "columns": [
            (block.torsions[k].label.split("–"), _path(block, block.torsions[k])) for k in shown
        ],
        "figures": _figures(block),
        "legend": _legend(block),
        "map_caption": _map_caption(block),
        "maps": len(figures.map_panels(*block.pair)) if block.pair else 0,
        "torsion_figures": [f"torsion-{k}" for k in torsions],
        "torsions_left_out": f"{left_out} more torsions are not drawn." if left_out > 0 else "",
        "energies_beyond": (
            "" if block.energies_kcal is None else figures.energies_beyond(block.energies_kcal)
        ),
    }


def difference(found: FreeEnergy | None) -> str:
    """``0.71 ± 0.05``; with too few samples for an error ``1.9 to 3.0``, ``> 2.1``, ``< −1.2``; a
    dash for nothing."""
    if found is None:
        return "–"
    bounded = any(math.isfinite(side) for side in found.interval)
    if found.error is None and bounded:
        return between(*found.interval)
    return with_error(found.kcal, found.error)


def table_torsions(block: Ensemble, most: int = _COLUMNS) -> list[int]:
    """Torsions with a column in the table, at most ``most``: those of the map, then those that
    differ most between conformers; one that stays within 30° everywhere is left out."""
    rows = [r.torsions for r in block.conformers if len(r.torsions) == len(block.torsions)]
    first = list(block.map_pair or ()) if rows else []

    def spread(k: int) -> float:
        turns = [complex(math.cos(r[k]), math.sin(r[k])) for r in rows if r[k] is not None]
        return max((abs(a - turns[0]) for a in turns), default=0.0)

    moving = 2 * math.sin(math.pi / 12)
    rest = [k for k in range(len(block.torsions)) if k not in first and spread(k) > moving]
    return sorted((first + sorted(rest, key=spread, reverse=True))[:most])


def _row(number: int, row: ConformerRow, shown: Sequence[int], names: Sequence[str]) -> dict:
    """One line of the table; ``shown`` torsions have a column, the ensembles of these ``names``
    stand beside."""
    angles = [row.torsions[k] if k < len(row.torsions) else None for k in shown]
    population = with_error(row.population, row.population_error, 100)
    name = f"{row.name}, " if row.name else ""
    return {
        "name": row.name,
        "torsions": [
            "–" if a is None else f"{round(math.degrees(a)):d}°".replace("-", "−") for a in angles
        ],
        "population": population,
        "beside": [_beside(row, other) for other in names],
        "free_energy": difference(row.free_energy),
        "energy": with_error(row.energy_kcal, None),
        "degeneracy": "–" if row.degeneracy is None else str(row.degeneracy),
        "caption": f"Conformer {number}: {name}{population} %",
    }


def _beside(row: ConformerRow, name: str) -> tuple[str, str]:
    """Population in another ensemble, and what the pointer is told of its free energy."""
    found = row.beside.get(name)
    free = "" if found is None or found.free_energy is None else difference(found.free_energy)
    told = f"ΔG {free} kcal/mol" if free not in ("", "–") else ""
    return with_error(*row.population_in(name), 100), told


def _rest(rows: Sequence[ConformerRow]) -> str:
    if not rows:
        return ""
    share = 100 * sum(r.population for r in rows)
    return f"and {len(rows)} more conformers with {share:.1f} % of the population together"


def _figures(block: Ensemble) -> dict[str, Figure]:
    out = {}
    if block.map_pair is not None:
        out["map"] = figures.map_figure(block)
    for k, panel in enumerate(block.torsions[:_TORSIONS]):
        out[f"torsion-{k}"] = figures.torsion_figure(panel, _path(block, panel))
    if block.energies_kcal is not None:
        out["energies"] = figures.energy_figure(block.energies_kcal)
    if len(block.conformers) > 1:
        out["populations"] = figures.population_figure(block.conformers[:_FEW], block.head)
    return out


def _path(block: Ensemble, panel: TorsionPanel) -> str:
    """The atoms of a torsion, ``C1–C2–C3–C4``, counted from 1."""
    from ase.data import chemical_symbols

    return "–".join(f"{chemical_symbols[int(block.numbers[i])]}{i + 1}" for i in panel.atoms or ())


def _legend(block: Ensemble) -> list[tuple[str, str]]:
    """CSS class and words of the ensembles that the torsion figures show."""
    return [
        (key, word)
        for key, word in figures.NAMES.items()
        if any(key in dict(panel.angles.present()) for panel in block.torsions)
    ]


def _map_caption(block: Ensemble) -> str:
    if block.pair is None:
        return ""
    first, second = block.pair
    return (
        f"Free energy along {first.label} and {second.label}, −kT ln p relative to the deepest"
        " point, the same colours in every panel; white: not seen, or above the scale. Histograms"
        " smoothed over a few degrees. Numbers: the minima of the conformers in the table."
    )
