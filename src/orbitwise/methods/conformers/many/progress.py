"""One line for the whole list: how many are done, and when the rest will be."""

from __future__ import annotations

import heapq
import time
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

from rich.console import Console

from orbitwise.methods.conformers.many.jobs import Job, Row
from orbitwise.report.numbers import duration, with_error


class Overall:
    """Shows a line that is kept up to date on a terminal, and a line for each finished molecule
    everywhere. ``budget``: seconds that a molecule may take."""

    def __init__(
        self, total: int, kept: int, width: int, budget: float, console: Console | None = None
    ) -> None:
        self.total, self.kept, self.width, self.budget = total, kept, width, budget
        self.console = console or Console(stderr=True)
        self.begun: dict[str, float] = {}
        self.took: list[float] = []
        self.states: list[str] = []
        self._status: Any = None

    def __enter__(self) -> Overall:
        if self.kept:
            self._say(f"{self.kept} of {self.total} molecules were done before")
        if self.console.is_terminal and self.kept < self.total:
            self._status = self.console.status(self.line(), spinner="dots")
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def started(self, job: Job) -> None:
        self.begun[job.row.folder] = time.monotonic()

    def finished(self, row: Row) -> None:
        """Say what came out of a molecule."""
        start = self.begun.pop(row.folder, time.monotonic())
        if row.conformers is not None:  # what fails at once says nothing about the others
            self.took.append(time.monotonic() - start)
        self.states.append(row.state)
        done = self.kept + len(self.states)
        what = f"[{done}/{self.total}] {row.name}: "
        if row.conformers is None:
            what += f"{row.state}: {row.problem}"
        else:
            share = with_error(row.population, row.population_error, 100.0)
            plural = "s" if row.conformers > 1 else ""
            what += f"{row.conformers} conformer{plural}, most populated {share} %, {row.state}"
        if self._status is None and done < self.total:
            what += f"; {self.ahead()}"
        self._say(what)

    def show(self) -> None:
        if self._status is not None:
            self._status.update(self.line())

    def line(self) -> str:
        """``12 of 40 done (1 failed), 4 running · about 25 min left, until 14:32``."""
        words = f"{self.kept + len(self.states)} of {self.total} done"
        wrong = [
            f"{self.states.count(state)} {state}"
            for state in ("not converged", "failed")
            if state in self.states
        ]
        words += f" ({', '.join(wrong)})" if wrong else ""
        return f"{words}, {len(self.begun)} running · {self.ahead()}"

    def ahead(self) -> str:
        left = self.seconds_left()
        if left < 1:
            return "nearly done"
        end = datetime.now() + timedelta(seconds=left)
        day = "" if end.date() == datetime.now().date() else f"{end:%a %d %b} "
        about = "about" if self.took else "at most about"
        return f"{about} {duration(max(left, 10.0))} left, until {day}{end:%H:%M}"

    def seconds_left(self) -> float:
        """By the mean of those that are finished, else by the budget; each process takes the next
        molecule when it is free."""
        mean = sum(self.took) / len(self.took) if self.took else self.budget
        now = time.monotonic()
        # what runs longer than the mean is likely to take the budget
        running = [
            mean - (now - start) if now - start < mean else max(self.budget - (now - start), 0.0)
            for start in self.begun.values()
        ]
        waiting = self.total - self.kept - len(self.states) - len(self.begun)
        free = running + [0.0] * max(self.width - len(running), 0)
        heapq.heapify(free)
        for _ in range(waiting):
            heapq.heappush(free, heapq.heappop(free) + mean)
        return max(free, default=0.0) if waiting or running else 0.0

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
