"""From a budget in minutes to numbers of steps, by measuring what a step costs here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.data.batch import PointBatch
from orbitwise.methods.conformers.learner import build_learner
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.methods.conformers.weights import network_evaluations
from orbitwise.molecules.molecule import embed, to_batch
from orbitwise.molecules.symmetry import symmetry
from orbitwise.objectives.denoiser import Denoiser
from orbitwise.objectives.denoising import Denoising
from orbitwise.runs.stages import Pipeline, Stage, Step
from orbitwise.training import TrainConfig, estimate_step_seconds

OVERHEAD = 1.3  # a kernel's own arithmetic on top of its energy calls


def plan_effort(system: System, budget_minutes: float, n: int, seed: int) -> Effort:
    """Share the budget for ``n`` samples out: a fifth of it searches, an eighth relaxes, a tenth
    weighs, most of the rest learns and draws."""
    rungs, chains, leapfrog, batch_size, denoise_steps = system.rungs(), 16, 8, 64, 12
    x = torch.as_tensor(embed(system.mol, 1, seed), device=system.device, dtype=system.dtype)
    x = x.expand(rungs * chains, -1, -1)

    with system.energy.stage("planning"):
        one = seconds_of(lambda: system.energy.value_and_grad(x[:1]))
        # a calculator without batches: do not ask it for a whole batch
        slow = one * rungs * chains > 2.0
        many = one * rungs * chains if slow else seconds_of(lambda: system.energy.value_and_grad(x))

    budget = 60.0 * budget_minutes
    steps = 0.2 * budget / (OVERHEAD * many * (leapfrog + 1))
    # a slow energy: fewer chains rather than chains that go nowhere
    while steps < 400 and chains > 2:
        chains, steps = chains // 2, steps * 2
    relax = 0.12 * budget / (OVERHEAD * many / x.shape[0] * (leapfrog + 1) * n)

    step = Probe.of(system, x[:batch_size].cpu()).train_seconds(batch_size)
    evaluation = step / (3 * batch_size)  # a step is some three forward passes
    drawing = n * (2 * denoise_steps - 1) * evaluation
    paths = int(0.1 * budget / evaluation / network_evaluations(1000) * 1000)
    affordable = 0.05 * budget / (many / x.shape[0])  # a slow energy: few paths

    return Effort(
        chains=chains,
        rungs=rungs,
        leapfrog=leapfrog,
        search_steps=rounded(steps, 40, 40_000),
        train_steps=rounded(max(0.25 * budget, 0.53 * budget - drawing) / step, 50, 20_000),
        batch_size=batch_size,
        denoise_steps=denoise_steps,
        relax_steps=rounded(relax, 4, 400),
        weigh_paths=rounded(min(max(paths, 200), affordable), 20, 2000),
    )


@dataclass(frozen=True)
class PlanEffort(Step[Effort]):
    """The effort as a stage: ``effort`` where it is given, else what ``budget`` decides. Later
    stages depend on the effort, whatever budget it came from."""

    system: System
    budget: float
    n: int
    seed: int
    effort: Effort | None = None

    name, makes = "plan", Effort

    @property
    def key(self) -> dict:
        return {"budget": self.budget}

    def settles(self, result: Effort) -> dict:
        return {"effort": result.model_dump(), "budget": None}

    def make(self, pipe: Pipeline | None = None) -> Effort:
        return self.effort or plan_effort(self.system, self.budget, self.n, self.seed)

    def keep(self, result: Effort) -> Stage:
        return Stage({}, {"effort": result.model_dump()})

    def restore(self, stage: Stage, pipe: Pipeline) -> Effort:
        return Effort(**stage.info["effort"])


def seconds_of(call: Callable[[], object]) -> float:
    """Median of three calls after a first one, a single one where that is slow."""
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
        if times[0] > 1.0:
            return times[0]
    return sorted(times[1:])[1]


def rounded(value: float, low: int, high: int) -> int:
    """Two significant digits, so that small differences in speed plan the same work."""
    value = max(value, 1.0)
    digit = 10 ** max(0, int(math.log10(value)) - 1)
    return int(min(max(digit * round(value / digit), low), high))


@dataclass(frozen=True)
class Probe:
    """An untrained learner on some frames, to measure what a step costs."""

    learner: Denoiser
    objective: Denoising
    batch: PointBatch

    @staticmethod
    def of(system: System, x: Tensor) -> Probe:
        batch = to_batch(system.mol, x, dtype=torch.float32)
        learner, objective = build_learner(batch, symmetry(system.mol, x[0]), 0)
        return Probe(learner, objective, batch)

    def train_seconds(self, batch_size: int) -> float:
        config = TrainConfig(steps=10, batch_size=batch_size)
        return estimate_step_seconds(self.learner, self.objective, self.batch, config, steps=3)
