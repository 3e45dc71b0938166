"""The time of a run: what is left of its budget, and the rate of a stage on its progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from orbitwise.training import Progress

END = 6.0  # processor seconds that writing the report takes
QUENCH = 2e-5  # processor seconds for a frame and an atom (and ten more) to be quenched and counted


@dataclass
class Budget:
    """Wall clock of a run in seconds, ``whole``, of which a first stage gets ``share``; ``begin``
    by ``time.monotonic``. ``slowness``: wall clock per processor second, as last seen: a busy
    machine needs more of it for the end, too."""

    whole: float
    share: float = 1.0
    slowness: float = 1.0
    begin: float = field(default_factory=time.monotonic)

    def seen(self, wall: float, processor: float) -> None:
        """How long some work took."""
        self.slowness = max(1.0, wall / max(processor, 1e-3)) if wall > 0.05 else self.slowness

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.begin

    def for_stage(self, quenched: int, atoms: int) -> float:
        """Seconds of the first stage, from the begin on, so that the end has its time:
        ``quenched`` structures of so many ``atoms`` are counted, and there is a report."""
        end = self.slowness * (END + QUENCH * quenched * (atoms + 10))
        return self.share * (self.whole - min(end, 0.6 * self.whole))

    def left(self, part: float) -> float:
        """A ``part`` of what is left before the report, in seconds."""
        return max(0.0, part * (self.whole - self.elapsed - self.slowness * END))


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
