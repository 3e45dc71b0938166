"""Crystal structure prediction on Perov-5 with and without a text.

    python -m benchmarks.quality.text_crystals [--forms none short long] [--seeds 0 1 2]
        [--steps 2500]

The same network, steps and seeds for each form of text, by the method's own commands; match rate
and RMSE of one guess for 1000 test structures, drawn anew for each seed; the models with texts also
without theirs. What is finished is kept in ``--work``: an interrupted command goes on. Reads
../shared/data/perov5.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import SHARED, kept
from benchmarks.tools.rows import Row, write_rows
from orbitwise.crystals.text.told import KEPT
from orbitwise.methods.crystals import text_crystals
from orbitwise.methods.crystals.evaluation import figures, matched
from orbitwise.methods.crystals.guesses import guess
from orbitwise.methods.crystals.model import load_model
from orbitwise.methods.crystals.structure import test_set
from orbitwise.runs.config import load
from orbitwise.training.checkpoint import NAME, read_checkpoint

DATA = SHARED / "perov5" / "perov5.npz"
SETTINGS: list[str] = []
NAMES = {"none": "without", "short": "with", "long": "with_long"}


@dataclass(frozen=True)
class Run:
    """Match rate and RMSE of one guess, and the same of the model without its text (None where it
    has none)."""

    match: float
    match_error: float
    rmse: float
    rmse_error: float
    silent_match: float | None
    silent_rmse: float | None
    parameters: int
    evaluations: int
    items: int
    seconds: float


def one(form: str, seed: int, steps: int, work: Path) -> Run:
    """Train, sample and match one model; the answer is kept."""
    folder = work / f"{form}-{seed}"
    kept, texts = folder / "answer.json", work / f"{form}.safetensors"
    given = [f"data={DATA}", f"prompt={form}", f"train.seed={seed}", f"train.steps={steps}"]
    config = load("text_crystals/perov5", [*given, *SETTINGS])
    if kept.is_file() and (old := json.loads(kept.read_text()))["steps"] == steps:
        return Run(**{k: v for k, v in old.items() if k != "steps"})
    folder.mkdir(parents=True, exist_ok=True)
    if texts.is_file() and not (folder / KEPT).is_file():  # seeds share their training texts
        shutil.copy(texts, folder / KEPT)
    if not (folder / NAME).is_file() or read_checkpoint(folder / NAME).step < steps:
        text_crystals.train(config, folder)
    trained = read_checkpoint(folder / NAME)
    text_crystals.sample(folder)
    told = text_crystals.evaluate(folder).result
    silent = None
    if form != "none":
        shutil.copy(folder / KEPT, texts)
        data, model = test_set(config), load_model(folder)
        found = guess(model, data.batch, 1, seed, folder / "silent")
        silent = figures(
            found, matched(found, data.crystals, config.workers, folder / "silent.npz"), None
        )
    answer = Run(
        told.match1.value,
        told.match1.error,
        told.rmse1.value,
        told.rmse1.error,
        None if silent is None else silent.match1.value,
        None if silent is None else silent.rmse1.value,
        sum(p.numel() for p in load_model(folder).denoiser.parameters()),
        told.evaluations,
        told.items,
        trained.seconds,
    )
    kept.write_text(json.dumps(vars(answer) | {"steps": steps}))
    return answer


def mean(values: list[float], errors: list[float]) -> tuple[float, float]:
    """Mean and standard error: the scatter of seeds, or that of the test structures where it is
    larger."""
    n = len(values)
    scatter = float(np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else 0.0
    return float(np.mean(values)), max(scatter, math.sqrt(sum(e * e for e in errors)) / n)


def rows(form: str, seeds: Sequence[int], steps: int, work: Path) -> list[Row]:
    begin = time.perf_counter()
    runs = [one(form, seed, steps, work) for seed in seeds]
    first, name = runs[0], NAMES[form]
    words = {
        "none": "no text",
        "short": "short texts",
        "long": "long texts, made from the structure to be found",
    }
    note = (
        f"{steps} steps of batch 128, CSPNet of {first.parameters:,} parameters,"
        f" {first.evaluations} network calls for a guess, {first.items} test structures for each"
        f" seed, {np.mean([r.seconds for r in runs]):.0f} s of training; {words[form]}"
    )
    errors = [r.match_error for r in runs], [r.rmse_error for r in runs]
    figure = {
        f"match1_{name}": mean([r.match for r in runs], errors[0]),
        f"rmse1_{name}": mean([r.rmse for r in runs], errors[1]),
    }
    if form != "none":
        figure[f"match1_{name}_left_out"] = mean([r.silent_match for r in runs], errors[0])
        figure[f"rmse1_{name}_left_out"] = mean([r.silent_rmse for r in runs], errors[1])
    seconds = time.perf_counter() - begin
    return [
        Row(f"perov5_text.{what}", value, error, seeds=list(seeds), seconds=seconds, note=note)
        for what, (value, error) in figure.items()
    ]


def main(
    *,
    forms: Sequence[Literal["none", "short", "long"]] = tuple(NAMES),
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 2500,
    work: Path | None = None,
) -> None:
    work = work or kept("runs/text_crystals")
    write_rows("crystals", [r for form in forms for r in rows(form, seeds, steps, work)])


if __name__ == "__main__":
    benchmark(
        main,
        needs=[DATA],
        quick={
            "SETTINGS": ["test_items=2", "workers=1", "splits=[val]"],
            "forms": ["short"],
            "seeds": [0],
            "steps": 2,
        },
    )
