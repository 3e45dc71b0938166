"""A pipeline of stages: computed once, kept with its cost, made again where a setting changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from orbitwise.energies.counted import Count
from orbitwise.runs.stages import Kept, Pipeline, Stage, Stages, Step


@dataclass(frozen=True)
class Points(Kept):
    x: torch.Tensor
    calls: int
    note: str = "none"

    kept_as: ClassVar = {"calls": "calls_on_disk"}


@dataclass(frozen=True)
class Draw(Step[Points]):
    size: int
    counts: dict[str, Count]

    name, makes = "draw", Points

    @property
    def key(self) -> dict:
        return {"size": self.size}

    def make(self, pipe: Pipeline) -> Points:
        self.counts.setdefault("drawing", Count(0, 0)).energy += self.size
        return Points(torch.arange(self.size), self.size)


@dataclass(frozen=True)
class Mean(Step[float]):
    """Needs what was drawn before it."""

    name, makes = "mean", float

    def make(self, pipe: Pipeline) -> float:
        return float(pipe[Points].x.double().mean())

    def keep(self, result: float) -> Stage:
        return Stage({"mean": torch.tensor(result)}, {})

    def restore(self, stage: Stage, pipe: Pipeline) -> float:
        return stage.tensors["mean"].item()


def run(folder, size: int) -> tuple[Pipeline, dict[str, Count]]:
    counts: dict[str, Count] = {"drawing": Count(0, 0)}
    pipe = Pipeline(folder, counts, {"version": 1})
    pipe.run((Draw(size, counts), Mean()))
    return pipe, counts


def test_finished_stages_are_reused_with_their_cost(tmp_path):
    first, counts = run(tmp_path, 5)
    again, told = run(tmp_path, 5)
    assert first.stages.reused == [] and again.stages.reused == ["draw", "mean"]
    assert again[Points].x.tolist() == [0, 1, 2, 3, 4] and again[Points].calls == 5
    assert again[float] == first[float] == 2.0
    assert counts["drawing"] == told["drawing"] == Count(5, 0)
    assert first.seconds == again.seconds


def test_a_changed_setting_makes_its_stage_and_later_ones_again(tmp_path):
    run(tmp_path, 5)
    changed, _ = run(tmp_path, 9)
    assert changed.stages.reused == [] and changed[float] == 4.0
    assert changed.key == {"version": 1, "size": 9}


def test_names_on_disk_and_fields_that_came_later(tmp_path):
    stages = Stages(tmp_path)
    stages.save("old", {}, {"x": torch.zeros(2)}, {"calls_on_disk": 3, "seconds": 0.0})
    assert Points.of(stages.load("old", {})).calls == 3
    assert Points.of(stages.load("old", {})).note == "none"
    kept = Points(torch.zeros(2), 3, "some").stage()
    assert kept.tensors.keys() == {"x"} and kept.info == {"calls_on_disk": 3, "note": "some"}


def test_a_stage_that_fails_leaves_nothing(tmp_path):
    class Broken(Mean):
        def make(self, pipe):
            raise RuntimeError

    pipe = Pipeline(tmp_path, {}, {})
    with pytest.raises(RuntimeError):
        pipe.take(Broken())
    assert list((tmp_path / "stages").iterdir()) == []
