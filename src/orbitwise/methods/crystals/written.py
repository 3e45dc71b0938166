"""What `orbitwise crystals` leaves in its folder."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import torch

from orbitwise.crystals.domain import trained_on
from orbitwise.crystals.files.read import to_structure, write_cif, write_crystal_extxyz
from orbitwise.crystals.formula import letters
from orbitwise.crystals.matching.rank import SYMPREC, Candidate
from orbitwise.data.folder import replacing
from orbitwise.data.record import record_of
from orbitwise.methods.crystals import command_page
from orbitwise.methods.crystals.found import Found, rounded
from orbitwise.runs import provenance
from orbitwise.runs.outcome import Outcome


def with_names(candidates: list[Candidate], formula: str) -> list[Candidate]:
    """Every crystal with its rank, formula and space group for a name."""
    names = [
        f"{k:02d}_{letters(formula)}_{c.space_group.replace('/', '_')}"
        for k, c in enumerate(candidates, 1)
    ]
    return [
        replace(c, crystal=replace(c.crystal, name=name))
        for name, c in zip(names, candidates, strict=True)
    ]


def write(folder: Path, found: Found) -> Outcome:
    """CIFs, ``crystals.csv``, ``crystals.extxyz``, ``summary.json`` and ``report.html``; CIFs that
    an earlier command left here go, as far as nobody has changed them."""
    crystals = [candidate.crystal for candidate in found.candidates]
    files = write_cif(folder, crystals)
    record = record_of(folder / "summary.json")
    if record is not None:
        record.drop("*.cif", but=files)

    rows = [
        _row(k, candidate, file.name)
        for k, (candidate, file) in enumerate(zip(found.candidates, files, strict=True), 1)
    ]

    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[0]))
    table.writeheader()
    table.writerows(rows)

    properties = {key: [row[key] for row in rows] for key in ("rank", "count", "space_group")}
    if found.energies:
        properties["energy_eV_per_atom"] = [row["energy_eV_per_atom"] for row in rows]
    write_crystal_extxyz(folder / "crystals.extxyz", crystals, properties)

    summary = {
        "config": found.settings,
        "formula": found.formula,
        "ranked_by": found.order,
        "drawn": found.drawn,
        "valid": found.valid,
        "distinct": len(rows),
        "network_calls_per_structure": found.evaluations,
        "energy_calls": found.energy_calls,
        "gradient_calls": found.gradient_calls,
        "symprec_angstrom": SYMPREC,
        "warnings": list(found.warnings),
        "trained_on": trained_on(found.domain),
        "seconds": {k: round(v, 2) for k, v in found.seconds.items()},
        "crystals": rows,
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "device": provenance.device(torch.device("cpu")),
        "seeds": {"drawing": found.settings["seed"]},
    }

    for name, content in (
        ("crystals.csv", text.getvalue()),
        ("summary.json", json.dumps(summary, indent=1) + "\n"),
    ):
        with replacing(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    command_page.write(folder / "report.html", found, summary)
    return Outcome(folder, found, _lines(folder, found, rows))


def _row(number: int, candidate: Candidate, file: str) -> dict:
    structure = to_structure(candidate.crystal)
    a, b, c, alpha, beta, gamma = (round(float(v), 4) for v in structure.lattice.parameters)
    return {
        "rank": number,
        "file": file,
        "space_group": candidate.space_group,
        "number": candidate.number,
        "a": a,
        "b": b,
        "c": c,
        "alpha": alpha,
        "beta": beta,
        "gamma": gamma,
        "volume": round(float(structure.volume), 3),
        "density_g_cm3": round(float(structure.density), 4),
        "energy_eV_per_atom": rounded(candidate.energy),
        "instability_index": rounded(candidate.instability),
        "count": candidate.count,
    }


def _lines(folder: Path, found: Found, rows: list[dict]) -> tuple[str, ...]:
    lines = [f"warning: {line}" for line in found.warnings]

    wrong = found.drawn - found.valid
    lines.append(
        f"{found.formula}: {len(rows)} distinct structures of {found.drawn} drawn"
        + (f" ({wrong} were not valid)" if wrong else "")
        + f", {found.evaluations} network calls each"
    )
    by = found.order + (
        "" if found.energies else " (for energies: pip install 'orbitwise[chgnet]')"
    )
    lines.append(f"ranked by {by}; space groups within {SYMPREC} Å")

    for row in rows[:5]:
        energy, index = row["energy_eV_per_atom"], row["instability_index"]
        lines.append(
            f"{row['rank']:>3}  {row['space_group']:<10} a b c {row['a']:.3f} {row['b']:.3f}"
            f" {row['c']:.3f} Å"
            + ("" if energy is None else f"  {energy:.3f} eV/atom")
            + ("" if index is None else f"  index {index:.2f}")
            + f"  drawn {row['count']} of {found.drawn} times"
        )
    lines.append(f"report: {folder / 'report.html'}")
    return tuple(lines)
