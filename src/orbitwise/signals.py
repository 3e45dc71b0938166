"""Signals that end a command: SIGTERM and SIGHUP do what Ctrl-C does, and what the one who started
it has told it to ignore (``nohup``, a job in the background) stays ignored."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# those that there are on this system
ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers

_came: list[int] = []  # since the command began


def ended_by() -> int:
    """The last signal that interrupted the command; SIGINT where none is known."""
    return _came[-1] if _came else signal.SIGINT


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Every ending signal raises ``KeyboardInterrupt`` inside, in the main thread."""
    _came.clear()
    before = heeded()
    for number in before:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def heeded() -> dict[int, Handler]:
    """The handlers of those ending signals that are not ignored; none outside of the main thread,
    where no handler can be set, nor those that were not set from Python."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in ENDING}
    return {n: h for n, h in handlers.items() if h is not signal.SIG_IGN and h is not None}


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """What a library sets of them inside (Ray does when it is imported) is taken back."""
    before = heeded()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    raise KeyboardInterrupt
