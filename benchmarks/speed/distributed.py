"""Many slow energies on Ray against the plain loop: GFN2-xTB of alanine dipeptide, and the cost of
a call.

    python -m benchmarks.speed.distributed          about one minute

Both sides evaluate the same 64 geometries, energy and gradient, alternating in one run; medians
over the rounds. The overhead is what a chunk costs beyond its energy: a batch of one point of a
cheap energy on one worker against the same call in the process itself.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable

import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.rows import Row, write_rows
from orbitwise.energies import LennardJones, RayEnergy
from orbitwise.energies.ase import xtb

PEPTIDE = "CC(=O)N[C@@H](C)C(=O)NC"
BATCH, WORKERS, ROUNDS = 64, 2, 3
CALLS = 60  # to time the overhead


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def speedup() -> list[Row]:
    start = time.perf_counter()
    mol = Chem.AddHs(Chem.MolFromSmiles(PEPTIDE))
    AllChem.EmbedMolecule(mol, randomSeed=7)
    base = torch.from_numpy(mol.GetConformer().GetPositions())
    gen = torch.Generator().manual_seed(0)
    x = base + 0.05 * torch.randn(BATCH, *base.shape, generator=gen, dtype=base.dtype)
    factory = functools.partial(xtb, [a.GetAtomicNum() for a in mol.GetAtoms()])
    plain = factory()
    with RayEnergy(factory, WORKERS) as energy:
        while len(energy.pids) < WORKERS:  # both workers are there before the clock starts
            energy(x[:1])
        value, grad = energy.value_and_grad(x)
        expected, slope = plain.value_and_grad(x)
        if not (torch.equal(value, expected) and torch.equal(grad, slope)):
            raise SystemExit("the workers give other numbers than the loop")
        loop, pool = [], []
        for _ in range(ROUNDS):
            loop.append(seconds(lambda: plain.value_and_grad(x)))
            pool.append(seconds(lambda: energy.value_and_grad(x)))
        calls = energy.evaluated + plain.calls
    ratio = [a / b for a, b in zip(loop, pool, strict=True)]
    note = (
        f"GFN2-xTB energy and gradient of {BATCH} geometries of alanine dipeptide, median of"
        f" {ROUNDS} rounds; loop {statistics.median(loop):.2f} s, {WORKERS} workers"
        f" {statistics.median(pool):.2f} s; equal results"
    )
    return [
        Row(
            f"distributed.xtb.speedup_{WORKERS}_workers",
            statistics.median(ratio),
            error=statistics.stdev(ratio) / ROUNDS**0.5,
            goal=">= 1.7",
            seeds=[0],
            energy_calls=calls,
            seconds=time.perf_counter() - start,
            note=note,
        )
    ]


def overhead() -> list[Row]:
    start = time.perf_counter()
    factory = functools.partial(LennardJones, 13)
    plain, x = factory(), torch.randn(64, 13, 3, generator=torch.Generator().manual_seed(0))
    rows = []
    with RayEnergy(factory, 1) as energy:
        for size in (1, 64):
            part, there, here = x[:size], [], []
            for _ in range(CALLS):
                there.append(seconds(lambda part=part: energy.value_and_grad(part)))
                here.append(seconds(lambda part=part: plain.value_and_grad(part)))
            extra = statistics.median(there) - statistics.median(here)
            note = (
                f"extra time of a batch of {size} LJ-13 on one worker over the same call in the"
                " process"
            )
            rows.append(
                Row(
                    f"distributed.overhead.b{size}_ms",
                    1e3 * extra,
                    energy_calls=energy.evaluated,
                    note=note,
                )
            )
    for row in rows:
        row.seconds = time.perf_counter() - start
    return rows


def main() -> None:
    torch.set_num_threads(1)
    write_rows("distributed", speedup() + overhead())


if __name__ == "__main__":
    benchmark(main, needs=["ray", "tblite"], quick={"BATCH": 4, "ROUNDS": 2, "CALLS": 5})
