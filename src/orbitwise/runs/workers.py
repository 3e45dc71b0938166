"""How a process that computes for a command begins: it leaves signals of the terminal to the
command, and does not outlive it."""

from __future__ import annotations

import os
import signal
import threading
import time

PATIENCE = 1.0  # seconds between two looks at the parent


def begin_worker(parent: int) -> None:
    """In a new process of the process ``parent``, before its work."""
    for name in ("SIGINT", "SIGHUP"):  # for the one who asked
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    end_with(parent)


def end_with(parent: int) -> None:
    """This process ends, in the middle of whatever it does, within seconds of its ``parent``."""
    threading.Thread(target=_watch, args=(parent,), daemon=True, name="end with parent").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:  # an orphan has another one
        time.sleep(PATIENCE)
    os._exit(1)
