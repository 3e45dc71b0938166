"""`orbitwise conformers` against long reference runs, and what people use today for the same
molecules.

    python -m benchmarks.quality.conformers [NAME ...] [--budget MINUTES] [--demo FOLDER]

For each molecule with a file in benchmarks/references: the command (2,000 samples), judged after
and before relaxation, with its free energies against the long run (χ²) and the importance weights
of its learner (ESS, gap); RDKit's ETKDGv3 + MMFF94 minimisation (300 embeddings) with the
conformers it finds; for butane and 1,2-difluoroethane the populations of a one-dimensional torsion
profile. ``--demo`` judges a folder that `make demo` left instead of running alanine dipeptide
again.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rdkit.Chem import AllChem, rdMolTransforms

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.molecules import MOLECULES
from benchmarks.tools.places import REFERENCES
from benchmarks.tools.rows import Row, write_rows
from orbitwise.methods.conformers.command import ConformersConfig, run
from orbitwise.methods.conformers.energy import build_system
from orbitwise.methods.conformers.judge import SAME_ATOM, SAME_RMSD
from orbitwise.methods.conformers.system import Effort
from orbitwise.molecules.files.reference import Reference
from orbitwise.molecules.metrics.conformers import assign, find_conformers, matching
from orbitwise.molecules.molecule import embed, with_conformers
from orbitwise.search.quench import minimise

BUDGET = 1.0  # minutes; alanine dipeptide has that of the demo
PROFILES = {"butane": (0, 1, 2, 3), "difluoroethane": (0, 1, 2, 3)}
SAMPLES, EMBEDDINGS, SEED = 2000, 300, 0
EFFORT = None  # what the budget allows on this machine
TINY = Effort(
    chains=4,
    rungs=4,
    leapfrog=6,
    search_steps=240,
    train_steps=250,
    batch_size=32,
    denoise_steps=8,
    relax_steps=30,
    weigh_paths=20,
)


def judged(name: str, summary: dict) -> list[Row]:
    """Rows from a summary.json that was judged against the reference."""
    verdict, rows = summary["reference"], []
    calls = sum(c["energy"] for c in summary["evaluations"].values())
    seconds = sum(summary["seconds"].values())
    common = {"seeds": [summary["seed"]], "energy_calls": calls, "seconds": round(seconds, 1)}

    def row(what: str, value: float, **more) -> None:
        rows.append(Row(f"conformers.{name}.{what}", float(value), **common, **more))

    map_name = "js_phi_psi" if name == "alanine_dipeptide" else "js_torsions"
    for when in ("after", "before", "search"):
        got = verdict[f"{when}_relaxation" if when != "search" else when]
        suffix = "" if when == "after" else f"_{when}"
        if got["js"] is not None:
            note = (
                f"nats, {got['js']['bins']} bins an axis; equal distributions would show"
                f" {got['js']['floor']:.3f}"
            )
            goal = "<= 0.05" if when == "after" else None
            row(
                map_name + suffix,
                got["js"]["value"],
                error=got["js"]["error"],
                goal=goal,
                note=note,
            )
        goal = "within 0.5" if when == "after" else None
        row("mean_energy_error_kT" + suffix, got["mean_energy_difference_kT"], goal=goal)
        goal = "<= 0.01" if when == "after" else None
        row(
            "bond_length_error_angstrom" + suffix,
            got["largest_bond_length_difference_angstrom"],
            goal=goal,
        )
    found, known = verdict["basins_found"]
    row("basins_found_share", found / max(known, 1), goal="1", note=f"{found} of {known} above 1 %")
    worst = max(
        summary["conformers"], key=lambda c: abs(c["population"] - c["reference_population"])
    )
    row(
        "largest_population_difference",
        worst["population"] - worst["reference_population"],
        error=float(np.hypot(worst["population_error"], worst["reference_population_error"])),
        note=(
            f"conformer {worst['conformer']}: {worst['population']:.3f} against"
            f" {worst['reference_population']:.3f}"
        ),
    )
    row("usable_share_before_relaxation", summary["usable_share"])
    for other, suffix in (("reference", ""), ("search", "_search")):
        found = summary["free_energies"][f"against_{other}"]
        if found is not None:
            note = f"per degree of freedom, {found['dof']} differences, p = {found['p_value']:.2g}"
            goal = "p >= 0.01" if other == "reference" else None
            row("free_energy_chi2" + suffix, found["chi2"] / found["dof"], goal=goal, note=note)
    weights = summary["weights"]
    if weights.get("gap") is not None:
        note = f"{weights['effective_paths']:.1f} effective of {weights['paths']} paths"
        note += (
            "" if weights["usable"] else "; the weights degenerate, no populations are made of them"
        )
        row("weights_ess", weights["ess"], error=weights["ess_error"], note=note)
        row(
            "gap",
            weights["gap"],
            error=weights["gap_error"],
            note=f"nats, EUBO - ELBO, {weights['steps']} steps",
        )
    row("minutes", seconds / 60, goal="<= 8" if name == "alanine_dipeptide" else None)
    return rows


def etkdg(name: str, reference: Reference) -> list[Row]:
    """RDKit's usual recipe: embed, minimise, merge duplicates. It gives minima, not populations."""
    system, _ = build_system(ConformersConfig(smiles=MOLECULES[name]))
    begin = time.monotonic()
    mol = with_conformers(system.mol, embed(system.mol, EMBEDDINGS, SEED))
    AllChem.MMFFOptimizeMoleculeConfs(mol, numThreads=0, maxIters=2000)
    seconds = time.monotonic() - begin
    x = torch.tensor(np.array([c.GetPositions() for c in mol.GetConformers()]), dtype=torch.float32)
    match = matching(system.mol)
    tight = minimise(x, system.energy, tolerance=0.05, max_steps=1000)
    found = find_conformers(tight.x, tight.energy, match, rmsd=SAME_RMSD, deviation=SAME_ATOM)
    minima = torch.as_tensor(reference.minima, dtype=torch.float32)
    label = assign(minima, found, match, rmsd=SAME_RMSD)
    large = torch.as_tensor(reference.population) > 0.01
    share = float(((label >= 0) & large).sum() / large.sum())
    note = f"{len(found)} distinct minima from {EMBEDDINGS} embeddings; gives no populations"
    common = {"seeds": [SEED], "seconds": round(seconds, 2), "note": note}
    return [
        Row(f"conformers.{name}.etkdg_mmff_basins_found_share", share, **common),
        Row(f"conformers.{name}.etkdg_mmff_minutes", seconds / 60, **common),
    ]


