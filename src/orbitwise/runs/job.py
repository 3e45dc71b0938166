"""A folder belongs to one job: what it is, and whether another command is the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orbitwise.data.folder import replacing
from orbitwise.data.record import OWN
from orbitwise.errors import InputError

JOB = "job.json"


@dataclass(frozen=True)
class Job:
    """What a folder is for: a ``command``, and the settings ``of`` it that make it another job
    where they differ (JSON-able); ``at_least``: numbers of results, which may only grow."""

    command: str
    of: Mapping[str, Any] = field(default_factory=dict)
    at_least: Mapping[str, int] = field(default_factory=dict)

    def check(self, folder: Path) -> None:
        """Raise ``InputError``, saying what lies there, where ``folder`` belongs to another job or
        holds more than is asked for."""
        there = job_in(folder)
        if there is None:
            return
        if there.command != self.command:
            raise InputError(
                f"{folder} holds a job of '{there.command}'{_told(there.of)}, not of"
                f" '{self.command}'; choose another folder with --out"
            )
        mine, theirs = _plain(self.of), _plain(there.of)
        other = {k: theirs[k] for k in theirs if k in mine and theirs[k] != mine[k]}
        if other:
            now = ", ".join(f"{k} {mine[k]}" for k in other)
            raise InputError(
                f"{folder} holds another job ({_words(other)}; asked for: {now}); choose another"
                " folder with --out, or remove it"
            )
        fewer = {k: n for k, n in there.at_least.items() if self.at_least.get(k, n) < n}
        if fewer:
            now = ", ".join(f"{k} {self.at_least[k]}" for k in fewer)
            raise InputError(
                f"{folder} holds a larger result ({_words(fewer)}; asked for: {now}), which would"
                " be lost; choose another folder with --out, or remove it"
            )

    def begin(self, folder: Path) -> None:
        """Note that the folder is this job's; what there is of results stays as it was."""
        there = job_in(folder)
        if there is None or not (folder / OWN / JOB).is_file():
            _write(folder, Job(self.command, self.of, {} if there is None else there.at_least))

    def end(self, folder: Path) -> None:
        """Note the results that are there now."""
        if self.at_least:
            _write(folder, self)


def job_in(folder: Path) -> Job | None:
    """The job that a folder belongs to; None for one of no job. A folder of an earlier version is
    known by its ``config.yaml`` or its ``summary.json``."""
    try:
        told = json.loads((folder / OWN / JOB).read_text(encoding="utf-8"))
        return Job(str(told["command"]), dict(told["of"]), dict(told["at_least"]))
    except (OSError, ValueError, KeyError, TypeError):
        return _earlier(folder)


def _earlier(folder: Path) -> Job | None:
    if (folder / "config.yaml").is_file() and any(
        (folder / name).exists() for name in ("stages", "checkpoint.safetensors", "metrics.jsonl")
    ):
        with open(folder / "config.yaml", encoding="utf-8", errors="replace") as file:
            first = file.readline().strip()
        if first.startswith("method: "):
            method = first.removeprefix("method: ")
            return Job("conformers" if method == "conformers" else f"train {method}")
    try:
        told = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        if "ranked_by" in told and "versions" in told:
            settings = {k: told["config"][k] for k in ("formula", "seed") if k in told["config"]}
            return Job("crystals", settings, {"n": int(told["drawn"])})
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _write(folder: Path, job: Job) -> None:
    told = {"command": job.command, "of": _plain(job.of), "at_least": dict(job.at_least)}
    with replacing(folder / OWN / JOB, grows=True) as temporary:
        temporary.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As they come back from the disk."""
    return json.loads(json.dumps(dict(values), default=str))


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in values.items())


def _told(values: Mapping[str, Any]) -> str:
    return f" ({_words(values)})" if values else ""
