"""Write docs/benchmarks.md and the figures packaged with the CARDs from the committed result rows.

    python benchmarks/tables.py

A figure stands in one place, benchmarks/results/*.json; the page is made from it and never edited
by hand.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"

INTRODUCTION = """# Benchmarks

Made from `benchmarks/results/*.json` by `python benchmarks/tables.py`; do not edit. Each row names
the command that measured it, the commit it ran on and the machine. `make bench` runs all of them
again. An error is one standard error. Timings are medians of interleaved runs in one process; only
ratios between rows of one command mean something on another machine.
"""

SECTIONS = {
    "orbit_posterior": "The orbit posterior: time and target error",
    "gradient_variance": "Gradient variance on real molecules (Theorem 1)",
    "toy": "The two-point toy of Orbit Diffusion",
    "mmff94": "MMFF94 against RDKit",
    "conformers": "Conformer ensembles against long reference runs",
    "orbit_diffusion": "Orbit Diffusion on a data set",
    "sgds": "Diffusion samplers of an energy",
    "log_z": "log Z by annealed importance sampling",
    "path_batching": "All states of all paths in one network call",
    "openmm": "OpenMM systems as batched torch",
    "peptides": "Replica-exchange references of alanine peptides",
    "distributed": "Slow energies on Ray",
    "calculators": "Audit: ASE calculators",
    "quadrature": "Audit: polyhedral quadrature against Haar rotations",
    "forces": "Training dynamics of forces (aspirin)",
    "forces_3bpa": "Training dynamics of forces over temperatures (3BPA)",
    "protein": "Training dynamics of protein backbones",
    "voxels": "Training dynamics of voxelised molecules",
    "crystal_target": "Targets of crystals: variance left, and time",
    "perov5": "Crystal structure prediction: Perov-5",
    "mp20_subset": "Crystal structure prediction: MP-20 subset",
    "carbon24": "Crystal structure prediction: Carbon-24",
    "perov5_text": "Crystals told by a text: Perov-5",
    "proteins": "Protein backbones",
}


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def shown(row: dict | None) -> str:
    """Value, error and goal of a row in one cell."""
    if row is None:
        return ""
    error = "" if row["error"] is None else f" ± {row['error']:.1g}"
    goal = f" (goal {row['goal']})" if row["goal"] else ""
    return f"{number(row['value'])}{error}{goal}"


def place(what: str) -> tuple[str, str, str]:
    """Table, row and column of a figure: ``a.b.row.column``; a dot before a digit belongs to a
    number."""
    parts = re.split(r"\.(?!\d)", what)
    lead = 1 if len(parts) < 4 else 2
    return ".".join(parts[:lead]), ".".join(parts[lead:-1]), parts[-1]


def tables(rows: list[dict]) -> list[str]:
    """One table per prefix; the longer side runs down the page."""
    bodies: dict[str, dict[str, dict[str, dict]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        title, line, column = place(row["what"])
        bodies[title][line][column] = row
    lines: list[str] = []
    for title, body in bodies.items():
        columns = list(dict.fromkeys(column for cells in body.values() for column in cells))
        down, across = list(body), columns
        cell = {
            (line, column): shown(cells.get(column))
            for line, cells in body.items()
            for column in columns
        }
        if len(across) > len(down):
            down, across = across, down
            cell = {(column, line): text for (line, column), text in cell.items()}
        lines += [
            "",
            f"**{title}**",
            "",
            "| | " + " | ".join(across) + " |",
            "|---|" + "---|" * len(across),
        ]
        lines += [
            f"| {line} | " + " | ".join(cell[line, column] for column in across) + " |"
            for line in down
        ]
    notes = [f"- `{row['what']}`: {row['note']}" for row in rows if row.get("note")]
    return lines + (["", *notes] if 0 < len(notes) <= 60 else [])


def main() -> None:
    found: dict[str, dict] = {}
    for path in sorted((HERE / "results").glob("*.json")):
        found |= {row["what"]: row for row in json.loads(path.read_text())}
    sections: dict[str, list[dict]] = defaultdict(list)
    for row in found.values():
        sections[row["what"].split(".")[0]].append(row)
    lines = [INTRODUCTION]
    for key in [k for k in SECTIONS if k in sections] + [k for k in sections if k not in SECTIONS]:
        rows = sections[key]
        lines += [f"\n## {SECTIONS.get(key, key)}", *tables(rows), ""]
        for command in dict.fromkeys(row["command"] for row in rows):
            mine = [row for row in rows if row["command"] == command]
            commits = ", ".join(dict.fromkeys(row["commit"] for row in mine))
            devices = "; ".join(dict.fromkeys(row["device"] for row in mine))
            lines.append(f"- `{command}` at commit {commits}, {devices}")
    PAGE.write_text("\n".join(lines) + "\n")
    print(f"wrote {PAGE.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
