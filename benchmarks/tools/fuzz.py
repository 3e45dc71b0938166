"""Damage small sound files of every format at random and read them.

    python -m benchmarks.tools.fuzz                              # 100,000 cases
    python -m benchmarks.tools.fuzz --cases 5000 --only '*.npz' --show

Case k is a function of ``seed`` and k. Workers with bounded memory and time try them; a worker that
dies or stands still is a fault of its case. Writes ``fuzz.cases``, ``fuzz.tracebacks``,
``fuzz.hangs`` and ``fuzz.nonsense``; each fault is told once for each place in the code.
"""

from __future__ import annotations

import fnmatch
import multiprocessing
import re
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.rows import Row, write_rows
from tests.contracts.fuzzing.mutations import mutated
from tests.contracts.fuzzing.outcome import (
    HANG,
    NONSENSE,
    READ,
    REFUSED,
    SECONDS,
    TRACEBACK,
    outcome,
)
from tests.contracts.fuzzing.readers import READERS, Reader

GIGABYTES = 8


def work(numbers: Sequence[int], readers: Sequence[Reader], seed: int, say: Connection) -> None:
    """Try cases in a process of its own, telling each before and after."""
    import torch

    torch.set_num_threads(1)
    limit = GIGABYTES * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with tempfile.TemporaryDirectory() as folder:
        sound: dict[str, bytes] = {}
        for reader in readers:
            path = Path(folder) / reader.name
            reader.sound(path)
            sound[reader.name] = path.read_bytes()
        for number in numbers:
            reader = readers[number % len(readers)]
            say.send((number, None, ""))
            path = Path(folder) / reader.name
            damaged = mutated(
                sound[reader.name], reader.suffix, np.random.default_rng([seed, number])
            )
            path.write_bytes(damaged)
            kind, why = outcome(reader.read, path)
            say.send((number, kind, "" if kind in (READ, REFUSED) else why))


def place_of(why: str) -> str:
    """The last line of a traceback with where it was raised: what is one fault."""
    found = re.findall(r'File "[^"]*?([^/"]+)", line (\d+)', why)
    last = why.strip().splitlines()[-1] if why.strip() else ""
    ours = re.findall(r'File "[^"]*?/orbitwise/([^"]+)", line (\d+)', why)
    where = ours[-1] if ours else found[-1] if found else ("", "")
    return f"{' '.join(where)} {last}"[:160]


class Worker:
    """One process after another on a share of the cases."""

    def __init__(self, numbers: Sequence[int], readers: Sequence[Reader], seed: int) -> None:
        self.numbers, self.readers, self.seed = numbers, readers, seed
        self.done = 0
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.hear, say = context.Pipe(duplex=False)
        rest = self.numbers[self.done :]
        given = (rest, self.readers, self.seed, say)
        self.process = context.Process(target=work, args=given, daemon=True)
        self.process.start()
        say.close()
        self.since = time.monotonic()

    def results(self) -> Iterator[tuple[int, str, str]]:
        """What has come in: the case, its outcome, and what to know about it."""
        try:
            while self.hear.poll(0.02):
                number, kind, why = self.hear.recv()
                self.since = time.monotonic()
                if kind is not None:
                    self.done += 1
                    yield number, kind, why
            if time.monotonic() - self.since > 6 * SECONDS:
                self.process.kill()
                yield self._lost(HANG, f"stood still for {6 * SECONDS} s")
        except EOFError:
            self.process.join()
            if self.done < len(self.numbers):
                code = self.process.exitcode
                yield self._lost(TRACEBACK, f"the process died with code {code}")

    def _lost(self, kind: str, why: str) -> tuple[int, str, str]:
        """The case that ended its process; another process goes on behind it."""
        self.process.join()
        self.done += 1
        number = self.numbers[self.done - 1]
        if self.done < len(self.numbers):
            self.start()
        return number, kind, why


def main(
    *, cases: int = 100_000, seed: int = 0, workers: int = 2, only: str = "*", show: bool = False
) -> None:
    """``only``: readers whose file names match; ``show``: whole tracebacks."""
    readers = [r for r in READERS if fnmatch.fnmatch(r.name, only)]
    begin = time.perf_counter()
    counts: Counter[str] = Counter()
    faults: Counter[tuple[str, str]] = Counter()

    def fault(number: int, kind: str, why: str) -> None:
        name, place = readers[number % len(readers)].name, place_of(why)
        faults[name, place.partition(":")[0]] += 1
        if faults[name, place.partition(":")[0]] == 1:
            print(f"{kind}  {name}, case {number}: {why if show else place}", flush=True)

    team = [Worker(range(k, cases, workers), readers, seed) for k in range(workers)]
    while any(worker.done < len(worker.numbers) for worker in team):
        for worker in team:
            for number, kind, why in worker.results():
                counts[kind] += 1
                if kind not in (READ, REFUSED):
                    fault(number, kind, why)

    seconds = time.perf_counter() - begin
    total = sum(counts.values())
    print(f"{total} cases of {len(readers)} readers in {seconds:.0f} s: {dict(counts)}")
    print(f"{len(faults)} different faults")
    if only == "*":
        note = f"{len(readers)} readers; {counts[READ]} files read, {counts[REFUSED]} refused"
        rows = {"tracebacks": TRACEBACK, "hangs": HANG, "nonsense": NONSENSE}
        write_rows(
            "library",
            [
                Row("fuzz.cases", total, goal="100000", seeds=[seed], seconds=seconds, note=note),
                *(
                    Row(f"fuzz.{name}", counts[kind], goal="0", seeds=[seed], seconds=seconds)
                    for name, kind in rows.items()
                ),
            ],
        )


if __name__ == "__main__":
    benchmark(main, quick={"cases": 200})
