"""An ending signal (Ctrl-C, SIGTERM, SIGHUP) between two steps, never inside one."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from orbitwise.signals import Handler, heeded


class Deferred:
    """The signal that came meanwhile: ``number``, 0 for none."""

    def __init__(self, handlers: dict[int, Handler]) -> None:
        self.number = 0
        self._handlers = handlers

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler: the first is remembered, a second one is for those who want out at once."""
        if self.number:
            self.deliver(number)
        self.number = number

    def deliver(self, number: int) -> NoReturn:
        """What would have happened when it came: never returns."""
        handler = self._handlers.get(number, signal.default_int_handler)
        if callable(handler):
            handler(number, None)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)  # by default the process ends, here by way of its `finally`


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Deferred]:
    """Hold ending signals back until the step is done; a second one breaks in at once. Those that
    are ignored stay so. Main thread only."""
    handlers = heeded()
    deferred = Deferred(handlers)
    for number in handlers:
        signal.signal(number, deferred.note)
    try:
        yield deferred
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
