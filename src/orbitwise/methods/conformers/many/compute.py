"""One molecule of a list, in a process of its own: it always leaves a row."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orbitwise.errors import OrbitwiseError
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.many.jobs import Job, Row
from orbitwise.runs.outcome import Outcome
from orbitwise.runs.workers import begin_worker

Compute = Callable[[ConformersConfig], Outcome]
LOG = "log.txt"


def begin(parent: int) -> None:
    """Of a new process of ``parent``: one thread is enough."""
    begin_worker(parent)
    import torch

    torch.set_num_threads(1)


def compute(job: Job, run: Compute | None = None) -> Row:
    """The row of a molecule, whatever happens; what it says on the way goes to ``log.txt`` in its
    folder. ``run``: that of the command."""
    start = time.monotonic()
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        with (
            open(job.folder / LOG, "a", encoding="utf-8") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            try:
                if run is None:
                    from orbitwise.methods.conformers.command import run
                row = row_of(job.row, run(job.config))
            except Exception:
                traceback.print_exc()
                raise
    except OrbitwiseError as error:
        row = replace(job.row, state="failed", problem=str(error))
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        row = replace(job.row, state="failed", problem=f"{error.strerror or error}{place}")
    except Exception as error:
        said = " ".join(str(error).split())
        problem = f"unexpected {type(error).__name__}: {said} (see {LOG} in its folder)"
        row = replace(job.row, state="failed", problem=problem)
    row = replace(row, minutes=(time.monotonic() - start) / 60)
    with contextlib.suppress(OSError):  # a full disk: the row is still in the table
        job.keep(row)
    return row


def row_of(row: Row, outcome: Outcome) -> Row:
    """What the summary of a finished run says, in the table's columns."""
    told: Mapping[str, Any] = outcome.result
    shown = [c for c in told["conformers"] if c["population"] > 0] or told["conformers"]
    first = max(shown, key=lambda c: c["population"])
    good = outcome.exit_code == 0
    delivered = told.get("delivered", {})
    return replace(
        row,
        state="converged" if good else "not converged",
        problem="" if good else delivered.get("reason", f"exit code {outcome.exit_code}"),
        conformers=len(shown),
        population=first["population"],
        population_error=first["population_error"],
        energy_range_kcal_mol=max(c["minimum_energy_kcal_mol"] for c in shown),
        rhat=told["search"]["rhat"],
    )


def cores() -> int:
    """Cores that this process may use, limits of containers included."""
    import loky

    return loky.cpu_count()


def here(path: Path) -> str:
    """A path as a person would type it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
