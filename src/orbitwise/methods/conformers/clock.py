"""The time of a run: what is left of its budget, the rate of a stage, and one line on a terminal
for all stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from orbitwise.training import Progress, ProgressBar

Show = Callable[[Progress], None]

END = 6.0  # processor seconds that writing the report takes
QUENCH = 3.5e-6  # processor seconds for a frame to be quenched and counted, times atoms squared
NAMES = {
    "plan": "planning",
    "search": "search",
    "learn": "learning",
    "weigh": "weighing",
    "draw": "drawing",
    "relax": "relaxing",
    "levels": "carrying to the better energy",
    "judge": "counting conformers",
}
SHARES = {"learn": 0.7, "weigh": 0.1, "draw": 0.08, "relax": 0.12}  # of the learner's time
PARTS = 4  # lines a stage may leave in a file
BAR = 24  # characters


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
        end = self.slowness * (END + QUENCH * quenched * atoms**2)
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


class Overall:
    """Shows the stages of a run as one: a line with a bar on a terminal, a few lines in a file.

    ``planned``: seconds that each stage is expected to take, in their order. A stage that says
    nothing of itself is believed to take these.
    """

    def __init__(self, planned: Mapping[str, float], console: Console | None = None) -> None:
        self.planned = dict(planned)
        self.console = console or Console(stderr=True)
        self.begin = self.entered = time.monotonic()
        self.name: str | None = None
        self._told: tuple[float, float] | None = None  # seconds left in the stage, and when
        self._part = -1
        self._live: Any = None
        self._token: Any = None

    @staticmethod
    def of(
        whole: float, share: float, between: Literal["diffusion", "levels"] | None = None
    ) -> Overall:
        """For a run of ``whole`` seconds, a ``share`` of them for the search and the rest for what
        comes ``between`` it and the end."""
        end = min(max(12.0, 0.1 * whole), 0.5 * whole)
        search = share * (whole - end)
        parts = {"diffusion": SHARES, "levels": {"levels": 1.0}, None: {}}[between]
        middle = {name: part * (whole - end - search) for name, part in parts.items()}
        return Overall({"plan": 1.0, "search": search, **middle, "judge": end})

    def __enter__(self) -> Overall:
        self._token = _running.set(self)
        if self.console.is_terminal:
            from rich.live import Live

            self._live = Live(
                get_renderable=lambda: Text(self.line()),
                console=self.console,
                refresh_per_second=2,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _running.reset(self._token)
        if self._live is not None:
            self._live.stop()

    @contextmanager
    def stage(self, name: str) -> Iterator[Show]:
        """One of the planned stages runs inside; it may report how far it is."""
        self.name, self.entered = name, time.monotonic()
        self._told, self._part = None, -1
        self._say(0)
        yield self._report

    def _report(self, report: Progress) -> None:
        if report.seconds_left is not None:
            self._told = report.seconds_left, time.monotonic()
        self._say(PARTS * report.step // max(report.steps, 1))

    def _say(self, part: int) -> None:
        if self._live is None and self._part < part < PARTS:
            self._part = part
            self.console.print(self.line(), highlight=False, markup=False, soft_wrap=True)

    def line(self) -> str:
        """``orbitwise: search (2 of 3)  ━━━━╌╌╌╌  1:40 left``; no bar in a file."""
        if self.name is None:
            return "orbitwise"
        names = list(self.planned)
        words = f"orbitwise: {NAMES[self.name]} ({names.index(self.name) + 1} of {len(names)})"
        left = self.seconds_left()
        late = time.monotonic() - self.entered - self.planned[self.name]
        when = f"{as_clock(left)} left"
        if left < 1:
            when = "longer than planned" if late > 2 and self._told is None else "nearly done"
        if self._live is None:
            return f"{words}, {when}"
        elapsed = time.monotonic() - self.begin
        done = round(BAR * elapsed / max(elapsed + left, 1e-9))
        return f"{words}  {'━' * done}{'╌' * (BAR - done)}  {when}"

    def seconds_left(self) -> float:
        """Of this stage by its own account, and of the later ones as planned."""
        now = time.monotonic()
        left = self.planned[self.name] - (now - self.entered) if self.name else 0.0
        if self._told is not None:
            seconds, when = self._told
            left = seconds - (now - when)
        names = list(self.planned)
        later = names[names.index(self.name) + 1 :] if self.name else names
        return max(left, 0.0) + sum(self.planned[name] for name in later)


_running: ContextVar[Overall | None] = ContextVar("running", default=None)


def shown(name: str) -> AbstractContextManager[Show]:
    """Shows a stage as a part of the run that is going on, or by a bar of its own where it is
    alone."""
    whole = _running.get()
    return ProgressBar(name) if whole is None else whole.stage(name)


def as_clock(seconds: float) -> str:
    """``1:40``, ``2:03:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
