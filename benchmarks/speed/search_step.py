"""How the cost of a step of the conformer search grows with the molecule: replica exchange of HMC
(8 leapfrog steps) and torsion moves, both keeping the stereo class, for normal alkanes.

    python -m benchmarks.speed.search_step          about two minutes

Temperatures and chains are the same for all sizes (6 and 16), so that the exponent is that of the
step alone; processor time of one thread, best of the rounds, sizes in turn. The rest of a step is
what remains without the energy of its 9 evaluations.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from rdkit import Chem

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.rows import Row, write_rows
from orbitwise.energies import Counted
from orbitwise.methods.conformers.system import System
from orbitwise.molecules import MMFF94
from orbitwise.molecules.molecule import embed
from orbitwise.molecules.search.stereo import Stereo
from orbitwise.search.quench import minimise
from orbitwise.search.tempering import ReplicaExchange, geometric_ladder

CARBONS = (16, 20, 25, 33)  # 50, 62, 77 and 101 atoms
RUNGS, CHAINS, LEAPFROG = 6, 16, 8
ROUNDS, STEPS = 10, 20
PEPTIDE = "CC(=O)NC(C)C(=O)NC"


def jobs(smiles: str) -> tuple[int, Callable[[], None], Callable[[], None]]:
    """Atoms; a job that makes one step; one that evaluates the energies of a step."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    energy = Counted(MMFF94(mol))
    system = System(mol, energy, 300.0, torch.device("cpu"), torch.float32)
    starts = torch.as_tensor(embed(mol, CHAINS, seed=0), dtype=torch.float32)
    stereo = Stereo.from_mol(mol, starts[0])
    starts = minimise(starts, energy, tolerance=5.0, max_steps=100).x
    starts = starts - starts.mean(-2, keepdim=True)

    betas = geometric_ladder(300.0, system.hottest, RUNGS)
    kernel = ReplicaExchange(system.kernel(stereo, LEAPFROG), betas)
    state = kernel.init(starts.expand(RUNGS, *starts.shape).contiguous(), energy)
    generator = system.generator(0)

    def step() -> None:
        nonlocal state
        state, _ = kernel.step(state, energy, generator)

    def evaluations() -> None:
        for _ in range(LEAPFROG + 1):
            energy.value_and_grad(state.x)

    return mol.GetNumAtoms(), step, evaluations


def seconds(job: Callable[[], None]) -> float:
    start = time.process_time()
    for _ in range(STEPS):
        job()
    return (time.process_time() - start) / STEPS


def exponent(sizes: list[int], costs: list[float]) -> tuple[float, float]:
    """Slope of log cost against log size by least squares, and its standard error."""
    x, y = torch.tensor(sizes).double().log(), torch.tensor(costs).double().log()
    x, y = x - x.mean(), y - y.mean()
    slope = (x @ y / (x @ x)).item()
    spread = (y - slope * x).square().sum() / max(len(sizes) - 2, 1)
    return slope, (spread / (x @ x)).sqrt().item()


def main() -> None:
    torch.set_num_threads(1)
    begin = time.perf_counter()
    every = [jobs("C" * n) for n in CARBONS] + [jobs(PEPTIDE)]
    best = [[math.inf, math.inf] for _ in every]
    for _ in range(ROUNDS):
        for found, (_, *both) in zip(best, every, strict=True):
            found[:] = map(min, found, map(seconds, both))

    sizes = [n for n, *_ in every]
    steps, energies = zip(*best, strict=True)
    several = len(CARBONS)
    slope, error = exponent(sizes[:several], steps[:several])
    slope_energy, error_energy = exponent(sizes[:several], energies[:several])
    note = (
        f"{RUNGS} temperatures, {CHAINS} chains, HMC of {LEAPFROG} leapfrog steps and a torsion"
        " move, MMFF94, float32, processor time of one thread"
    )
    alkanes = f"{note}; normal alkanes of {', '.join(map(str, sizes[:several]))} atoms"
    common = {"seeds": [0], "seconds": time.perf_counter() - begin}
    rows = [
        Row(
            "speed.search_step_exponent_50_100",
            slope,
            error=error,
            goal="<= 2",
            note=alkanes,
            **common,
        ),
        Row(
            "speed.search_energy_exponent_50_100",
            slope_energy,
            error=error_energy,
            note=f"the energies alone; {alkanes}",
            **common,
        ),
    ]
    for k in (several, 0, several - 1):
        name = f"speed.search_step_{sizes[k]}"
        rows += [
            Row(f"{name}_atoms_ms", 1e3 * steps[k], note=note, **common),
            Row(f"{name}_atoms_energy_share", energies[k] / steps[k], note=note, **common),
        ]
    write_rows("conformers", rows)


if __name__ == "__main__":
    benchmark(main, quick={"CARBONS": (3, 5), "ROUNDS": 1, "STEPS": 1})
