"""The report page of `orbitwise crystals`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orbitwise.report import (
    CellRow,
    Cells,
    Citation,
    Cost,
    KeyFigure,
    Method,
    Page,
    Provenance,
    StageRow,
    Text,
    write_report,
)
from orbitwise.runs.registry import card

if TYPE_CHECKING:
    from orbitwise.crystals.matching.rank import Candidate
    from orbitwise.methods.crystals.found import Found

CHGNET = Citation(
    "Deng et al., CHGNet as a pretrained universal neural network potential, Nat. Mach. Intell. 5,"
    " 1031 (2023)",
    "https://arxiv.org/abs/2302.14231",
)
FILES = (
    ("*.cif", "one file for each structure, in the order of the table, P1"),
    ("crystals.csv", "the table, with energies in eV per atom"),
    ("crystals.extxyz", "all structures in one file"),
    ("summary.json", "every number on this page"),
)


def write(path: Path, found: Found, told: dict) -> Path:
    """Write the page; ``told`` is the summary."""
    settings, own = found.settings, card("crystal_structure")
    page = Page(
        title=f"Crystals of {found.formula}",
        kind="Crystal structure prediction",
        subtitle=f"ranked by {told['ranked_by']}"
        + (f" · “{settings['prompt']}”" if settings["prompt"] else ""),
        key_figures=_key_figures(found, told),
        blocks=(
            Text(_words(found, told), warnings=found.warnings),
            _cells(found, told),
            Cost(_stages(found)),
            Method(
                (own.summary.strip(), f"The model was trained on {told['trained_on']}."),
                citations=(
                    Citation.arxiv(own.paper, own.arxiv),
                    *([CHGNET] if found.energies else []),
                ),
            ),
            Provenance(
                files=FILES,
                settings=settings,
                versions=told["versions"],
                seed=settings["seed"],
                commit=told["commit"] or "",
                command=_command(settings),
            ),
        ),
    )
    return write_report(path, page)


def _cells(found: Found, told: dict) -> Cells:
    rows = told["crystals"]
    note = (
        f"Space groups as spglib finds them within {told['symprec_angstrom']} Å. Cells are as"
        " drawn: the model does not know which setting is conventional. Bonds in the view join"
        " near neighbours."
    )
    if found.energies:
        note += " Energies are relative to the lowest; the CIFs hold the drawn structures."
    if found.settings["relax"]:
        note += " Atoms and cells were relaxed with CHGNet."
    return Cells(
        rows=tuple(_cell(c, row, rows) for c, row in zip(found.candidates, rows, strict=True)),
        head=("Space group", "a / Å", "b / Å", "c / Å", "α β γ", *_value_head(found), "drawn"),
        note=note,
        rest="crystals.csv",
    )


def _stages(found: Found) -> tuple[StageRow, ...]:
    rank = found.seconds["rank"]
    return (
        StageRow("draw", found.seconds["draw"]),
        StageRow("merge and rank", rank, found.energy_calls, found.gradient_calls),
    )


def _key_figures(found: Found, told: dict) -> tuple[KeyFigure, ...]:
    first = told["crystals"][0]
    best = first["energy_eV_per_atom"]
    figures = [
        KeyFigure(
            "first", first["space_group"], f"drawn {first['count']} times of {told['drawn']}"
        ),
        KeyFigure("distinct structures", str(told["distinct"]), f"of {told['drawn']} drawn"),
        KeyFigure("network calls", str(found.evaluations), "for each structure"),
        KeyFigure("time", f"{sum(found.seconds.values()):.0f} s"),
    ]
    if best is not None:
        figures.insert(1, KeyFigure("its energy", f"{best:.3f}".replace("-", "−"), "eV per atom"))
    return tuple(figures)


def _words(found: Found, told: dict) -> tuple[str, ...]:
    first, rows = told["crystals"][0], told["crystals"]
    text = (
        f"{told['drawn']} structures were drawn for {found.formula}; {told['distinct']} of"
        " them are distinct"
    )
    if told["valid"] < told["drawn"]:
        text += f", {told['drawn'] - told['valid']} were not valid"
    text += f". The first is {first['space_group']} (number {first['number']})"

    if first["instability_index"] is not None:
        text += (
            ", whose bonds fit the charges of its atoms best: bond-valence sums are off by"
            f" {first['instability_index']:.2f} valence units (rms; stable crystals mostly below"
            " 0.2). That is a rule, no energy: install orbitwise[chgnet] to rank by energy."
        )
        return (text,)

    if not found.energies:
        text += (
            ", drawn most often. Without energies the order says what the model finds likely, not"
            " what is stable: install orbitwise[chgnet] to rank by energy."
        )
        return (text,)

    energies = [row["energy_eV_per_atom"] for row in rows if row["energy_eV_per_atom"] is not None]
    if len(energies) > 1:
        text += f", {1000 * (energies[1] - energies[0]):.0f} meV per atom below the next"
    text += f". Energies are those of a learned potential ({found.energies}), not of a calculation."
    return (text,)


def _value_head(found: Found) -> tuple[str, ...]:
    if found.energies:
        return ("ΔE / meV per atom",)
    return ("instability index / v.u.",) if found.by_bonds else ()


def _cell(candidate: Candidate, row: dict, rows: list[dict]) -> CellRow:
    crystal = candidate.crystal
    angles = [f"{row[k]:.0f}°" for k in ("alpha", "beta", "gamma")]
    columns = [row["space_group"], *(f"{row[k]:.3f}" for k in "abc")]
    columns.append(angles[0] if len(set(angles)) == 1 else " ".join(angles))

    if candidate.energy is not None:
        known, lowest = row["energy_eV_per_atom"], rows[0]["energy_eV_per_atom"]
        columns.append("–" if known is None else f"{1000 * (known - lowest):.0f}")
    elif rows[0]["instability_index"] is not None:  # the first has one if any has
        index = row["instability_index"]
        columns.append("–" if index is None else f"{index:.2f}")
    columns.append(str(row["count"]))

    caption = f"{row['rank']}: {row['space_group']}, {row['density_g_cm3']:.2f} g/cm³"
    return CellRow(crystal.frac, crystal.lattice, crystal.species, tuple(columns), caption)


def _command(settings: dict[str, Any]) -> str:
    parts = [
        "orbitwise crystals",
        shlex.quote(settings["formula"]),
        f"--n {settings['n']} --seed {settings['seed']}",
    ]
    if settings["run"]:
        parts.append(f"--run {shlex.quote(settings['run'])}")
    if settings["prompt"]:
        parts.append(f"--prompt {shlex.quote(settings['prompt'])}")
    return " ".join([*parts, *(["--relax"] if settings["relax"] else [])])
