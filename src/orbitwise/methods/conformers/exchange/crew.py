"""The processes that share the search of `orbitwise conformers`, one thread each.

What is computed does not depend on how many there are, nor on where a part runs: a part that a lost
process leaves behind is computed here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

from orbitwise.energies.counted import Count
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.energy import build_system
from orbitwise.methods.conformers.system import System
from orbitwise.runs.workers import begin_worker
from orbitwise.search.quench import Minimum, minimise

Part = TypeVar("Part")

# Sleeping threads leave the cores to the other processes; one each is the fastest in all.
ALONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
PIECE = 500  # structures that are quenched together
IDLE = 60  # seconds after which idle processes end


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch computes with ``count`` threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def usable_cores() -> int:
    """Cores that this process may use, limits of containers included."""
    import loky

    return loky.cpu_count()


@dataclass(frozen=True)
class Crew:
    """``processes`` that know the system of ``config``; 1 computes here."""

    config: ConformersConfig
    system: System
    processes: int

    @staticmethod
    def of(config: ConformersConfig, system: System) -> Crew:
        """As many processes as asked for, or as there are cores; a GPU and an energy that has its
        own workers need no others."""
        if system.device.type != "cpu" or config.workers > 1:
            return Crew(config, system, 1)
        return Crew(config, system, config.processes or usable_cores())

    def map(self, task: Callable[..., Part], parts: Sequence[tuple]) -> list[Part]:
        """``task(system, *part)`` for every part, in order. Evaluations in other processes are
        counted here, under the stage of the moment."""
        if self.processes == 1 or len(parts) == 1:
            return [self._here(task, part) for part in parts]
        from loky.process_executor import BrokenProcessPool

        try:
            executor = self._executor()
            given = self.config.model_dump(mode="json")
            futures = [executor.submit(_there, task, given, part) for part in parts]
        except (OSError, BrokenProcessPool):  # no room for processes: it works without
            return [self._here(task, part) for part in parts]

        results = []
        try:
            for future, part in zip(futures, parts, strict=True):
                try:
                    result, count = future.result()
                    self.system.energy.add(count)
                except (OSError, BrokenProcessPool):
                    result = self._here(task, part)
                results.append(result)
        except BaseException:  # Ctrl-C too: nothing goes on behind the back
            executor.shutdown(wait=False, kill_workers=True)
            raise
        return results

    def quench(self, x: Tensor, tolerance: float, max_steps: int) -> Minimum:
        """``minimise`` of ``x: (n, N, 3)``, shared out in pieces of one size, whose last digits do
        not depend on the processes."""
        pieces = x.split(PIECE)
        found = self.map(quench, [(piece, tolerance, max_steps) for piece in pieces])
        names = ("x", "energy", "force", "converged", "steps")
        return Minimum(*(torch.cat([getattr(f, name) for f in found]) for name in names))

    def _here(self, task: Callable[..., Part], part: tuple) -> Part:
        with threads(1):
            return task(self.system, *part)

    def _executor(self):
        from loky import get_reusable_executor

        return get_reusable_executor(
            max_workers=self.processes,
            timeout=IDLE,
            initializer=_begin,
            initargs=(os.getpid(),),
            env=ALONE,
        )

    def close(self) -> None:
        """End the processes."""
        if self.processes > 1:
            self._executor().shutdown(wait=False, kill_workers=True)


def quench(system: System, x: Tensor, tolerance: float, max_steps: int) -> Minimum:
    """A part of ``Crew.quench``."""
    return minimise(x, system.energy, tolerance=tolerance, max_steps=max_steps)


def _begin(parent: int) -> None:
    begin_worker(parent)
    torch.set_num_threads(1)


def _there(task: Callable[..., Part], given: dict, part: tuple) -> tuple[Part, Count]:
    system = _system(tuple(sorted((k, v) for k, v in given.items() if k in _DECIDE)))
    with system.energy.stage("crew"):
        system.energy.counts["crew"] = Count()
        result = task(system, *part)
    return result, system.energy.counts["crew"]


_DECIDE = ("smiles", "temperature", "energy", "solvent", "seed")


@lru_cache(maxsize=4)
def _system(settings: tuple) -> System:
    return build_system(ConformersConfig(**dict(settings)))[0]
