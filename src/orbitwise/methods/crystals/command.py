"""Crystal structures from a formula: draw, merge, rank, write.

``orbitwise crystals SrTiO3`` draws structures from a trained model of crystal structure prediction
(the shipped one is trained on Perov-5, ABX3 perovskites), merges duplicates, finds space groups,
and ranks by energy where CHGNet is installed, else by how often a structure was drawn.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from orbitwise.crystals.domain import Domain, ratio_of
from orbitwise.crystals.files.read import to_structure, write_cif, write_crystal_extxyz
from orbitwise.crystals.formula import species_of, symbols_of
from orbitwise.crystals.matching.match import structurally_valid
from orbitwise.crystals.matching.rank import SYMPREC, Candidate, ChgnetEnergies, rank
from orbitwise.crystals.text.told import text_vectors
from orbitwise.data.folder import replacing, writable_folder
from orbitwise.errors import InputError
from orbitwise.methods.crystals import command_page
from orbitwise.methods.crystals.found import CrystalsConfig, Found, _number
from orbitwise.methods.crystals.model import CrystalModel, load_model
from orbitwise.runs import provenance
from orbitwise.runs.config import Plan
from orbitwise.runs.outcome import Outcome
from orbitwise.training.progress import Progress, ProgressBar

SHIPPED = Path(__file__).parents[1] / "checkpoints" / "perov5.safetensors"


def check_domain(species: np.ndarray, domain: Domain, formula: str) -> tuple[str, ...]:
    """Warnings where a model was trained on other stoichiometries or sizes; ``InputError`` for an
    element that it has never seen."""
    unknown = sorted(set(species.tolist()) - set(domain.elements))
    if unknown:
        raise InputError(
            f"{formula}: the model has never seen {symbols_of(unknown)}; it was trained on"
            f" {trained_on(domain)}. Its elements: {symbols_of(domain.elements)}"
        )
    problems = []
    if ratio_of(species) not in domain.ratios:
        problems.append(f"its stoichiometry {':'.join(map(str, ratio_of(species)))}")
    if not domain.smallest <= len(species) <= domain.largest:
        problems.append(f"its {len(species)} atoms")
    if not problems:
        return ()
    return (
        (
            f"{formula} is outside what the model was trained on: {' and '.join(problems)} did not"
            f" occur. It was trained on {trained_on(domain)}. Do not trust these structures."
        ),
    )


def trained_on(domain: Domain) -> str:
    """A domain in words."""
    size = (
        f"{domain.smallest}"
        if domain.smallest == domain.largest
        else f"{domain.smallest} to {domain.largest}"
    )
    shown = ", ".join(":".join(map(str, ratio)) for ratio in domain.ratios[:6])
    more = f" and {len(domain.ratios) - 6} more" if len(domain.ratios) > 6 else ""
    return (
        f"{domain.crystals:,} crystals ({domain.data}) of {size} atoms per cell,"
        f" {len(domain.elements)} elements, stoichiometries {shown}{more}"
    )


def default_folder(config: CrystalsConfig) -> Path:
    """``crystals/FORMULA``."""
    return Path("crystals") / "".join(c for c in config.formula if c.isalnum())


def plan(config: CrystalsConfig) -> Plan:
    """Parameters of the network and its evaluations; formula and domain are checked."""
    model = _model(config)
    check_domain(species_of(config.formula), model.domain, config.formula)
    size = sum(p.numel() for p in model.denoiser.parameters())
    return Plan(size, 0, config.n * model.sampling.evaluations)


def run(config: CrystalsConfig) -> Outcome:
    """Draw, merge, rank, and write CIFs, ``crystals.csv``, ``crystals.extxyz``, ``summary.json``
    and ``report.html``.

    Raises ``InputError`` as ``species_of`` and ``check_domain`` do, for ``relax`` without CHGNet as
    ``MissingExtraError``, and where no valid structure was drawn.
    """
    species, model = species_of(config.formula), _model(config)
    warnings = list(check_domain(species, model.domain, config.formula))
    energies = ChgnetEnergies() if config.relax or ChgnetEnergies.installed() else None
    folder = writable_folder(config.out or default_folder(config))
    seconds = {}
    with _timed(seconds, "draw"), ProgressBar("drawing") as bar:
        prompt = _prompt(config, model, species, warnings.append)
        drawn = model.draw_crystals(
            species,
            config.n,
            config.seed,
            prompt=prompt,
            device="cuda" if torch.cuda.is_available() else "cpu",
            progress=lambda done, of: bar(Progress(done, of)),
        )
    valid = [c for c in drawn if structurally_valid(to_structure(c))]
    if not valid:
        raise InputError(
            f"none of the {config.n} structures drawn for {config.formula} is valid (atoms nearer"
            f" than 0.5 Å, or not finite); the model was trained on {trained_on(model.domain)}"
        )
    with _timed(seconds, "rank"), ProgressBar("ranking") as bar:
        candidates = rank(valid, energies, config.relax, lambda done, of: bar(Progress(done, of)))
    name = "".join(c for c in config.formula if c.isalnum())
    candidates = [
        replace(
            c, crystal=replace(c.crystal, name=f"{k:02d}_{name}_{c.space_group.replace('/', '_')}")
        )
        for k, c in enumerate(candidates, 1)
    ]
    for old in folder.glob(f"[0-9]*_{name}_*.cif"):  # of an earlier command with more structures
        old.unlink()
    files = [path.name for path in write_cif(folder, [c.crystal for c in candidates])]
    found = Found(
        config,
        candidates,
        files,
        len(valid),
        model.sampling.evaluations,
        model.domain,
        None if energies is None else energies.name,
        0 if energies is None else energies.energy_calls,
        0 if energies is None else energies.gradient_calls,
        tuple(warnings),
        seconds,
    )
    return _write(folder, found)


def _write(folder: Path, found: Found) -> Outcome:
    rows = [
        _row(k, c, file)
        for k, (c, file) in enumerate(zip(found.candidates, found.files, strict=True), 1)
    ]
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    properties = {key: [row[key] for row in rows] for key in ("rank", "count", "space_group")}
    if found.energies:
        properties["energy_eV_per_atom"] = [row["energy_eV_per_atom"] for row in rows]
    write_crystal_extxyz(
        folder / "crystals.extxyz", [c.crystal for c in found.candidates], properties
    )
    summary = {
        "config": found.config.resolved(),
        "formula": found.config.formula,
        "ranked_by": found.order,
        "drawn": found.config.n,
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
        "seeds": {"drawing": found.config.seed},
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
        "energy_eV_per_atom": _number(candidate.energy),
        "instability_index": _number(candidate.instability),
        "count": candidate.count,
    }


def _lines(folder: Path, found: Found, rows: list[dict]) -> tuple[str, ...]:
    lines = [f"warning: {line}" for line in found.warnings]
    wrong = found.config.n - found.valid
    lines.append(
        f"{found.config.formula}: {len(rows)} distinct structures of {found.config.n} drawn"
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
            + f"  drawn {row['count']} of {found.config.n} times"
        )
    lines.append(f"report: {folder / 'report.html'}")
    return tuple(lines)


def _model(config: CrystalsConfig) -> CrystalModel:
    if config.run is None and not SHIPPED.is_file():
        raise InputError(
            "this installation has no packaged crystal model; give a trained run with --run FOLDER"
        )
    return load_model(config.run or SHIPPED)


def _prompt(
    config: CrystalsConfig, model: CrystalModel, species: np.ndarray, warn: Callable[[str], None]
) -> torch.Tensor | None:
    """The vectors of the text, for a model that takes texts."""
    if config.prompt is None:
        return None
    if not model.denoiser.prompted:
        raise InputError("this model was trained without texts; leave --prompt out")
    return text_vectors([config.prompt], torch.from_numpy(species)[None], warn=warn)[0]


class _timed:
    """Seconds of a block, under a name."""

    def __init__(self, seconds: dict[str, float], name: str):
        self.seconds, self.name = seconds, name

    def __enter__(self) -> None:
        self.begin = time.monotonic()

    def __exit__(self, *_) -> None:
        self.seconds[self.name] = time.monotonic() - self.begin
