"""Long replica-exchange runs, kept as small reference files in benchmarks/references.

    python -m benchmarks.references.reference_ensembles [NAME ...]

The run for alanine dipeptide is ten times as long as the search of `make demo` on two cores (80,000
steps of 16 chains at every temperature, another seed). Existing files are kept; remove one to
compute it again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from rdkit import Chem

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.molecules import MOLECULES
from benchmarks.tools.places import kept
from benchmarks.tools.rows import commit_id
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.energy import build_system
from orbitwise.methods.conformers.judge import angles, bond_lengths, mixing_of
from orbitwise.methods.conformers.search import search
from orbitwise.methods.conformers.system import Effort
from orbitwise.molecules.files.reference import Reference
from orbitwise.molecules.metrics.conformers import find_conformers, matching, populations
from orbitwise.molecules.metrics.torsions import find_torsions
from orbitwise.search.quench import minimise

FOLDER = "benchmarks/references"
STEPS = {"alanine_dipeptide": 80_000}
SHORT = 20_000  # steps of the others
SEED = 1000  # the ensembles that are judged have others


def compute(name: str) -> Reference:
    """One molecule; the frames behind the histograms are thinned to about 100,000."""
    begin = time.monotonic()
    config = ConformersConfig(smiles=MOLECULES[name], seed=SEED)
    system, _ = build_system(config)
    steps = STEPS.get(name, SHORT)
    effort = Effort(
        chains=16,
        rungs=system.rungs(),
        leapfrog=8,
        search_steps=steps,
        train_steps=1,
        batch_size=1,
        denoise_steps=2,
        relax_steps=1,
    )
    found = search(system, effort, SEED, frames=100_000)
    match, torsions = matching(system.mol), find_torsions(system.mol)
    kept = found.x[:: max(1, found.energy.numel() // 10_000)]
    quenched = minimise(kept.flatten(0, 1), system.energy, tolerance=1.0, max_steps=200)

    def refine(x):
        tight = minimise(x, system.energy, tolerance=0.05, max_steps=1000)
        return tight.x, tight.energy

    clusters = find_conformers(quenched.x, quenched.energy, match, refine=refine)
    half = 2 * torch.arange(len(kept)) // len(kept)
    share = populations(
        clusters.label, len(clusters), blocks=(half[:, None] * 16 + torch.arange(16)).flatten()
    )
    mixing = mixing_of(found.x, found.energy, torsions)
    counts = system.energy.counts["search"]
    meta = {
        "name": name,
        "smiles": Chem.MolToSmiles(Chem.RemoveHs(system.mol)),
        "energy": config.energy,
        "temperature": config.temperature,
        "seed": SEED,
        "search_steps": steps,
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
    benchmark(main, quick={"SHORT": 200, "names": ["butane"]})
