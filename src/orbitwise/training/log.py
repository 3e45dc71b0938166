"""Where the numbers of a run go: ``metrics.jsonl`` and TensorBoard, in the run's folder."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

NAME = "metrics.jsonl"


@dataclass(frozen=True)
class Metrics:
    """One row of the log. ``loss`` and ``grad_norm`` are means since the last row (finite steps only)."""

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    steps_per_second: float
    seconds: float
    skipped: int


class MetricLog:
    """Appends rows; rows after ``step`` (left by a run that was killed and now resumes there) are dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / NAME
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            temporary = path.with_suffix(".tmp")
            temporary.write_text("".join(line + "\n" for line in kept))
            os.replace(temporary, path)
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 (closed by __exit__)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()

    def write(self, metrics: Metrics) -> None:
        row = asdict(metrics)
        self._file.write(json.dumps(row) + "\n")
        step = row.pop("step")
        for name, value in row.items():
            self._board.add_scalar(f"train/{name}", value, step)


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut short by a kill
