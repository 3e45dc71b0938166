"""Throughput of the conformer search on two cores against one.

    python -m benchmarks.speed.search_cores

The same steps of the same two shards (alanine dipeptide, the command's plan), by one process and by
two, in turn; the ratio of the medians. Meant for an otherwise idle machine.
"""

from __future__ import annotations

import math
import statistics
import time

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.molecules import MOLECULES
from benchmarks.tools.rows import Row, write_rows
from orbitwise.methods.conformers.clock import Budget
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.energy import build_system
from orbitwise.methods.conformers.exchange.crew import Crew, threads
from orbitwise.methods.conformers.exchange.search import Search
from orbitwise.methods.conformers.system import Effort

STEPS, REPEATS, CHAINS = 200, 7, 64


def main(name: str = "alanine_dipeptide") -> None:
    config = ConformersConfig(smiles=MOLECULES[name])
    system, _ = build_system(config)
    effort = Effort(
        chains=CHAINS, rungs=system.rungs(), leapfrog=8, search_steps=0, shards=2, warm_steps=90
    )
    searches = [
        Search(system, config, Crew(config, system, processes), Budget(math.inf))
        for processes in (1, 2)
    ]
    times: list[list[float]] = [[], []]
    with threads(1):
        found = searches[0]._start(effort)
        searches[1]._round(effort, found, 10)  # processes start
        for _ in range(REPEATS):
            for search, spent in zip(searches, times, strict=True):
                begin = time.perf_counter()
                search._round(effort, found, STEPS)
                spent.append(time.perf_counter() - begin)

    searches[1].crew.close()
    one, two = (statistics.median(t) for t in times)
    ratios = [a / b for a, b in zip(*times, strict=True)]
    note = f"{STEPS} steps of {CHAINS} columns: {one:.2f} s by one process, {two:.2f} s by two"
    error = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else None
    row = Row("speed.search_two_cores", one / two, error=error, goal=">= 1.8", note=note)
    write_rows("conformers", [row])


if __name__ == "__main__":
    benchmark(main, quick={"STEPS": 5, "REPEATS": 2, "CHAINS": 8})
