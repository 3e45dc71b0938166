"""One line for the whole of `orbitwise conformers`: which stage runs, and when all of it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.text import Text

from orbitwise.training import Progress, ProgressBar

Show = Callable[[Progress], None]

NAMES = {
    "plan": "planning",
    "search": "search",
    "learn": "learning",
    "weigh": "weighing",
    "draw": "drawing",
    "relax": "relaxing",
    "judge": "counting conformers",
}
SHARES = {"learn": 0.7, "weigh": 0.1, "draw": 0.08, "relax": 0.12}  # of the learner's time
PARTS = 4  # lines a stage may leave in a file
BAR = 24  # characters


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
    def of(whole: float, search: float, learn: float) -> Overall:
        """For a run of ``whole`` seconds, ``search`` and ``learn`` (0: no diffusion model) of them
        for these parts."""
        learner = {name: share * learn for name, share in SHARES.items() if learn}
        rest = whole - search - learn
        return Overall({"plan": 1.0, "search": search, **learner, "judge": rest})

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
        when = f"{clock(left)} left"
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


def clock(seconds: float) -> str:
    """``1:40``, ``2:03:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
