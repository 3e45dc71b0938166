"""Write docs/benchmarks.md and the figures packaged with the CARDs from the committed result rows.

    python benchmarks/tables.py

A figure stands in one place, benchmarks/results/*.json; the page is made from it and never edited by hand.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"

INTRODUCTION = """# Benchmarks

Made from `benchmarks/results/*.json` by `python benchmarks/tables.py`; do not edit. Each row names the command that
measured it, the commit it ran on and the machine. `make bench` runs all of them again. An error is one standard
error. Timings are medians of interleaved runs in one process; only ratios between rows of one command mean something
on another machine.
"""

SECTIONS = {
    "orbit_posterior": "The orbit posterior: time and target error",
    "gradient_variance": "Gradient variance on real molecules (Theorem 1)",
    "toy": "The two-point toy of Orbit Diffusion",
    "mmff94": "MMFF94 against RDKit",
    "conformers": "Conformer ensembles against long reference runs",
    "orbit_diffusion": "Orbit Diffusion on a data set",
}


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def table(rows: list[dict]) -> list[str]:
    lines = ["| figure | value | error | goal | note |", "|---|---|---|---|---|"]
    for row in rows:
        cells = [
            f"`{row['what']}`",
            number(row["value"]),
            number(row["error"]),
            row["goal"] or "",
            row.get("note") or "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def pivot(rows: list[dict], depth: int) -> list[str]:
    """Rows named a.b.ROW.COLUMN as one table per prefix, so that many figures stay readable."""
    groups: dict[str, dict[str, dict[str, dict]]] = defaultdict(lambda: defaultdict(dict))
    plain = []
    for row in rows:
        parts = row["what"].split(".", depth + 1)
        if len(parts) == depth + 2:
            groups[".".join(parts[:depth])][parts[depth]][parts[depth + 1]] = row
        else:
            plain.append(row)
    lines: list[str] = table(plain) if plain else []
    for prefix, body in groups.items():
        columns = list(dict.fromkeys(column for cells in body.values() for column in cells))
        if len(columns) > 8 or len(body) < 2:
            flat = [row for cells in body.values() for row in cells.values()]
            lines += ["", *table(flat)]
            continue
        lines += [
            "",
            f"**{prefix}**",
            "",
            "| | " + " | ".join(columns) + " |",
            "|---|" + "---|" * len(columns),
        ]
        for name, cells in body.items():
            shown = []
            for column in columns:
                row = cells.get(column)
                error = f" ± {row['error']:.1g}" if row and row["error"] is not None else ""
                shown.append(f"{number(row['value'])}{error}" if row else "")
            lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return lines


def main() -> None:
    lines = [INTRODUCTION]
    for path in sorted((HERE / "results").glob("*.json")):
        sections: dict[str, list[dict]] = defaultdict(list)
        for row in json.loads(path.read_text()):
            sections[row["what"].split(".")[0]].append(row)
        for key in [k for k in SECTIONS if k in sections] + [k for k in sections if k not in SECTIONS]:
            rows = sections[key]
            lines += [f"\n## {SECTIONS.get(key, key)}\n", *pivot(rows, 2), ""]
            for command in dict.fromkeys(row["command"] for row in rows):
                mine = [row for row in rows if row["command"] == command]
                commits = ", ".join(dict.fromkeys(row["commit"] for row in mine))
                devices = "; ".join(dict.fromkeys(row["device"] for row in mine))
                lines.append(f"- `{command}` at commit {commits}, {devices}")
    PAGE.write_text("\n".join(lines) + "\n")
    print(f"wrote {PAGE.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
