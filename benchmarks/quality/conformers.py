"""`orbitwise conformers` as it comes, against long reference runs, and what people use today for
the same molecules.

    python -m benchmarks.quality.conformers [NAME ...] [--seeds N] [--budget MINUTES]

For each molecule with a file in benchmarks/references and each seed the default command, judged by
the reference: mean energy, populations, basins, the map of torsions, minutes. Runs are kept in
runs/conformers and not repeated. Then the energy calls that the search needs to a torsion map
within ``CLOSE`` nats of the reference, over those of replica exchange without learned moves; and
RDKit's ETKDGv3 + MMFF94 minimisation (300 embeddings) with the conformers it finds.
``--beside_busy``: the whole set with four busy processes beside it.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from rdkit.Chem import AllChem

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.molecules import MOLECULES
from benchmarks.tools.places import REFERENCES, kept
from benchmarks.tools.rows import Row, write_rows
from orbitwise.methods.conformers.clock import Budget
from orbitwise.methods.conformers.command import ConformersConfig, run
from orbitwise.methods.conformers.compare import compare
from orbitwise.methods.conformers.energy import build_system
from orbitwise.methods.conformers.exchange.crew import Crew, threads
from orbitwise.methods.conformers.exchange.search import Search
from orbitwise.methods.conformers.judge import SAME_ATOM, SAME_RMSD
from orbitwise.methods.conformers.system import Effort
from orbitwise.molecules.files.reference import Reference
from orbitwise.molecules.metrics.conformers import assign, find_conformers, matching
from orbitwise.molecules.metrics.torsions import find_torsions
from orbitwise.molecules.molecule import embed, with_conformers
from orbitwise.search.quench import minimise

SAMPLES, EMBEDDINGS, SEED = 2000, 300, 0
CLOSE, LARGEST = 0.02, 7  # nats; checkpoints, each at twice the steps of the one before
PLAIN = Effort(chains=32, rungs=0, leapfrog=8, search_steps=0, shards=1, warm_steps=90)
EFFORT = None  # what the budget allows on this machine
TINY = Effort(
    chains=4, rungs=4, leapfrog=6, search_steps=240, shards=1, warm_steps=60, quenched=100
)


def judged(name: str, summaries: list[dict]) -> list[Row]:
    """Rows from the summaries of some seeds; errors are of the mean over seeds."""
    common = {
        "seeds": [s["seed"] for s in summaries],
        "energy_calls": sum(c["energy"] for s in summaries for c in s["evaluations"].values()),
        "seconds": round(sum(sum(s["seconds"].values()) for s in summaries), 1),
    }
    large = summaries[0]["atoms"] > 33
    energies = [s["reference"]["final"]["mean_energy_difference_kT"] for s in summaries]
    cold = [s["reference"]["search"]["mean_energy_difference_kT"] for s in summaries]
    worst = [worst_population(s) for s in summaries]
    minutes = [sum(s["seconds"].values()) / 60 for s in summaries]
    basins = [s["reference"]["basins_found"] for s in summaries]
    mixed = sum(s["delivered"]["converged"] for s in summaries)

    def row(what: str, values: Sequence[float], **more) -> Row:
        spread = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
        more = {"error": spread, **more}
        return Row(f"conformers.{name}.{what}", float(np.mean(values)), **more, **common)

    rows = [
        row(
            "mean_energy_error_kT",
            np.abs(energies),
            goal="<= 0.6" if large else "<= 0.3",
            note="size of the error, mean over seeds: " + ", ".join(f"{e:+.2f}" for e in energies),
        ),
        row(
            "final_over_search_energy_error",
            [math.sqrt(np.mean(np.square(energies)) / np.mean(np.square(cold)))],
            goal="<= 1",
            note="root mean squares over seeds; the search by its frames at 300 K alone",
        ),
        row(
            "largest_population_difference",
            [100 * abs(w[0]) for w in worst],
            goal="<= 3 points or 2 errors",
            note="points; in errors: " + ", ".join(f"{w[0] / w[1]:+.1f}" for w in worst),
        ),
        row(
            "basins_found_share",
            [found / max(known, 1) for found, known in basins],
            goal="1",
            note="above 1 %: " + ", ".join(f"{found} of {known}" for found, known in basins),
        ),
        row("minutes", minutes, note=f"{mixed} of {len(summaries)} said to have converged"),
    ]
    if summaries[0]["reference"]["final"]["js"] is not None:
        js = [s["reference"]["final"]["js"] for s in summaries]
        rows.append(
            row(
                "js_torsions",
                [j["value"] for j in js],
                goal="<= 0.05",
                note=f"nats; equal distributions would show {js[0]['floor']:.3f}",
            )
        )
    return rows


def worst_population(summary: dict) -> tuple[float, float]:
    """Largest difference to the reference, with the error of both."""
    rows = summary["conformers"]
    row = max(rows, key=lambda c: abs(c["population"] - c["reference_population"]))
    error = math.hypot(row["population_error"], row["reference_population_error"])
    return row["population"] - row["reference_population"], max(error, 1e-6)


def ensemble(name: str, seed: int, folder: Path, budget: float) -> dict:
    """The summary of the default command, run unless it is there."""
    path = folder / f"{name}-{seed}"
    config = ConformersConfig(
        smiles=MOLECULES[name],
        n=SAMPLES,
        budget=budget,
        effort=EFFORT,
        seed=seed,
        out=path,
        reference=REFERENCES / f"{name}.npz",
    )
    told = path / "summary.json"
    summary = json.loads(told.read_text()) if told.exists() else {"reference": None}
    if summary["reference"] is None:
        summary = run(config).result
    system, _ = build_system(ConformersConfig(smiles=MOLECULES[name]))
    return summary | {"atoms": system.mol.GetNumAtoms()}


def calls_to_js(name: str, reference: Reference, learner: str, seed: int) -> float:
    """Energy calls, warm-up included, after which the map of torsions stays within ``CLOSE`` of the
    reference at every later checkpoint; infinite where it does not."""
    effort = PLAIN
    config = ConformersConfig(smiles=MOLECULES[name], seed=seed, learner=learner, processes=1)
    system, _ = build_system(config)
    effort = effort.model_copy(update={"rungs": system.rungs()})
    torsions, search = (
        find_torsions(system.mol),
        Search(system, config, Crew(config, system, 1), Budget(math.inf)),
    )
    reached = math.inf
    with threads(1), system.energy.stage("search"):
        found = search._start(effort)
        for k in range(LARGEST):
            found = search._round(effort, found, 20 * 2 ** max(k - 1, 0))
            near = compare(system.mol, found.x.flatten(0, 1), 0.0, torsions, reference).js
            calls = system.energy.counts["search"].energy
            if near is None or near.value - near.floor > CLOSE:
                reached = math.inf
            elif math.isinf(reached):
                reached = float(calls)
    return reached


def faster(name: str, reference: Reference, seeds: int) -> list[Row]:
    """Calls with learned moves over those without."""
    if len(find_torsions(build_system(ConformersConfig(smiles=MOLECULES[name]))[0].mol)) == 0:
        return []
    pairs = [
        [calls_to_js(name, reference, learner, seed) for learner in ("torsions", "none")]
        for seed in range(seeds)
    ]
    ratios = [a / b for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    if not ratios:
        return []
    return [
        Row(
            f"conformers.{name}.calls_to_js",
            float(np.mean(ratios)),
            error=float(np.std(ratios, ddof=1) / len(ratios) ** 0.5) if len(ratios) > 1 else None,
            seeds=list(range(seeds)),
            note=f"{CLOSE} nats above the floor; calls with and without: "
            + ", ".join(f"{a:.2g}/{b:.2g}" for a, b in pairs),
        )
    ]


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
    return [Row(f"conformers.{name}.etkdg_mmff_basins_found_share", share, **common)]


@contextmanager
def busy(processes: int = 4) -> Iterator[None]:
    """Processes that compute for nothing inside."""
    spin = "while True: sum(range(10000))"
    running = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()


def loaded(names: Sequence[str], folder: Path, budget: float) -> list[Row]:
    """Beside four busy processes: nothing is lost, and what is delivered is right or said not to
    be."""
    good, told = 0, []
    with busy():
        for name in names:
            begin = time.monotonic()
            summary = ensemble(name, SEED, folder, budget)
            spent = (time.monotonic() - begin) / 60
            difference, error = worst_population(summary)
            right = abs(difference) <= max(0.03, 2 * error)
            good += right or not summary["delivered"]["converged"]
            verdict = "right" if right else "wrong"
            told.append(f"{name} {verdict}, {spent:.1f} min")
    note = f"{good} of {len(names)} right or said not to have converged: " + "; ".join(told)
    return [Row("loaded_machine.finished", good / len(names), goal="1", seeds=[SEED], note=note)]


def main(
    names: Sequence[str] = tuple(MOLECULES),
    *,
    seeds: int = 3,
    budget: float = 6.0,
    beside_busy: bool = False,
    skip_calls: bool = False,
) -> None:
    """``budget`` in minutes of a run; that of the command is 6. ``skip_calls`` leaves the calls to
    the map of torsions out."""
    there = [name for name in names if (REFERENCES / f"{name}.npz").exists()]
    for name in sorted(set(names) - set(there)):
        print(f"{name}: no reference; run benchmarks.references.reference_ensembles {name}")
    if beside_busy:
        write_rows("conformers", loaded(there, kept("runs/conformers_busy"), budget))
        return

    folder = kept("runs/conformers")
    for name in there:
        reference = Reference.load(REFERENCES / f"{name}.npz")
        rows = judged(name, [ensemble(name, seed, folder, budget) for seed in range(seeds)])
        rows += etkdg(name, reference)
        rows += [] if skip_calls else faster(name, reference, seeds)
        rows.append(
            Row(
                f"conformers.{name}.reference_effective_samples",
                reference.meta["effective_samples"],
                energy_calls=reference.meta["energy_evaluations"],
                note=f"split R-hat {reference.meta['rhat']:.3f}",
            )
        )
        write_rows("conformers", rows)


if __name__ == "__main__":
    quick = {
        "SAMPLES": 30,
        "EMBEDDINGS": 5,
        "EFFORT": TINY,
        "LARGEST": 2,
        "names": ["butane"],
        "seeds": 1,
    }
    benchmark(main, quick=quick)
