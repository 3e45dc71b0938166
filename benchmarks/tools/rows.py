"""Write benchmark rows: one JSON list per results file, one row per measured figure.

A row is written by its command only; a row with the same ``what`` is replaced.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.tools.places import ROOT, kept

RESULTS = ROOT / "benchmarks" / "results"


@dataclass
class Row:
    """One measured figure. ``error`` is one standard error where it has one; ``goal`` is what was
    to be reached."""

    what: str
    value: float
    error: float | None = None
    goal: str | None = None
    seeds: list[int] = field(default_factory=list)
    energy_calls: int = 0
    seconds: float | None = None
    device: str = ""
    commit: str = ""
    command: str = ""
    note: str | None = None


def device_name() -> str:
    """The processor this ran on, with the number of threads torch used."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":")[1].strip()
            for line in info.read_text().splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def commit_id() -> str:
    """The commit the figures belong to, with ``+`` where tracked source differs from it."""

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *args], capture_output=True, text=True
        ).stdout.strip()

    dirty = git("status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks/*.py")
    return git("rev-parse", "--short", "HEAD") + ("+" if dirty else "")


def command_line() -> str:
    """The command that is running, with ``FOLDER`` for a path of this machine."""
    spec = sys.modules["__main__"].__spec__
    script = ["-m", spec.name] if spec else [Path(sys.argv[0]).name]
    words = ["FOLDER" if os.path.isabs(word) else word for word in sys.argv[1:]]
    return shlex.join(["python", *script, *words])


def read_rows() -> list[dict]:
    """Every committed row."""
    return [row for path in sorted(RESULTS.glob("*.json")) for row in json.loads(path.read_text())]


def write_rows(subject: str, rows: list[Row]) -> None:
    """Merge rows into ``results/SUBJECT.json`` (atomically) and print them."""
    path = kept("benchmarks/results") / f"{subject}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    old = {row["what"]: row for row in json.loads(path.read_text())} if path.exists() else {}
    command = command_line()
    for row in rows:
        if not math.isfinite(row.value):
            print(f"{row.what} could not be told: not written")
            continue
        row.device = row.device or device_name()
        row.commit = row.commit or commit_id()
        row.command = row.command or command
        old[row.what] = asdict(row)
        error = "" if row.error is None else f" ± {row.error:.2g}"
        print(
            f"{row.what:58s} {row.value:.6g}{error}" + (f"   goal {row.goal}" if row.goal else "")
        )
    for row in old.values():  # an error that could not be told is none: JSON knows no NaN
        row["error"] = row["error"] if row["error"] is None or math.isfinite(row["error"]) else None
    text = json.dumps([old[key] for key in sorted(old)], indent=1, allow_nan=False)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text + "\n")
    os.replace(temporary, path)
