"""Write docs/benchmarks/*.md from the committed result rows, one page a subject.

    python -m benchmarks.tools.tables

A figure stands in one place, benchmarks/results/*.json; the pages are made from it and never edited
by hand.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from os.path import commonprefix
from pathlib import Path

from benchmarks.tools.places import ROOT
from benchmarks.tools.rows import RESULTS

PAGES = ROOT / "docs" / "benchmarks"
COLUMNS, LINES = 6, 30  # of a table, at most; what is longer is divided

INTRODUCTION = """# Benchmarks

Every figure here is a row of `benchmarks/results/SUBJECT.json`, written by the command that it
names; the pages are made from these rows by `python -m benchmarks.tools.tables` and not edited.
A row says what was measured, its value, one standard error, the goal where there was one, seeds,
energy calls, seconds, machine and commit (`+`: the source differed from it).

`make bench` runs every script in a small size and keeps nothing: a check, in minutes, that all of
them still run. `make bench-full` measures everything again, which takes many hours on two cores;
one script alone is `python -m benchmarks.quality.log_z`, and with `--help` it says what it takes.
`benchmarks/speed` holds the claims of speed, ratios against a named alternative in the same run,
`benchmarks/quality` what the methods reach, `benchmarks/references` the long reference runs.

Timings are medians of interleaved runs in one process; only ratios between rows of one command mean
something on another machine.
"""

SUBJECTS = {
    "orbit_posterior": "The orbit posterior: time and target error",
    "gradient_variance": "Gradient variance on real molecules (theorem 1)",
    "orbit_diffusion": "Orbit Diffusion: the two-point toy, and a data set",
    "conformers": "Conformer ensembles against long reference runs",
    "molecules": "Conformers of many molecules",
    "mmff94": "MMFF94 against RDKit",
    "openmm": "OpenMM systems as batched torch",
    "peptides": "Replica-exchange references of alanine peptides",
    "samplers": "Diffusion samplers of an energy",
    "log_z": "log Z by annealed importance sampling",
    "distributed": "Slow energies on Ray",
    "crystals": "Crystals: targets, structure prediction, texts",
    "proteins": "Protein backbones",
    "dynamics": "Training dynamics of learned symmetry",
    "audits": "Audits: calculators and quadrature",
    "library": "The library itself",
}
HEADINGS = {  # by the first part of a row's name
    "dft": "Energies near density-functional theory",
    "toy": "The two-point toy",
    "orbit_diffusion": "rMD17 frames of one molecule",
    "path_batching": "All states of all paths in one network call",
    "sgds": "SGDS and the samplers it is compared with",
    "openmm_torch": "Differences",
    "openmm": "Energies and forces per second",
    "calculators": "ASE calculators",
    "quadrature": "Polyhedral quadrature against Haar rotations",
    "forces": "Forces (aspirin)",
    "forces_3bpa": "Forces over temperatures (3BPA)",
    "protein": "Protein backbones",
    "voxels": "Voxelised molecules",
    "structure": "Folders and imports",
    "types": "Types",
    "import": "Importing",
    "speed": "Cost of a step of the search",
    "crystal_target": "Targets: variance left, and time",
    "perov5": "Perov-5",
    "mp20_subset": "MP-20, a subset",
    "carbon24": "Carbon-24",
    "perov5_text": "Perov-5 with texts",
}


def shown(row: dict | None) -> str:
    """Value and error of a row in one cell."""
    if row is None:
        return ""
    error = "" if row["error"] is None else f" ± {row['error']:.1g}"
    return f"{row['value']:.4g}{error}"


def natural(name: str) -> list[tuple[int, float, str]]:
    """Sorts n5 before n22, and sigma0.1 before sigma3."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(0, float(p), "") if p[:1].isdigit() else (1, 0.0, p) for p in parts if p]


def place(what: str) -> tuple[str, str, str]:
    """Table, row and column of a figure: ``a.b.row.column``; a dot before a digit belongs to a
    number."""
    parts = re.split(r"\.(?!\d)", what)
    lead = 1 if len(parts) < 4 else 2
    return ".".join(parts[:lead]), ".".join(parts[lead:-1]), parts[-1]


