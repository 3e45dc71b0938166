"""One process in a folder at a time."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from orbitwise.data.record import OWN
from orbitwise.errors import InputError

LOCK, HOLDER = "lock", "holder.json"

_held: dict[Path, int] = {}  # folders of this process, with the thread that works in each


@contextlib.contextmanager
def alone_in(folder: str | Path) -> Iterator[None]:
    """The folder belongs to this process inside; the lock goes with the process, however it ends.

    A command that calls another one in its own folder goes on. Raises ``InputError``, at once,
    where another process (who, where, since when) works there, or the folder cannot be written.
    """
    folder = Path(folder).resolve()
    if _held.get(folder) == threading.get_ident():
        yield
        return
    own = folder / OWN
    try:
        own.mkdir(parents=True, exist_ok=True)
        lock = FileLock(own / LOCK)
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(
            f"{folder}: {_holder(own / HOLDER)} works there; wait for it or choose another folder"
        ) from None
    except OSError as error:
        raise InputError(
            f"cannot write to the folder {folder} ({error.strerror}); choose another with --out"
        ) from None
    except NotImplementedError:
        raise InputError(
            f"{folder} is on a file system without locks; choose a folder on another one"
        ) from None
    _held[folder] = threading.get_ident()
    try:
        _sign(own / HOLDER)
        yield
    finally:
        del _held[folder]
        with contextlib.suppress(OSError):
            (own / HOLDER).unlink(missing_ok=True)
        lock.release()


def _sign(path: Path) -> None:
    """Say who works here; a full disk is met by the work itself."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    told = {"pid": os.getpid(), "host": platform.node(), "since": since}
    with contextlib.suppress(OSError):
        path.write_text(json.dumps(told) + "\n", encoding="utf-8")


def _holder(path: Path) -> str:
    """Who holds a lock, in words."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return f"process {told['pid']} on {told['host']} (since {told['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun, or ends
        return "another process"
