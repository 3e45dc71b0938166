"""What there is to do of a list: every molecule once, in a folder whose name does not depend on its
place in the list."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from orbitwise.data.folder import replacing
from orbitwise.errors import InputError
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.energy import NAMES, build_energy, known_energy
from orbitwise.molecules.files.entry import Entry
from orbitwise.molecules.identity import identity, without_maps
from orbitwise.molecules.molecule import parse_smiles
from orbitwise.runs.config import validate

ROW, LIST = "row.json", "list.json"
_MARK = 12  # letters that tell molecules apart: a million of them without a clash
# what may be changed between repeats: it decides how long and with how much, not of what
FREE = {"smiles", "out", "budget", "precision", "workers", "processes", "reference"}


@dataclass(frozen=True)
class Row:
    """A molecule in the table. ``state``: converged, not converged, failed or waiting;
    ``problem``: what went wrong, in words; ``rhat`` and the rest are None where there is no
    result."""

    name: str
    smiles: str = ""
    formula: str = ""
    state: str = "waiting"
    problem: str = ""
    conformers: int | None = None
    population: float | None = None
    population_error: float | None = None
    energy_range_kcal_mol: float | None = None
    rhat: float | None = None
    minutes: float | None = None
    folder: str = ""
    budget: float = 0.0
    precision: float = 1.0


@dataclass(frozen=True)
class Job:
    """One molecule to compute: its ``config`` and the rows of the list that it answers."""

    config: ConformersConfig
    rows: tuple[int, ...]
    row: Row

    @property
    def folder(self) -> Path:
        return self.config.out

    def kept(self) -> Row | None:
        """The row of an earlier call that needs no further computing: converged, or all the time
        it may have is spent."""
        try:
            row = Row(**json.loads((self.folder / ROW).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        whole = all((self.folder / name).is_file() for name in ("summary.json", "report.html"))
        spent = row.state == "not converged" and row.budget >= self.config.budget
        fine = row.state == "converged" and row.precision <= self.config.precision
        done = fine or spent
        return replace(row, name=self.row.name, folder=self.row.folder) if whole and done else None

    def keep(self, row: Row) -> None:
        """Leave the row for a later call."""
        given = {"budget": self.config.budget, "precision": self.config.precision}
        with replacing(self.folder / ROW) as temporary:
            text = json.dumps(asdict(row) | given, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")


def jobs_of(
    entries: Sequence[Entry], options: Mapping[str, Any], out: Path
) -> tuple[list[Row], list[Job]]:
    """The rows of the table as they stand before anything is computed, and the molecules to
    compute.

    A molecule that stands in the list twice is computed once. Raises ``OrbitwiseError`` for options
    that are none or an energy that cannot be had, ``InputError`` for a folder that holds a list
    with others.
    """
    common = validate(ConformersConfig, {**options, "smiles": "C"})
    if (
        known_energy(common.energy) in NAMES
    ):  # a mistake in it is one of the list, not of each molecule
        build_energy(parse_smiles("C"), common.energy, solvent=common.solvent)
    _same_list(common, out)

    rows = [
        Row(e.name or f"no. {e.number}", state="failed", problem=e.error or "") for e in entries
    ]
    places: dict[str, list[int]] = {}
    formulas: dict[str, str] = {}
    first: dict[str, str] = {}  # how a molecule is written where it stands first
    for k, entry in enumerate(entries):
        if entry.smiles is None:
            continue
        mol = Chem.RemoveHs(without_maps(Chem.MolFromSmiles(entry.smiles)))
        smiles = first.setdefault(identity(mol), Chem.MolToSmiles(mol))
        places.setdefault(smiles, []).append(k)
        formulas[smiles] = CalcMolFormula(mol)

    # a molecule stays in the folder that an earlier list gave it, whatever it was called there
    earlier = {path.parent.name[-_MARK:]: path.parent.name for path in sorted(out.glob(f"*/{ROW}"))}
    jobs = []
    for smiles, where in places.items():
        names = [entries[k].name or formulas[smiles] for k in where]
        folder = earlier.get(_mark(smiles)) or _folder(names[0], smiles)
        config = validate(ConformersConfig, {**options, "smiles": smiles, "out": out / folder})
        for k, name in zip(where, names, strict=True):
            rows[k] = Row(name, smiles, formulas[smiles], folder=folder)
        jobs.append(Job(config, tuple(where), rows[where[0]]))
    return rows, jobs


def _folder(name: str, smiles: str) -> str:
    """A name for any file system, which differs for different molecules."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", plain).strip("-._")[:40] or "molecule"
    return f"{plain}-{_mark(smiles)}"


def _mark(smiles: str) -> str:
    return hashlib.sha256(smiles.encode()).hexdigest()[:_MARK]


def _same_list(config: ConformersConfig, out: Path) -> None:
    """Note the options in ``out``; ``InputError`` where others stand there."""
    path = out / LIST
    mine = {k: v for k, v in config.model_dump(mode="json").items() if k not in FREE}
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        theirs = None
    if isinstance(theirs, dict):
        other = [f"{k} {theirs[k]}, not {v}" for k, v in mine.items() if theirs.get(k, v) != v]
        if other:
            raise InputError(
                f"{out} holds a list computed with {', '.join(other)}; choose another folder with"
                " --out"
            )
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(mine, indent=1) + "\n", encoding="utf-8")