def profile(name: str, reference: Reference) -> list[Row]:
    """Populations from the relaxed torsion profile alone: p ∝ ∫ exp(-E(φ)/kT) dφ over each well."""
    system, _ = build_system(ConformersConfig(smiles=MOLECULES[name]))
    mol = with_conformers(system.mol, embed(system.mol, 1, SEED))
    properties = AllChem.MMFFGetMoleculeProperties(mol)
    grid, energies, atoms = np.arange(-180, 180, 3.0), [], PROFILES[name]
    for angle in grid:
        force_field = AllChem.MMFFGetMoleculeForceField(mol, properties)
        rdMolTransforms.SetDihedralDeg(mol.GetConformer(), *atoms, float(angle))
        force_field = AllChem.MMFFGetMoleculeForceField(mol, properties)
        force_field.MMFFAddTorsionConstraint(*atoms, False, float(angle), float(angle), 1e4)
        for _ in range(5):
            if not force_field.Minimize(maxIts=2000):
                break
        energies.append(AllChem.MMFFGetMoleculeForceField(mol, properties).CalcEnergy())
    weight = np.exp(-(np.array(energies) - min(energies)) / (0.0019872042586408316 * 300.0))
    gauche = np.abs(grid) < 120
    one_dimensional = weight[gauche].sum() / weight.sum()
    angle = np.degrees(reference.torsions[:, 0])
    long_run = float((np.abs(angle) < 120).mean())
    note = f"long run {long_run:.3f}; the profile leaves out entropy along the other coordinates"
    return [
        Row(f"conformers.{name}.gauche_profile", float(one_dimensional), note=note),
        Row(f"conformers.{name}.gauche_reference", long_run, note="replica-exchange reference"),
    ]


def main(
    names: Sequence[str] = tuple(MOLECULES),
    *,
    budget: float | None = None,
    demo: Path | None = None,
) -> None:
    for name in names:
        path = REFERENCES / f"{name}.npz"
        if not path.exists():
            print(f"{name}: no reference; run benchmarks.references.reference_ensembles {name}")
            continue
        reference = Reference.load(path)
        if name == "alanine_dipeptide" and demo:
            summary = json.loads((demo / "summary.json").read_text())
        else:
            standard = 6.0 if name == "alanine_dipeptide" else BUDGET
            with tempfile.TemporaryDirectory() as folder:
                config = ConformersConfig(
                    smiles=MOLECULES[name],
                    n=SAMPLES,
                    budget=budget or standard,
                    effort=EFFORT,
                    seed=SEED,
                    out=folder,
                    reference=path,
                )
                summary = run(config).result
        rows = judged(name, summary) + etkdg(name, reference)
        rows += profile(name, reference) if name in PROFILES else []
        rows.append(
            Row(
                f"conformers.{name}.reference_rhat",
                reference.meta["rhat"],
                energy_calls=reference.meta["energy_evaluations"],
            )
        )
        write_rows("conformers", rows)


if __name__ == "__main__":
    quick = {"SAMPLES": 30, "EMBEDDINGS": 5, "EFFORT": TINY, "names": ["butane"]}
    benchmark(main, quick=quick)
