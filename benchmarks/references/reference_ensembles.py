"""Long replica-exchange runs, kept as small reference files in benchmarks/references.

    python benchmarks/reference_ensembles.py [NAME ...]

The run for alanine dipeptide is ten times as long as the search of `make demo` on two cores (80,000
steps of 16 chains at every temperature, another seed). Existing files are kept; remove one to
compute it again.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from rdkit import Chem

from molecules import MOLECULES
from orbitwise.methods.conformers.command import ConformersConfig, build_system
from orbitwise.methods.conformers.judge import angles, bond_lengths, mixing_of
from orbitwise.methods.conformers.stages import search
from orbitwise.methods.conformers.system import Effort
from orbitwise.molecules.files.reference import Reference
from orbitwise.molecules.metrics.conformers import find_conformers, matching, populations
from orbitwise.molecules.metrics.torsions import find_torsions
from orbitwise.search.quench import minimise
from rows import commit_id

FOLDER = Path(__file__).parent / "references"
STEPS = {"alanine_dipeptide": 80_000}
SEED = 1000  # the ensembles that are judged have others


def compute(name: str) -> Reference:
    """One molecule; the frames behind the histograms are thinned to about 100,000."""
    begin = time.monotonic()
    config = ConformersConfig(smiles=MOLECULES[name], seed=SEED)
    system, _ = build_system(config)
    steps = STEPS.get(name, 20_000)
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
        "command": f"python benchmarks/reference_ensembles.py {name}",
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


def main() -> None:
    names = sys.argv[1:] or list(MOLECULES)
    for name in names:
        path = FOLDER / f"{name}.npz"
        if path.exists():
            print(f"{name}: kept {path.name}")
            continue
        reference = compute(name)
        reference.save(path)
        top = ", ".join(f"{100 * p:.1f}" for p in np.sort(reference.population)[::-1][:6])
        print(
            f"{name}: R-hat {reference.meta['rhat']:.3f}, populations {top} %,"
            f" {path.stat().st_size / 1e6:.1f} MB"
        )


if __name__ == "__main__":
    main()
