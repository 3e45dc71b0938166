"""How the cost of a training step of the periodic network grows with the atoms of a cell.

    python -m benchmarks.speed.cspnet_step          about two minutes

``CSPNet`` as the presets have it (128 wide, 4 layers), forward, backward and Adam in float32 on one
thread, 32 cells of 20, 28 and 40 atoms in turn: the exponent from 20 to 40 atoms, of wall time and
of processor time, from the fastest of the rounds. Pairs grow as the square.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.rows import Row, write_rows
from orbitwise.crystals import Crystal, crystal_batch
from orbitwise.crystals.cspnet import CSPNet

ATOMS = (20, 28, 40)
BATCHES = (32, 8)
ROUNDS = 12
HIDDEN, LAYERS = 128, 4


def step_of(atoms: int, batch: int) -> Callable[[], None]:
    rng = np.random.default_rng(0)
    crystals = [
        Crystal(rng.random((atoms, 3)), 8 * np.eye(3), rng.integers(1, 90, atoms))
        for _ in range(batch)
    ]
    labels = crystal_batch(crystals)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = CSPNet(HIDDEN, LAYERS)
    optimiser = torch.optim.Adam(net.parameters())
    cell, t = torch.zeros(batch, 6), torch.linspace(0, 1, batch)

    def step() -> None:
        optimiser.zero_grad()
        frac, shape = net(labels.frac, cell, t, labels)
        (frac.square().sum() + shape.square().sum()).backward()
        optimiser.step()

    return step


def fastest(batch: int) -> dict[str, list[float]]:
    """Wall and processor seconds of each size."""
    jobs = [step_of(atoms, batch) for atoms in ATOMS]
    taken: dict[str, list[list[float]]] = {"wall": [], "processor": []}
    for turn in range(ROUNDS + 1):
        wall, processor = [], []
        for job in jobs:
            begin = time.perf_counter(), time.process_time()
            job()
            wall.append(time.perf_counter() - begin[0])
            processor.append(time.process_time() - begin[1])
        if turn:  # the first round warms up
            taken["wall"].append(wall)
            taken["processor"].append(processor)
    return {name: np.min(values, axis=0).tolist() for name, values in taken.items()}


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for batch in BATCHES:
        beside = "" if batch == BATCHES[0] else f".batch{batch}"
        for name, seconds in fastest(batch).items():
            exponent = math.log(seconds[-1] / seconds[0]) / math.log(ATOMS[-1] / ATOMS[0])
            kind = "" if name == "wall" else f".{name}"
            row = Row(f"cspnet.step_exponent{beside}{kind}", exponent, goal="<= 2", seeds=[0])
            row.note = ", ".join(
                f"{1e3 * s:.0f} ms for {n} atoms" for n, s in zip(ATOMS, seconds, strict=True)
            )
            rows.append(row)
    write_rows("library", rows)


if __name__ == "__main__":
    benchmark(
        main, quick={"ATOMS": (2, 3), "BATCHES": (2,), "ROUNDS": 1, "HIDDEN": 16, "LAYERS": 1}
    )
