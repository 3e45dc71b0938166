"""How a run shows itself: a bar on a terminal, a line per tenth in a file."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from rich.console import Console


@dataclass(frozen=True)
class Progress:
    """What a running training reports. ``loss``: mean since the last log row (None before the first
    step); ``rate``: steps per second; ``seconds_left`` is None until a rate is known."""

    step: int
    steps: int
    loss: float | None = None
    rate: float | None = None
    seconds_left: float | None = None


class ProgressBar:
    """Shows ``Progress`` reports: ``with ProgressBar("training") as show: show(report)``."""

    def __init__(self, description: str = "training", console: Console | None = None) -> None:
        self.description = description
        self.console = console or Console(stderr=True)
        self._bar = None
        self._tenth = -1

    def __enter__(self) -> ProgressBar:
        if self.console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Bar(*columns, TextColumn("{task.fields[numbers]}"), console=self.console)
            self._bar.start()
            self._task = self._bar.add_task(self.description, total=None, numbers="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, report: Progress) -> None:
        if self._bar is not None:
            self._bar.update(
                self._task, completed=report.step, total=report.steps, numbers=describe(report)
            )
        elif (tenth := 10 * report.step // max(report.steps, 1)) > self._tenth:
            self._tenth = tenth
            line = f"{self.description} {report.step}/{report.steps}  {describe(report)}"
            self.console.print(line.rstrip(), highlight=False, soft_wrap=True)


def describe(report: Progress) -> str:
    """``loss 0.123  45.6 steps/s  1:23 left``, leaving out what is not known."""
    parts = []
    if report.loss is not None:
        parts.append(f"loss {report.loss:.4g}")
    if report.rate is not None:
        parts.append(f"{report.rate:.3g} steps/s")
    if report.seconds_left is not None:
        minutes, seconds = divmod(round(report.seconds_left), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(parts)
