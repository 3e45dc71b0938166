"""From a budget in minutes to numbers of steps, by measuring what a step costs here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.data.batch import PointBatch
from orbitwise.methods.conformers.clock import QUENCH, Budget
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.diffusion.learner import build_learner
from orbitwise.methods.conformers.diffusion.weights import network_evaluations
from orbitwise.methods.conformers.exchange.columns import begin
from orbitwise.methods.conformers.exchange.crew import Crew
from orbitwise.methods.conformers.exchange.found import Found
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.molecules.molecule import embed, to_batch
from orbitwise.molecules.search.torsion_move import rotatable_bonds
from orbitwise.molecules.symmetry import symmetry
from orbitwise.objectives.denoiser import Denoiser
from orbitwise.objectives.denoising import Denoising
from orbitwise.runs.stages import Pipeline, Stage, Step
from orbitwise.training import TrainConfig, estimate_step_seconds

OVERHEAD = 1.3  # a kernel's own arithmetic on top of its energy calls
# Columns of the replica exchange: in a shard at most, whose moves cost little more for many than
# for few; in all, where there are many shards, so that every one is long enough to mix.
COLUMNS, IN_ALL, AT_LEAST = 32, 128, 8
LEARNED = 3.5  # as long takes a step with learned moves
CARRY_CALLS = 250  # of the better energy, for a sample that is carried to it
QUENCH_CALLS = 200  # of the energy, to quench a frame and merge it with others
QUENCHED, FEWEST = 6000, 60  # frames that are quenched to count conformers


def share_of_search(config: ConformersConfig) -> float:
    """Of the time before the report: a fifth where a better energy takes most of it, a third
    beside a diffusion model."""
    if config.cheaper is not None:
        return 0.2
    return 1 / 3 if config.learner == "diffusion" else 1.0


def plan_search(crew: Crew, budget: Budget) -> Effort:
    """How many replicas the search has, how long its warm-up is, and how many of its frames are
    quenched, from what a step costs here and now."""
    system, config, shards = crew.system, crew.config, crew.processes
    columns = min(COLUMNS, max(AT_LEAST, IN_ALL // shards))
    rungs, chains, leapfrog = system.rungs(), columns * shards, 8
    x = torch.as_tensor(embed(system.mol, 1, config.seed), device=system.device, dtype=system.dtype)
    x = x.expand(rungs * columns, -1, -1)

    with system.energy.stage("planning"):
        one = seconds_of(lambda: system.energy.value_and_grad(x[:1]))
        # a calculator without batches: do not ask it for a whole batch
        many = one * len(x)
        if many <= 2.0:
            many = seconds_of(lambda: system.energy.value_and_grad(x))

        step = OVERHEAD * many * (leapfrog + 2)
        effort = Effort(
            chains=chains, rungs=rungs, leapfrog=leapfrog, search_steps=0, shards=shards
        )
        if step < 0.5:  # a short pilot sees how busy the machine is
            step = max(step, pilot(crew, effort, x[:columns]))
        if config.learner == "torsions" and rotatable_bonds(system.mol):
            step *= LEARNED

    seconds = max(1.0, budget.for_stage(QUENCHED, x.shape[-2]) - budget.elapsed)
    steps = seconds / step
    # a slow energy: fewer columns rather than columns that go nowhere
    while steps < 400 and chains > 2 * shards:
        chains, steps = chains // 2, steps * 2

    one_quench = max(QUENCH_CALLS * many / len(x), QUENCH * x.shape[-2] ** 2)
    quenched = 0.15 * seconds * shards / one_quench
    return effort.model_copy(
        update={
            "chains": chains,
            "warm_steps": 3 * rounded(0.12 * steps / 3, 10, 400),
            "quenched": rounded(quenched, FEWEST, QUENCHED),
        }
    )


def pilot(crew: Crew, effort: Effort, starts: Tensor, steps: int = 6) -> float:
    """Seconds that a step of all shards takes, by the wall clock."""
    parts = [(effort, starts, crew.config.seed, steps)] * crew.processes
    crew.map(begin, parts)  # processes start, kernels are compiled
    before = time.perf_counter()
    crew.map(begin, parts)
    return (time.perf_counter() - before) / (steps + 2)  # the kernels look at the start, too


def plan_particles(system: System, x: Tensor, seconds: float) -> int:
    """How many samples ``seconds`` carry to the energy of ``system``, from what its evaluation
    costs at ``x: (N, 3)``."""
    batch = x.to(device=system.device, dtype=system.dtype).expand(64, -1, -1)
    with system.energy.stage("planning"):
        one = seconds_of(lambda: system.energy.value_and_grad(batch[:1]))
        many = 64 * one
        if many < 2.0:
            many = seconds_of(lambda: system.energy.value_and_grad(batch))
    affordable = seconds / (many / 64 * CARRY_CALLS)
    return int(min(max(affordable, 16), 1024)) // 8 * 8


def plan_learner(system: System, effort: Effort, found: Found, seconds: float, n: int) -> Effort:
    """What ``seconds`` buy of the diffusion model for ``n`` samples, from what a training step and
    an energy cost now: an eighth relaxes, a tenth weighs, most of the rest learns and draws."""
    frames = found.x.flatten(0, 1)[:512]
    with system.energy.stage("planning"):
        call = seconds_of(lambda: system.energy.value_and_grad(frames)) / len(frames)

    step = Probe.of(system, frames[: effort.batch_size].cpu()).train_seconds(effort.batch_size)
    evaluation = step / (3 * effort.batch_size)  # a step is some three forward passes
    drawing = n * (2 * effort.denoise_steps - 1) * evaluation
    paths = int(0.1 * seconds / evaluation / network_evaluations(1000) * 1000)
    affordable = 0.05 * seconds / call  # a slow energy: few paths
    relax = 0.12 * seconds / (OVERHEAD * call * (effort.leapfrog + 1) * n)
    train = max(0.35 * seconds, 0.7 * seconds - drawing) / step
    return effort.model_copy(
        update={
            "train_steps": rounded(train, 50, 20_000),
            "relax_steps": rounded(relax, 4, 400),
            "weigh_paths": rounded(min(max(paths, 200), affordable), 20, 2000),
        }
    )


class EffortStep(Step[Effort]):
    """A stage that decides the effort; later stages depend on the effort, whatever budget it came
    from."""

    makes = Effort

    def settles(self, result: Effort) -> dict:
        return {"effort": result.model_dump(exclude_none=True), "budget": None}

    def keep(self, result: Effort) -> Stage:
        return Stage({}, {"effort": result.model_dump(exclude_none=True)})

    def restore(self, stage: Stage, pipe: Pipeline) -> Effort:
        return Effort(**stage.info["effort"])


@dataclass(frozen=True)
class PlanSearch(EffortStep):
    """``plan_search``, unless the effort is given. A search that was begun keeps its plan whatever
    the budget is now: a longer one goes on with it. ``whole``: as version 0.1.0 did, which planned
    all stages at once.

    A plan is never replaced under a search that was made by it: ``InputError``.
    """

    crew: Crew
    budget: Budget
    whole: bool = False

    name = "plan"

    @property
    def key(self) -> dict:
        return {"budget": self.crew.config.budget} if self.whole else {"effort": None}

    def settles(self, result: Effort) -> dict:
        return super().settles(result) if self.whole else {"effort": result.of_search()}

    def finished(self, result: Effort) -> bool:
        given = self.crew.config.effort
        return self.whole or given is None or given.of_search() == result.of_search()

    def make(self, pipe: Pipeline) -> Effort:
        given = self.crew.config.effort
        wanted = {} if given is None else self.settles(given)  # one planned now would be another
        pipe.refuse_loss("search", pipe.key | wanted)
        return given or plan_search(self.crew, self.budget)

    def keep(self, result: Effort) -> Stage:
        """Not how far a given effort goes: without it, the budget decides that."""
        bare = Effort(search_steps=0, quenched=result.quenched, **result.of_search())
        return super().keep(result if self.whole else bare)

    def restore(self, stage: Stage, pipe: Pipeline) -> Effort:
        """The effort that is given, unless what is kept is another one."""
        given, kept = self.crew.config.effort, super().restore(stage, pipe)
        same = given is not None and (self.whole or given.of_search() == kept.of_search())
        return given if same else kept


@dataclass(frozen=True)
class PlanLearner(EffortStep):
    """``plan_learner``, unless the effort says it all."""

    system: System
    config: ConformersConfig
    budget: Budget

    name = "plan_learner"

    @property
    def key(self) -> dict:
        return {"n": self.config.n, "budget": self.config.budget}

    def settles(self, result: Effort) -> dict:
        return super().settles(result) | {"n": None}

    def make(self, pipe: Pipeline) -> Effort:
        effort = pipe[Effort]
        if effort.train_steps:
            return effort
        seconds = self.budget.left(0.9)
        return plan_learner(self.system, effort, pipe[Found], seconds, self.config.n)


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
