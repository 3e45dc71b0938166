"""What every command does with the folder that it writes: one process, one job, and nobody else's
file replaced."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from orbitwise.data.folder import writable_folder
from orbitwise.data.record import OWN, Record, recorded
from orbitwise.errors import InputError
from orbitwise.ranks import follows
from orbitwise.runs.job import Job, job_in
from orbitwise.runs.lock import alone_in

P = ParamSpec("P")
R = TypeVar("R")


@contextlib.contextmanager
def working(folder: str | Path, job: Job | None = None) -> Iterator[Path]:
    """``folder`` inside the block is this command's alone, and what is written there is noted.

    Raises ``InputError`` where the folder cannot be written, another process works there, it
    belongs to another ``job``, or a file stands in the way that is nobody's we know. A folder that
    is new, and in which nothing was written, is gone afterwards.
    """
    folder = Path(folder)
    if _follows(job):  # the leading process has the folder
        yield writable_folder(folder)
        return
    made = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    folder = writable_folder(folder)
    bare = not (folder / OWN).exists()
    try:
        with alone_in(folder), recorded(folder) as record:
            if job is not None:
                job.check(folder)
                _refuse(record)
            if job is not None:
                job.begin(folder)
            yield folder
            if job is not None:
                job.end(folder)
    except BaseException:
        if bare:
            _clear(folder, made)
        raise


def works_in(
    name: str, job: Callable[..., Job] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: the function works in the folder that its argument ``name`` says. ``job`` makes
    of its arguments the job that the folder is for; without, it is an action on a run, and what is
    no run is left to the function."""

    def decorated(act: Callable[P, R]) -> Callable[P, R]:
        known = signature(act)

        @functools.wraps(act)
        def inside(*args: P.args, **kwargs: P.kwargs) -> R:
            given: dict[str, Any] = known.bind(*args, **kwargs).arguments
            folder = Path(given[name])
            if job is None and not (folder / "config.yaml").is_file():
                return act(*args, **kwargs)
            with working(folder, None if job is None else job(**given)):
                return act(*args, **kwargs)

        return inside

    return decorated


def training(config: Any, out: str | Path) -> Job:
    """The job of a training: its method. The checkpoint knows the settings."""
    from orbitwise.runs.registry import name_of

    return Job(f"train {name_of(config)}")


def _refuse(record: Record) -> None:
    """``InputError`` naming what would be replaced."""
    strangers = record.strangers()
    if strangers and not record.exists and not _of_earlier_version(record.folder):
        more = f" (and {len(strangers) - 1} more)" if len(strangers) > 1 else ""
        raise InputError(
            f"{strangers[0]}{more} was not written by this program and would be replaced; move it"
            " away or choose another folder with --out"
        )


def _of_earlier_version(folder: Path) -> bool:
    """Whether a command worked here that noted nothing: what it left is not told from others'
    files, which keep their content under another name."""
    if job_in(folder) is not None:
        return True
    with contextlib.suppress(OSError), open(folder / "checkpoint.safetensors", "rb") as file:
        return b'"orbitwise-checkpoint' in file.read(2**20)
    return False


def _clear(folder: Path, made: list[Path]) -> None:
    """Take back what was made of a folder in which nothing was written, and those above it."""
    record = Record(folder)
    if any(not name.startswith(f"{OWN}/") for name in record.names):
        return
    with contextlib.suppress(OSError):
        for path in (folder / OWN).iterdir():
            path.unlink()
        (folder / OWN).rmdir()
        for path in made:
            path.rmdir()


def _follows(job: Job | None) -> bool:
    """Whether this process shares a training with others and another one leads."""
    return job is not None and job.command.startswith("train") and follows()
