"""Rate and time left of a stage, on its progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable

from orbitwise.training import Progress


class Clock:
    """Calls a progress bar with the rate and the time left."""

    def __init__(self, show: Callable[[Progress], None], steps: int):
        self.show, self.steps, self.begin, self.shown = show, steps, time.monotonic(), 0.0

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self.shown > 0.2 or done >= self.steps:
            self.shown = now
            rate = done / max(now - self.begin, 1e-9)
            self.show(
                Progress(
                    done, self.steps, rate=rate, seconds_left=(self.steps - done) / max(rate, 1e-9)
                )
            )