def grids(rows: list[dict]) -> list[str]:
    """One table per prefix, the longer side down the page; wide ones side after side, long ones by
    the first part of their lines."""
    bodies: dict[str, dict[tuple[str, str], dict]] = defaultdict(dict)
    for row in rows:
        title, line, column = place(row["what"])
        bodies[title][line, column] = row
    found: list[str] = []
    for title, body in bodies.items():
        down = sorted({line for line, _ in body}, key=natural)
        across = sorted({column for _, column in body}, key=natural)
        if len(across) > len(down):
            body = {(column, line): row for (line, column), row in body.items()}
            down, across = across, down
        for part in parts(down):
            for first in range(0, len(across), COLUMNS):
                found += grid(title, part, across[first : first + COLUMNS], body)
    return found


def parts(lines: list[str]) -> list[list[str]]:
    """The lines of a long table by their first part."""
    if len(lines) <= LINES:
        return [lines]
    found: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        found[line.split(".")[0]].append(line)
    return list(found.values()) if len(found) <= len(lines) / 2 else [lines]


def grid(
    title: str, down: list[str], across: list[str], body: dict[tuple[str, str], dict]
) -> list[str]:
    """A table of what is there, with the goals below it."""
    down = [line for line in down if any((line, column) in body for column in across)]
    if not down:
        return []
    found = [
        "",
        f"**{title}**",
        "",
        "| | " + " | ".join(column or "value" for column in across) + " |",
    ]
    found.append("|---|" + "---|" * len(across))
    for line in down:
        found.append(f"| {line} | " + " | ".join(shown(body.get((line, c))) for c in across) + " |")
    goals: dict[str, list[str]] = defaultdict(list)
    for line in down:
        for column in across:
            row = body.get((line, column))
            if row and row["goal"]:
                goals[row["goal"]].append(" ".join(filter(None, (line, column))))
    if goals:
        told = "; ".join(f"{several(names)}: {goal}" for goal, names in goals.items())
        found += ["", f"Goals: {told}"]
    return found


def several(names: list[str]) -> str:
    """A few names, or what they have in common and how many they are."""
    if len(names) <= 3:
        return ", ".join(f"`{name}`" for name in names)
    common = commonprefix(names)  # noqa: RUF071, by characters
    return f"`{common}…` ({len(names)} figures)" if common else f"{len(names)} figures"


def notes(rows: list[dict]) -> list[str]:
    """What rows say of themselves, each text once."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["note"]:
            found[row["note"]].append(row["what"])
    return [f"- {several(names)}: {note}" for note, names in found.items()]


def commands(rows: list[dict]) -> list[str]:
    """The commands behind the rows, with commits and machines."""
    found: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        found[row["command"]].append(row)
    lines = []
    for command, mine in found.items():
        commits = ", ".join(dict.fromkeys(row["commit"] for row in mine))
        devices = "; ".join(dict.fromkeys(row["device"] for row in mine))
        lines.append(f"- `{command}` at commit {commits}, {devices}")
    return lines


def page(subject: str, rows: list[dict]) -> str:
    """The page of a subject."""
    sections: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        sections[family(row["what"])].append(row)
    lines = [
        f"# {SUBJECTS[subject]}",
        "",
        f"Made from `benchmarks/results/{subject}.json`; see [how rows are made](index.md).",
    ]
    for name, mine in sections.items():
        if len(sections) > 1:
            lines += ["", f"## {HEADINGS.get(name, name.replace('_', ' '))}"]
        lines += grids(mine)
        if told := notes(mine):
            lines += ["", *told]
        lines += ["", "Measured by", "", *commands(mine)]
    return "\n".join(lines) + "\n"


def family(what: str) -> str:
    """The section of a row: the first part of its name, variants of one data set together."""
    first = what.split(".")[0]
    return next((name for name in ("mp20_subset", "carbon24") if first.startswith(name)), first)


def write(path: Path, text: str) -> None:
    path.write_text(text)
    print(f"wrote {path.relative_to(ROOT)}")


def main() -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    given = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    if untitled := given.keys() - SUBJECTS.keys():
        raise SystemExit(f"give a title to {', '.join(sorted(untitled))}")
    lines = [INTRODUCTION, "| page | rows |", "|---|---|"]
    for subject in (name for name in SUBJECTS if name in given):
        write(PAGES / f"{subject}.md", page(subject, given[subject]))
        lines.append(f"| [{SUBJECTS[subject]}]({subject}.md) | {len(given[subject])} |")
    write(PAGES / "index.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
