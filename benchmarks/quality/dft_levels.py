"""Ensembles carried from MMFF94 to AIMNet2 against Markov chains on AIMNet2 itself.

    python -m benchmarks.quality.dft_levels [NAME ...]          about an hour on two cores

For each molecule: replica exchange with MMFF94, its samples carried to AIMNet2 (`carry_up`), with
the effective number of samples by weight and of starts that they descend from, and the minutes. For
ethanol, butane and 1,2-difluoroethane, whose torsion jumps cross every barrier at 300 K: the
population of gauche conformers against chains that make the same moves on AIMNet2 from the start.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.rows import Row, write_rows
from orbitwise.energies import Counted
from orbitwise.methods.conformers.energy import build_energy, placed
from orbitwise.methods.conformers.exchange.search import search
from orbitwise.methods.conformers.levels import LEAPFROG, carry_up
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.metrics.mixing import effective_sample_size
from orbitwise.molecules.metrics.torsions import find_torsions
from orbitwise.molecules.molecule import choose_isomer, embed, parse_smiles
from orbitwise.molecules.search.stereo import Stereo
from orbitwise.search.quench import minimise
from orbitwise.search.run import run
from orbitwise.search.warmup import warmup

SMILES = {
    "butane": "CCCC",
    "alanine_dipeptide": "CC(=O)N[C@@H](C)C(=O)NC",
    "ethanol": "CCO",
    "difluoroethane": "FCCF",
}
DIRECT = ("butane", "ethanol", "difluoroethane")
PARTICLES, SEED, TEMPERATURE = 384, 0, 300.0
CHAINS, STEPS, SEARCH_STEPS = 32, 240, 1600


def system(smiles: str, name: str) -> System:
    mol = choose_isomer(parse_smiles(smiles), SEED)
    energy = build_energy(mol, name, TEMPERATURE)
    device, dtype = placed(energy, name)
    energy = Counted(energy.to(device=device, dtype=dtype))
    return System(mol, energy, TEMPERATURE, device, dtype)


def gauche(smiles: str, x: Tensor) -> Tensor:
    """Whether the torsion about the middle bond of ``x: (*B, N, 3)`` is below 120°, ``(*B)``."""
    atoms = find_torsions(parse_smiles(smiles))[0].atoms
    a, b, c = x.double()[..., list(atoms), :].diff(dim=-2).unbind(-2)
    n, m = torch.linalg.cross(a, b), torch.linalg.cross(b, c)
    return (n * m).sum(-1) / (n.norm(dim=-1) * m.norm(dim=-1)) > -0.5


def direct(high: System) -> Tensor:
    """Frames ``(S, C, N, 3)`` of chains on the better energy, after a quarter of warming up."""
    starts = torch.as_tensor(embed(high.mol, CHAINS, SEED), dtype=high.dtype, device=high.device)
    generator = high.generator(SEED)
    kernel = high.kernel(Stereo.from_mol(high.mol, starts[0]), LEAPFROG)
    with high.energy.stage("direct"):
        starts = minimise(starts, high.energy, tolerance=5.0, max_steps=30).x
        state = warmup(
            kernel,
            kernel.init(starts, high.energy),
            high.energy,
            STEPS // 4,
            generator=generator,
        )
        return run(kernel, state, high.energy, STEPS, generator=generator).x


def share(value: Tensor) -> tuple[float, float]:
    """Mean of ``value: (S, C)`` over chains and its error, autocorrelation included."""
    value = value.double()
    size = float(effective_sample_size(value.T[..., None]).clamp(1)[0])
    return float(value.mean()), float(value.std() / math.sqrt(size))


def carried(name: str, particles: int) -> list[Row]:
    smiles = SMILES[name]
    low, high = system(smiles, "mmff94"), system(smiles, "aimnet2")
    effort = Effort(
        chains=16,
        rungs=low.rungs(),
        leapfrog=LEAPFROG,
        search_steps=SEARCH_STEPS,
        train_steps=1,
        batch_size=1,
        denoise_steps=1,
        relax_steps=1,
    )
    frames = search(low, effort, SEED).x
    x = frames.transpose(0, 1).flatten(0, 1)  # chain by chain
    found = carry_up(low, high, x, particles=particles, seed=SEED)

    calls = high.energy.counts["levels"].gradient
    common = {"seeds": [SEED], "energy_calls": calls, "seconds": round(found.seconds, 1)}
    what = f"dft.levels.{name}"
    note = f"{len(found.x)} particles, {len(found.levels)} levels between MMFF94 and AIMNet2"
    rows = [
        Row(f"{what}.ess", found.ess, note=note, **common),
        Row(f"{what}.starts", found.families, note="effective starts", **common),
        Row(
            f"{what}.minutes",
            found.seconds / 60,
            goal="<= 15" if name == "alanine_dipeptide" else None,
            **common,
        ),
        Row(
            f"{what}.free_energy_error_kT",
            found.free_energy_error,
            note="of AIMNet2 above MMFF94, over islands",
            **common,
        ),
    ]
    if name not in DIRECT:
        return rows

    population, error = found.populations(gauche(smiles, found.x).long(), 2)
    begin = time.monotonic()
    expected, spread = share(gauche(smiles, direct(high)))
    before, _ = share(gauche(smiles, frames))
    rows.append(
        Row(
            f"{what}.population_difference",
            float(population[1]) - expected,
            error=math.hypot(float(error[1]), spread),
            goal="within two errors of 0",
            seeds=[SEED],
            energy_calls=calls + high.energy.counts["direct"].gradient,
            seconds=round(found.seconds + time.monotonic() - begin, 1),
            note=f"gauche: carried {float(population[1]):.3f} ± {float(error[1]):.3f}, direct"
            f" {expected:.3f} ± {spread:.3f}; MMFF94 has {before:.3f}",
        )
    )
    return rows


def main(names: Sequence[str] = tuple(SMILES), *, particles: int = PARTICLES) -> None:
    for name in names:
        write_rows("conformers", carried(name, particles))


if __name__ == "__main__":
    benchmark(
        main,
        needs=["Auto3D"],
        quick={
            "particles": 16,
            "CHAINS": 4,
            "STEPS": 12,
            "SEARCH_STEPS": 40,
            "names": ["ethanol"],
        },
    )
