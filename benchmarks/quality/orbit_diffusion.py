"""Orbit Diffusion trained on rMD17 frames of one molecule: samples against held-out frames.

    python -m benchmarks.quality.orbit_diffusion [--molecules ethanol aspirin] [--minutes 2.5]

Rows: Wasserstein-1 and total variation of the interatomic distances, W1 of the MMFF94 energy
levels, each beside the same figure for training frames (what a perfect sampler would show). The
training is short: ``--minutes`` of it per molecule. Reads ../shared/data/rmd17.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import SHARED
from benchmarks.tools.rows import Row, write_rows
from orbitwise.methods.molecules import orbit_diffusion
from orbitwise.molecules.files.structures import write_extxyz
from orbitwise.molecules.molecule import parse_smiles, to_batch
from orbitwise.runs.config import load
from orbitwise.training import estimate_step_seconds

DATA = SHARED / "rmd17"
SMILES = {"ethanol": "CCO", "aspirin": "CC(=O)Oc1ccccc1C(=O)O"}
FRAMES, SAMPLES = 2000, 1000


def frames_file(molecule: str, folder: Path) -> Path:
    """Evenly spaced frames of a trajectory as extxyz, as a user would have them."""
    from orbitwise.molecules.bonds import perceive_bonds

    with np.load(DATA / f"{molecule}.npz") as file:
        species, x = file["atomic_numbers"], file["positions"].astype(float)
    x = x[:: len(x) // FRAMES][:FRAMES]
    mol = perceive_bonds(species, x, smiles_mol=parse_smiles(SMILES[molecule])).mol
    path = folder / f"{molecule}.extxyz"
    write_extxyz(path, mol, x)
    return path


def measure(molecule: str, minutes: float, folder: Path) -> list[Row]:
    begin = time.perf_counter()
    given = [
        f"data={frames_file(molecule, folder)}",
        f"smiles={SMILES[molecule]}",
        "temperature=500",
    ]
    given += ["train.batch_size=64", "train.learning_rate=2e-3", "train.ema_decay=0.995"]
    config = load("orbit_diffusion/default", given)
    made = orbit_diffusion.parts(config)
    data = to_batch(made.ensemble.mol, made.ensemble.training).to("cpu")
    seconds = estimate_step_seconds(made.denoiser, made.objective, data, config.train)
    config = load(
        "orbit_diffusion/default", [*given, f"train.steps={max(50, int(60 * minutes / seconds))}"]
    )
    run = folder / molecule
    orbit_diffusion.train(config, run)
    orbit_diffusion.sample(run, SAMPLES)
    outcome = orbit_diffusion.evaluate(run)
    print("\n".join(outcome.lines))
    c = outcome.result
    took = time.perf_counter() - begin
    note = (
        f"{config.train.steps} steps of {config.train.batch_size}, {c.samples} samples,"
        f" {c.held_out} held out"
    )
    name = f"orbit_diffusion.{molecule}"
    figures = {
        "distance_w1_angstrom": c.distances.w1_angstrom,
        "distance_w1_angstrom_floor": c.floor.w1_angstrom,
        "distance_tv": c.distances.total_variation,
        "distance_tv_floor": c.floor.total_variation,
        "bond_error_angstrom": c.bond_error_angstrom,
        "energy_w1_kcal_mol": c.energy_w1_kcal_mol,
        "energy_w1_kcal_mol_floor": c.energy_floor_w1_kcal_mol,
        "energy_median_error_kcal_mol": (
            c.sample_energy.quantiles_kcal_mol[2] - c.held_out_energy.quantiles_kcal_mol[2]
        ),
        "other_isomer": c.other_isomer,
    }
    return [
        Row(f"{name}.{key}", value, seeds=[0], energy_calls=c.energy_calls, seconds=took, note=note)
        for key, value in figures.items()
    ]


def main(
    *, molecules: Sequence[Literal["ethanol", "aspirin"]] = tuple(SMILES), minutes: float = 2.5
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for molecule in molecules:
            write_rows("orbit_diffusion", measure(molecule, minutes, Path(folder)))


if __name__ == "__main__":
    benchmark(
        main,
        needs=[DATA],
        quick={"FRAMES": 60, "SAMPLES": 8, "molecules": ["ethanol"], "minutes": 0.01},
    )
