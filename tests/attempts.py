"""Commands in processes of their own that are killed at a chosen moment.

One interpreter imports what commands need and forks a child for each attempt: it begins as a fresh
process would, without paying for the imports again.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Any

DRIVER = """
import json, os, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import lightning_fabric, torch.utils.tensorboard
import orbitwise.training, orbitwise.runs.config
from orbitwise.cli.app import main
# what a job in the background, and nohup, have told to ignore
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

def come(pattern, count):
    folder, pattern = pattern
    found = list(Path(folder).glob(pattern))
    if pattern.endswith("l"):  # lines
        return sum(path.read_bytes().count(b"\\n") for path in found) >= count
    return len(found) >= count

for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        for number in asked["ignored"]:
            signal.signal(number, signal.SIG_IGN)
        code = 70
        try:
            with open(asked["out"], "wb") as out:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
            os.chdir(asked["cwd"])
            code = main(asked["arguments"])
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    ended, status, begin = 0, 0, time.monotonic()
    killed = asked["signal"] == 0
    while not ended:
        if not killed and come(asked["pattern"], asked["count"]):
            os.kill(child, asked["signal"])
            killed = True
        if time.monotonic() - begin > 120:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
        ended, status = os.waitpid(child, os.WNOHANG)
    print(json.dumps({"code": os.waitstatus_to_exitcode(status), "sent": killed}), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How an attempt ended: exit ``code`` (minus the number of a signal), what it ``said``, and
    whether the signal was sent before."""

    code: int
    said: str
    sent: bool


@dataclass(frozen=True)
class Attempts:
    """Run commands of ``orbitwise`` in ``folder``."""

    process: subprocess.Popen[str]
    folder: Path

    def run(
        self,
        *arguments: Any,
        when: tuple[str, int] | None = None,
        signal: int = SIGKILL,
        ignored: Sequence[int] = (),
    ) -> Ended:
        """One attempt; ``when``: the moment at which it gets ``signal``, as soon as so many files
        match a pattern (or have so many lines, where it ends with an l as in ``*.jsonl``)."""
        pattern, count = when or ("", 0)
        out = self.folder / ".said"
        asked = {
            "arguments": [str(a) for a in arguments],
            "cwd": str(self.folder),
            "out": str(out),
            "ignored": [int(n) for n in ignored],
            "signal": int(signal) if when else 0,
            "pattern": (str(self.folder), pattern),
            "count": count,
        }
        out.unlink(missing_ok=True)
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        told = json.loads(self.process.stdout.readline())
        return Ended(
            told["code"],
            out.read_text(errors="replace") if out.exists() else "",
            told["sent"] and bool(when),
        )


@contextlib.contextmanager
def attempts(folder: Path) -> Iterator[Attempts]:
    """For the tests of one file."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield Attempts(process, folder)
        assert process.stdin is not None
        process.stdin.close()
