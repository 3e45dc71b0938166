"""`orbitwise conformers` of many molecules: in parallel, resumable, with one table."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from orbitwise.data.folder import writable_folder
from orbitwise.errors import InputError
from orbitwise.methods.conformers.many.compute import Compute, begin, compute, cores, here
from orbitwise.methods.conformers.many.jobs import Job, Row, jobs_of
from orbitwise.methods.conformers.many.progress import Overall
from orbitwise.methods.conformers.many.table import write_tables
from orbitwise.molecules.files.entry import Entry
from orbitwise.runs import job as jobs_here
from orbitwise.runs.folder import works_in
from orbitwise.runs.outcome import Outcome

NOT_ALL_GOOD = 3  # exit code
# Sleeping threads leave the cores to the other processes.
ALONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
BETWEEN = 2.0  # seconds between two writes of the table
DIED = "its process ended without a word, for want of memory perhaps; give --jobs a smaller number"


@works_in("out", lambda **_: jobs_here.Job("conformers of a list"))
def run_many(
    entries: Sequence[Entry],
    options: Mapping[str, Any],
    out: Path | str,
    jobs: int | None = None,
    *,
    run: Compute | None = None,
    command: str = "",
) -> Outcome:
    """The ensembles of ``entries``, one folder each in ``out``, ``summary.csv`` and ``index.html``.

    ``options``: fields of ``ConformersConfig`` without ``smiles`` and ``out``; of ``budget`` every
    molecule has as much. ``jobs`` processes compute one molecule each (as many as there are cores
    where None). Molecules that an earlier call finished are not computed again, however the list
    has changed. A molecule that fails is a row with its error. The outcome's ``result`` are the
    rows; its exit code is 3 unless all have converged. Raises ``InputError`` for an empty list,
    options that are none, and a folder that cannot be used. ``run`` computes one molecule.
    """
    if not entries:
        raise InputError("the list holds no molecule")
    if options.get("reference") is not None:
        raise InputError("a reference is of one molecule; leave --reference out for a list")
    if jobs is not None and jobs < 1:
        raise InputError(f"{jobs} jobs compute nothing; give 1 or more")
    out = writable_folder(out)
    rows, todo = jobs_of(entries, {"processes": 1, **options}, out)

    open_jobs = []
    for job in todo:
        kept = job.kept()
        if kept is None:
            open_jobs.append(job)
        else:
            _enter(rows, job, kept)
    count = min(jobs or cores(), max(len(open_jobs), 1))
    write_tables(out, rows, command)

    overall = Overall(len(todo), len(todo) - len(open_jobs), count, 60 * _budget(todo))
    written = time.monotonic()
    try:
        with overall, closing(_computed(open_jobs, count, run, overall)) as results:
            for job, row in results:
                _enter(rows, job, row)
                overall.finished(row)
                if time.monotonic() - written > BETWEEN:
                    write_tables(out, rows, command)
                    written = time.monotonic()
    except KeyboardInterrupt:
        done = sum(row.state != "waiting" for row in rows)
        print(
            f"{done} of {len(rows)} molecules are done ({here(out / 'index.html')}); the same"
            " command goes on with the others",
            file=sys.stderr,
        )
        raise
    finally:
        write_tables(out, rows, command)
    return Outcome(out, rows, lines(out, rows), _code(rows))


def _budget(todo: Sequence[Job]) -> float:
    return todo[0].config.budget if todo else 0.0


def _enter(rows: list[Row], job: Job, row: Row) -> None:
    """The result of a molecule into every row that asks for it, each under its own name."""
    for k in job.rows:
        rows[k] = replace(row, name=rows[k].name)


def _code(rows: Sequence[Row]) -> int:
    return 0 if all(row.state == "converged" for row in rows) else NOT_ALL_GOOD


def lines(out: Path, rows: Sequence[Row]) -> tuple[str, ...]:
    """What the terminal says at the end."""
    count = Counter(row.state for row in rows)
    text = [f"{count['converged']} of {len(rows)} molecules converged"]
    for state in ("not converged", "failed"):
        for row in rows:
            if row.state == state:
                text.append(f"{state}: {row.name}: {row.problem}")
    if count["not converged"]:
        text.append("give it more time with --budget: what has converged is not computed again")
    return (*text, f"table: {out / 'summary.csv'}", f"report: {out / 'index.html'}")


def _computed(
    todo: Sequence[Job], count: int, run: Compute | None, overall: Overall
) -> Iterator[tuple[Job, Row]]:
    """Jobs with their rows, as they end. Where a process dies, those that were in work are tried
    again one at a time, so that only the one at fault fails."""
    from loky import wait
    from loky.process_executor import BrokenProcessPool

    waiting, suspects = deque(todo), deque[Job]()
    while waiting or suspects:
        alone = not waiting
        queue, width = (suspects, 1) if alone else (waiting, count)
        running: dict[Any, Job] = {}
        executor = _executor(width)
        try:
            while queue or running:
                while queue and len(running) < width:
                    job = queue[0]
                    running[executor.submit(compute, job, run)] = job
                    queue.popleft()  # not before: a pool may break while it takes a job
                    overall.started(job)
                for future in wait(running, timeout=0.5, return_when="FIRST_COMPLETED").done:
                    job = running[future]
                    row = future.result()  # raises where a process died
                    del running[future]
                    yield job, row
                overall.show()
        except BrokenProcessPool:
            if alone:
                for job in running.values():
                    yield job, replace(job.row, state="failed", problem=DIED)
            else:
                suspects.extend(running.values())
        finally:
            executor.shutdown(wait=False, kill_workers=True)


def _executor(count: int) -> Any:
    from loky import ProcessPoolExecutor

    return ProcessPoolExecutor(
        max_workers=count, timeout=600, initializer=begin, initargs=(os.getpid(),), env=ALONE
    )
