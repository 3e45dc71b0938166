"""Search-guided diffusion samplers (SGDS, arXiv 2505.19552): sample an energy from the energy
alone.

In rounds: a Searcher (annealing, chains, replica exchange; from the second round on with a novelty
bonus) fills a buffer, a Learner is trained on it by maximum likelihood with exact orbit targets and
then balanced against the energy on its own paths and on paths back from the buffer. PIS, TB, SubTB,
GAFN, MLE and adjoint matching are settings of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from orbitwise.data.buffer import ReplayBuffer
from orbitwise.data.folder import writable_folder
from orbitwise.energies import Counted
from orbitwise.errors import InputError
from orbitwise.methods.samplers.evaluation import (
    EvaluationConfig,
    draw,
    judge_run,
    with_steps,
    write_samples,
)
from orbitwise.methods.samplers.parts import ObjectiveConfig, SamplerConfig
from orbitwise.methods.samplers.searcher import Found, SearchConfig
from orbitwise.methods.samplers.targets import EnergyConfig, Target
from orbitwise.objectives.paths.maximum_likelihood import MaximumLikelihood
from orbitwise.objectives.paths.objective import PathObjective
from orbitwise.objectives.paths.path import NoEnergy, roll_out
from orbitwise.objectives.paths.sampler import DiffusionSampler
from orbitwise.runs.config import Config, Plan, load_run, save_run
from orbitwise.runs.outcome import Outcome
from orbitwise.runs.stages import Pipeline, Stage, Stages
from orbitwise.search.novelty import Coordinates, Novelty, PairHistogram
from orbitwise.training import TrainConfig
from orbitwise.training import train as fit


class NoveltyConfig(Config):
    """``weight`` of the bonus in kT (0: none); the predictor makes ``steps`` on points that the
    learner draws."""

    weight: float = Field(10.0, ge=0)
    steps: int = Field(500, ge=1)
    points: int = Field(2000, ge=1)


class SGDSConfig(Config):
    """``restart`` of the learner between rounds: ``full``, ``partial`` (the last layers) or
    ``none`` (fine-tuning). ``likelihood_steps`` or ``balance_steps`` 0 leave that phase out.
    ``forces``: gradients found by the search serve as a control variate of the likelihood."""

    energy: EnergyConfig
    sampler: SamplerConfig = SamplerConfig()
    search: SearchConfig = SearchConfig()
    novelty: NoveltyConfig = NoveltyConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    rounds: int = Field(1, ge=1, le=10)
    restart: Literal["full", "partial", "none"] = "full"
    priority: Literal["uniform", "rank", "reward"] = "uniform"
    buffer: int = Field(60_000, ge=1)
    forces: bool = True
    likelihood_steps: int = Field(3000, ge=0)
    balance_steps: int = Field(500, ge=0)
    likelihood: TrainConfig = TrainConfig(batch_size=256)
    balance: TrainConfig = TrainConfig(batch_size=128, learning_rate=2e-4)
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = Field(0, ge=0)


class Ticks:
    """Training data of an objective that makes its own: ``len(batch)`` is all that it reads."""

    def __init__(self, size: int):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Tensor) -> Ticks:
        return Ticks(len(index))

    def to(self, device) -> Ticks:
        return self


@dataclass
class _State:
    """What goes from round to round."""

    buffer: ReplayBuffer
    sampler: DiffusionSampler | None = None
    novelty: Novelty | None = None
    scale: float = 1.0
    log_z: float | None = None


def plan(config: SGDSConfig) -> Plan:
    """Energy calls of search and training; those of the evaluation are counted apart."""
    target = config.energy.build()
    sampler = config.sampler.build(target, 1.0, config.seed, flows=config.objective.flows)
    own = config.objective.on_policy * config.balance.batch_size * config.balance_steps
    if config.objective.name == "adjoint_matching":
        own = config.objective.endpoints * (config.balance_steps / config.objective.refresh)
    inner = (
        config.sampler.schedule.steps
        if config.sampler.langevin or config.objective.partial_energy
        else 1
    )
    calls = config.rounds * (config.search.calls + int(own * inner))
    return Plan(sum(p.numel() for p in sampler.parameters()), calls)


def train(config: SGDSConfig, out: str | Path) -> Outcome:
    """Search and learn in the folder ``out``, or finish what was begun there."""
    if not config.balance_steps and (not config.likelihood_steps or config.search.method == "none"):
        raise InputError(
            "there is nothing to train: set balance_steps, or likelihood_steps with a search"
            " (search.method)"
        )
    folder = writable_folder(out)
    target = config.energy.build()
    energy = Counted(target.energy)
    pipe = Pipeline(Stages(folder), energy.counts, {})
    save_run(config, folder)
    state = _State(ReplayBuffer(config.buffer, energy.event_shape, priority=config.priority))
    for number in range(1, config.rounds + 1):
        _search(config, target, energy, pipe, state, number)
        _learn(config, target, energy, pipe, state, number, folder)
        if number < config.rounds and config.novelty.weight > 0:
            _distil(config, energy, pipe, state, number)
    counts = {k: (c.energy, c.gradient) for k, c in energy.counts.items()}
    total = sum(e for e, _ in counts.values())
    spent = ", ".join(f"{k} {e:,} energies and {g:,} gradients" for k, (e, g) in counts.items())
    seconds = sum(pipe.seconds.values())
    return Outcome(folder, counts, [f"{folder}: {total:,} energy calls ({spent}), {seconds:.0f} s"])


LATER = {
    "search": {
        "sampler",
        "forces",
        "likelihood",
        "likelihood_steps",
        "objective",
        "balance",
        "balance_steps",
    },
    "likelihood": {"objective", "balance", "balance_steps"},
}


def stage_key(config: SGDSConfig, phase: str, number: int) -> dict:
    """The settings that a stage depends on: in the first round not those of later phases."""
    later = LATER.get(phase, set()) | {"novelty", "rounds", "restart"} if number == 1 else set()
    return {"method": "sgds", **config.model_dump(mode="json", exclude={"evaluation", *later})}


def _search(
    config: SGDSConfig, target: Target, energy: Counted, pipe, state: _State, number: int
) -> None:
    if config.search.method == "none":
        return

    numbers = ("log_z", "log_z_error", "independent")

    def searched():
        generator = torch.Generator().manual_seed(1_000_003 * config.seed + number)
        with energy.stage("search"):
            found = config.search.search(
                target, energy, generator, state.novelty, config.novelty.weight
            )
        tensors = {
            "x": found.x,
            "energy": found.energy,
            "grad": found.grad,
            "log_weight": found.log_weight,
        }
        return tensors, {name: getattr(found, name) for name in numbers}

    pipe.key = stage_key(config, "search", number)
    stage = pipe.stage(f"search{number}", searched)
    found = Found(**stage.tensors, **{name: stage.info.get(name) for name in numbers})
    # every round counts by the independent samples it is worth: many points of few chains must not
    # outweigh the rest
    worth = found.independent or len(found.log_weight)
    weight = found.log_weight - found.log_weight.logsumexp(0) + math.log(worth)
    state.buffer.add(found.x, found.energy, found.grad, weight)
    if state.log_z is None:
        state.log_z = found.log_z
    if number == 1:
        index = state.buffer.draw(4096, torch.Generator().manual_seed(config.seed))
        x = state.buffer.x[index]
        centred = x - x.mean(-2, keepdim=True) if energy.zero_com else x
        state.scale = float(centred.square().mean().sqrt())


def _learn(
    config: SGDSConfig, target: Target, energy: Counted, pipe, state: _State, number: int, folder
) -> None:
    fresh = config.sampler.build(
        target, state.scale, config.seed + 7919 * number, flows=config.objective.flows
    )
    if state.sampler is None:
        if state.log_z is not None:
            fresh.log_z_start.fill_(state.log_z)
    else:
        fresh.log_z_start.fill_(state.sampler.log_z.item())
        _carry_over(config.restart, state.sampler, fresh)
    state.sampler = fresh
    has_points = len(state.buffer) > 0
    phases: list[tuple[str, PathObjective, TrainConfig]] = []
    if has_points and config.likelihood_steps:
        settings = config.likelihood.model_copy(
            update={"steps": config.likelihood_steps, "seed": config.seed}
        )
        steps = config.sampler.schedule.steps
        objective = MaximumLikelihood(
            target.energy, state.buffer, target.group, forces=config.forces, steps=steps
        )
        phases.append(("likelihood", objective, settings))
    if config.balance_steps:
        settings = config.balance.model_copy(
            update={"steps": config.balance_steps, "seed": config.seed + 1}
        )
        objective = config.objective.build(
            target.energy,
            state.buffer if has_points else None,
            target.group,
            config.forces,
            config.sampler.schedule.steps,
        )
        phases.append(("balance", objective, settings))
    for name, objective, settings in phases:
        pipe.key = stage_key(config, name, number)

        def learned(name=name, objective=objective, settings=settings):
            where = folder / "learner" / f"{name}{number}-{Stages.digest(pipe.key)[:8]}"
            data = Ticks(settings.batch_size * 100)
            result = fit(state.sampler, objective, data, settings, where, pipe.key)
            # buffer and energy, which may have been on a GPU, go on in the next search
            objective.cpu()
            count = energy.counts["training"]
            count.energy += int(objective.spent[0])
            count.gradient += int(objective.spent[1])
            return dict(result.ema.state_dict()), {"loss": result.loss, "skipped": result.skipped}

        stage: Stage = pipe.stage(f"{name}{number}", learned)
        state.sampler.cpu().load_state_dict(stage.tensors)


def _carry_over(restart: str, old: DiffusionSampler, new: DiffusionSampler) -> None:
    """``none``: all weights of the old learner; ``partial``: all but the last third of its
    network's tensors."""
    if restart == "full":
        return
    weights = {k: v for k, v in old.state_dict().items() if not k.startswith("log_z")}
    if restart == "partial":
        names = [f"network.{name}" for name, _ in old.network.named_parameters()]
        for name in names[-(len(names) // 3) :]:
            del weights[name]
    new.load_state_dict(new.state_dict() | weights)


def _distil(config: SGDSConfig, energy: Counted, pipe, state: _State, number: int) -> None:
    """Make known to the novelty what the learner draws; the next search looks elsewhere."""
    generator = torch.Generator().manual_seed(1_000_003 * config.seed + 500_000 + number)
    shape = energy.event_shape
    # six standard deviations hold nearly all distances
    features = PairHistogram(shape[0], 6 * state.scale) if energy.zero_com else Coordinates(shape)
    novelty = Novelty(features, generator=generator)

    # only where the paths end matters; a Langevin term still asks for gradients on the way
    distilling = energy if config.sampler.langevin else NoEnergy()

    def distilled():
        with energy.stage("training"):
            return _fit()

    def _fit():
        x = roll_out(state.sampler, distilling, config.novelty.points, generator).x[-1]
        novelty.fit(x, config.novelty.steps, generator=generator)
        return dict(novelty.state_dict()), {}

    pipe.key = stage_key(config, "novelty", 2)
    novelty.load_state_dict(pipe.stage(f"novelty{number}", distilled).tensors)
    state.novelty = novelty


def restore(config: SGDSConfig, folder: Path) -> tuple[DiffusionSampler, Target, dict]:
    """The trained learner of a run, its target, and ``seconds`` and ``evaluations`` of its
    stages."""
    target = config.energy.build()
    phase = "balance" if config.balance_steps else "likelihood"
    name, key = f"{phase}{config.rounds}", stage_key(config, phase, config.rounds)
    stages = Stages(folder)
    stage = stages.load(name, key)
    if stage is None:
        raise InputError(
            f"{folder}: the training is not finished; repeat the command that began it"
        )
    scale = float(stage.tensors["data_scale"])  # it may come from the search, and the noise with it
    sampler = config.sampler.build(target, scale, config.seed, flows=config.objective.flows)
    sampler.load_state_dict(stage.tensors)
    return with_steps(sampler.eval(), config.evaluation.steps), target, history(config, stages)


def history(config: SGDSConfig, stages: Stages) -> dict:
    """Seconds and evaluations of all finished stages of a run."""
    seconds, counts = {}, {}
    for number in range(1, config.rounds + 1):
        for phase in ("search", "likelihood", "balance", "novelty"):
            key = stage_key(config, phase, 2 if phase == "novelty" else number)
            stage = stages.load(f"{phase}{number}", key)
            if stage is None:
                continue
            seconds[f"{phase}{number}"] = stage.info["seconds"]
            for k, (e, g) in stage.info["evaluations"].items():
                before = counts.get(k, (0, 0))
                counts[k] = (before[0] + e, before[1] + g)
    return {"seconds": seconds, "evaluations": counts}


def sample(run: str | Path, n: int = 1000, seed: int = 0) -> Outcome:
    """Draw ``n`` independent samples with their importance weights into ``samples.npz`` (points:
    .extxyz too)."""
    config, folder = load_run(run), writable_folder(run)
    sampler, target, _ = restore(config, folder)
    energy = Counted(target.energy)
    with energy.stage("sampling"):
        drawn = draw(sampler, energy, n, seed, config.evaluation.batch)
    write_samples(folder, target, drawn)
    spent = energy.counts["sampling"]
    line = (
        f"{folder}: {n} samples in samples.npz; {spent.energy:,} energies, {spent.gradient:,}"
        " gradients"
    )
    return Outcome(folder, drawn, [line])


def evaluate(run: str | Path) -> Outcome:
    """Judge the learner's paths against reference samples; writes ``summary.json`` and
    ``report.html``."""
    config, folder = load_run(run), writable_folder(run)
    sampler, target, past = restore(config, folder)
    return judge_run(config, folder, sampler, target, past)


report = evaluate  # the page is made from the evaluation, which costs little beside the training
