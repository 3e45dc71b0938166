"""Long replica-exchange runs, kept as small reference files in benchmarks/references.

    python -m benchmarks.references.reference_ensembles [NAME ...]

Replica exchange of another seed than what is judged, until the torsions are worth ten times the
samples that the command asks for, or for ``MINUTES``; without learned moves for
the molecules of ``PLAIN``; the others would take hours. Existing files are kept; remove one to
compute it again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rdkit import Chem

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.molecules import MOLECULES
from benchmarks.tools.places import kept
from benchmarks.tools.rows import commit_id
from orbitwise.methods.conformers.clock import Budget
from orbitwise.methods.conformers.compare import bond_lengths
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.effort import PlanSearch
from orbitwise.methods.conformers.energy import build_system
from orbitwise.methods.conformers.exchange.crew import Crew, threads
from orbitwise.methods.conformers.exchange.found import Found
from orbitwise.methods.conformers.exchange.mixing import Watched, angles, match_of
from orbitwise.methods.conformers.exchange.search import Search
from orbitwise.methods.conformers.judge import conformers_of
from orbitwise.molecules.files.reference import Reference
from orbitwise.molecules.metrics.conformers import populations
from orbitwise.molecules.metrics.torsions import find_torsions
from orbitwise.runs.stages import Pipeline

FOLDER = "benchmarks/references"
PRECISION = 0.01 / 10**0.5  # of populations: ten times the samples of the command
MINUTES = 3.0
PLAIN = ("butane", "difluoroethane", "methylacetamide", "lactone", "cyclohexane")
QUENCHED = 15_000  # frames behind the populations
SEED = 1000  # the ensembles that are judged have others


def compute(name: str) -> Reference:
    """One molecule."""
    begin = time.monotonic()
    config = ConformersConfig(
        smiles=MOLECULES[name],
        seed=SEED,
        learner="none" if name in PLAIN else "torsions",
        budget=MINUTES,
        precision=PRECISION,
    )
    system, _ = build_system(config)
    crew = Crew.of(config, system)
    with threads(1), TemporaryDirectory() as folder:
        pipe = Pipeline(folder, system.energy.counts, {})
        budget = Budget(60 * MINUTES)
        pipe.run((PlanSearch(crew, budget), Search(system, config, crew, budget)))
        found = pipe[Found].settled

    torsions, chains = find_torsions(system.mol), found.energy.shape[1]
    kept = found.x[:: max(1, found.energy.numel() // QUENCHED)]
    frames = kept.flatten(0, 1)
    even = torch.full((len(frames),), 1 / len(frames))
    match = match_of(system.mol)
    with threads(1):
        clusters, labels = conformers_of({"search": frames}, crew, match, even)
    half = 2 * torch.arange(len(kept)) // len(kept)
    share = populations(
        labels["search"],
        len(clusters),
        blocks=(half[:, None] * chains + torch.arange(chains)).flatten(),
    )
    mixing = Watched.of(system.mol).mixing(found.x, found.energy)
    counts = system.energy.counts["search"]
    meta = {
        "name": name,
        "smiles": Chem.MolToSmiles(Chem.RemoveHs(system.mol)),
        "energy": config.energy,
        "temperature": config.temperature,
        "seed": SEED,
        "search_steps": found.steps,
        "chains": chains,
        "rhat": mixing.rhat,
        "effective_samples": mixing.effective_samples,
        "energy_evaluations": counts.energy,
        "round_trips": found.info["round_trips"],
        "minutes": (time.monotonic() - begin) / 60,
        "commit": commit_id(),
        "command": f"python -m benchmarks.references.reference_ensembles {name}",
    }
    energy = found.energy.flatten().double().numpy()
    return Reference(
        torsions=angles(found.x.flatten(0, 1), torsions).numpy(),
        energy=energy,
        bond_mean=bond_lengths(system.mol, found.x.flatten(0, 1)).double().mean(0).numpy(),
        minima=clusters.x.numpy(),
        population=share.population.numpy(),
        population_error=share.error.numpy(),
        meta=meta,
    )


def main(names: Sequence[str] = tuple(MOLECULES)) -> None:
    for name in names:
        path = kept(FOLDER) / f"{name}.npz"
        if path.exists():
            print(f"{name}: kept {path.name}")
            continue
        reference = compute(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        reference.save(path)
        top = ", ".join(f"{100 * p:.1f}" for p in np.sort(reference.population)[::-1][:6])
        print(
            f"{name}: R-hat {reference.meta['rhat']:.3f}, populations {top} %,"
            f" {path.stat().st_size / 1e6:.1f} MB"
        )


if __name__ == "__main__":
    benchmark(main, quick={"MINUTES": 0.1, "QUENCHED": 200, "names": ["butane"]})
