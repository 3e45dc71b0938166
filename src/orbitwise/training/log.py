"""Where the numbers of a run go: ``metrics.jsonl`` and TensorBoard, in the run's folder."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from orbitwise.data.folder import replacing
from orbitwise.data.record import grows
from orbitwise.errors import OrbitwiseError

NAME = "metrics.jsonl"


@dataclass(frozen=True)
class Metrics:
    """One row of the log. ``loss`` and ``grad_norm`` are means since the last row (finite steps
    only)."""

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    steps_per_second: float
    seconds: float
    skipped: int


class MetricLog:
    """Appends rows; rows after ``step`` (left by a run that was killed and now resumes there) are
    dropped.

    Raises ``OrbitwiseError`` naming the file where it cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / NAME
        with _named(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                kept = [
                    line
                    for line in self._path.read_text(errors="replace").splitlines()
                    if _step_of(line) <= step
                ]
                with replacing(self._path, grows=True) as temporary:
                    temporary.write_text("".join(line + "\n" for line in kept))
            grows(self._path)
            self._file = open(self._path, "a", buffering=1)  # noqa: SIM115 (closed by __exit__)
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._board.close()

    def write(self, metrics: Metrics) -> None:
        """Append a row; numbers that are not finite become ``null`` in the file."""
        row = asdict(metrics)
        with _named(self._path):
            self._file.write(
                json.dumps({k: v if math.isfinite(v) else None for k, v in row.items()}) + "\n"
            )
        step = row.pop("step")
        for name, value in row.items():
            self._board.add_scalar(f"train/{name}", value, step)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OrbitwiseError(
            f"cannot write the log {path}: {error.strerror or error}. Free space or choose another"
            " output folder."
        ) from error


def _step_of(line: str) -> float:
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf  # a line cut short by a kill, or what a disk left after one
    return step if isinstance(step, int) else math.inf
