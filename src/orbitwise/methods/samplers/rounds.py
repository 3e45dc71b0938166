"""The rounds of a search-guided sampler: search, learn by likelihood, balance, look elsewhere. Each
phase is a stage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from orbitwise.data.buffer import ReplayBuffer
from orbitwise.energies import Counted
from orbitwise.methods.samplers.config import SGDSConfig, stage_key
from orbitwise.methods.samplers.objectives import Source, likelihood
from orbitwise.methods.samplers.searcher import Found
from orbitwise.methods.samplers.targets import Target
from orbitwise.objectives.paths.objective import PathObjective
from orbitwise.objectives.paths.path import NoEnergy, roll_out
from orbitwise.objectives.paths.sampler import DiffusionSampler
from orbitwise.runs.stages import Pipeline, Stage, Step
from orbitwise.search.novelty import Coordinates, Novelty, PairHistogram
from orbitwise.training import TrainConfig
from orbitwise.training import train as fit


@dataclass
class State:
    """What goes from round to round."""

    buffer: ReplayBuffer
    sampler: DiffusionSampler | None = None
    novelty: Novelty | None = None
    scale: float = 1.0
    log_z: float | None = None


@dataclass(frozen=True)
class Rounds:
    """Searches and trains the learner of ``config``, one round after the other."""

    config: SGDSConfig
    target: Target
    energy: Counted
    state: State
    folder: Path

    def run(self, pipe: Pipeline) -> None:
        for number in range(1, self.config.rounds + 1):
            if self.config.search.method != "none":
                self.search(pipe, number)
            self.learn(pipe, number)
            if number < self.config.rounds and self.config.novelty.weight > 0:
                self.state.novelty = pipe.take(Distil(self, number))

    def search(self, pipe: Pipeline, number: int) -> None:
        """Points of one round into the buffer; the first ones tell the scale."""
        state, found = self.state, pipe.take(Search(self, number))
        # every round counts by the independent samples it is worth: many points of few chains must
        # not outweigh the rest
        worth = found.independent or len(found.log_weight)
        weight = found.log_weight - found.log_weight.logsumexp(0) + math.log(worth)
        state.buffer.add(found.x, found.energy, found.grad, weight)

        if state.log_z is None:
            state.log_z = found.log_z
        if number == 1:
            index = state.buffer.draw(4096, torch.Generator().manual_seed(self.config.seed))
            x = state.buffer.x[index]
            centred = x - x.mean(-2, keepdim=True) if self.energy.zero_com else x
            state.scale = float(centred.square().mean().sqrt())

    def learn(self, pipe: Pipeline, number: int) -> None:
        """A fresh learner, or what ``restart`` leaves of the last one, through its phases."""
        config, state = self.config, self.state
        fresh = config.sampler.build(
            self.target, state.scale, config.seed + 7919 * number, flows=config.objective.flows
        )
        if state.sampler is not None:
            fresh.log_z_start.fill_(state.sampler.log_z.item())
            carry_over(config.restart, state.sampler, fresh)
        elif state.log_z is not None:
            fresh.log_z_start.fill_(state.log_z)
        state.sampler = fresh

        source = Source(
            energy=self.target.energy,
            buffer=state.buffer if len(state.buffer) else None,
            group=self.target.group,
            forces=config.forces,
            steps=config.sampler.schedule.steps,
        )
        phases: list[tuple[str, PathObjective, TrainConfig]] = []
        if source.buffer is not None and config.likelihood_steps:
            settings = {"steps": config.likelihood_steps, "seed": config.seed}
            settings = config.likelihood.model_copy(update=settings)
            phases.append(("likelihood", likelihood(source), settings))
        if config.balance_steps:
            settings = {"steps": config.balance_steps, "seed": config.seed + 1}
            settings = config.balance.model_copy(update=settings)
            phases.append(("balance", config.objective.build(source), settings))

        for name, objective, settings in phases:
            trained = pipe.take(Learn(self, number, name, objective, settings))
            state.sampler.cpu().load_state_dict(trained.weights)


@dataclass(frozen=True)
class Search(Step[Found]):
    """The search of a round, from the second one on away from what the learner knows."""

    rounds: Rounds
    number: int

    makes = Found

    @property
    def name(self) -> str:
        return f"search{self.number}"

    @property
    def key(self) -> dict:
        return stage_key(self.rounds.config, "search", self.number)

    def make(self, pipe: Pipeline) -> Found:
        config, energy = self.rounds.config, self.rounds.energy
        generator = torch.Generator().manual_seed(1_000_003 * config.seed + self.number)
        with energy.stage("search"):
            return config.search.search(
                self.rounds.target,
                energy,
                generator,
                self.rounds.state.novelty,
                config.novelty.weight,
            )


@dataclass(frozen=True)
class Trained:
    """The learner's ``weights`` after a phase, its last ``loss``, and how many steps were
    ``skipped``."""

    weights: dict[str, Tensor]
    loss: float
    skipped: int

    def stage(self) -> Stage:
        return Stage(self.weights, {"loss": self.loss, "skipped": self.skipped})

    @classmethod
    def of(cls, stage: Stage) -> Trained:
        return cls(stage.tensors, stage.info["loss"], stage.info["skipped"])


@dataclass(frozen=True)
class Learn(Step[Trained]):
    """One phase of the learner's training, which goes on with the learner as it is."""

    rounds: Rounds
    number: int
    phase: str
    objective: PathObjective
    settings: TrainConfig

    makes = Trained

    @property
    def name(self) -> str:
        return f"{self.phase}{self.number}"

    @property
    def key(self) -> dict:
        return stage_key(self.rounds.config, self.phase, self.number)

    def make(self, pipe: Pipeline) -> Trained:
        where = self.rounds.folder / "learner" / f"{self.name}-{pipe.digest}"
        data = Ticks(self.settings.batch_size * 100)
        sampler = self.rounds.state.sampler
        result = fit(sampler, self.objective, data, self.settings, where, pipe.key)
        # buffer and energy, which may have been on a GPU, go on in the next search
        self.objective.cpu()

        count = self.rounds.energy.counts["training"]
        count.energy += int(self.objective.spent[0])
        count.gradient += int(self.objective.spent[1])
        return Trained(dict(result.ema.state_dict()), result.loss, result.skipped)


@dataclass(frozen=True)
class Distil(Step[Novelty]):
    """Make known to the novelty what the learner draws; the next search looks elsewhere."""

    rounds: Rounds
    number: int

    makes = Novelty

    @property
    def name(self) -> str:
        return f"novelty{self.number}"

    @property
    def key(self) -> dict:
        return stage_key(self.rounds.config, "novelty", 2)

    def start(self) -> tuple[Novelty, torch.Generator]:
        config, energy = self.rounds.config, self.rounds.energy
        generator = torch.Generator().manual_seed(1_000_003 * config.seed + 500_000 + self.number)
        shape = energy.event_shape
        # six standard deviations hold nearly all distances
        reach = 6 * self.rounds.state.scale
        features = PairHistogram(shape[0], reach) if energy.zero_com else Coordinates(shape)
        return Novelty(features, generator=generator), generator

    def make(self, pipe: Pipeline) -> Novelty:
        config, energy = self.rounds.config, self.rounds.energy
        novelty, generator = self.start()
        # only where the paths end matters; a Langevin term still asks for gradients on the way
        asked = energy if config.sampler.langevin else NoEnergy()
        with energy.stage("training"):
            paths = roll_out(self.rounds.state.sampler, asked, config.novelty.points, generator)
            novelty.fit(paths.x[-1], config.novelty.steps, generator=generator)
        return novelty

    def keep(self, result: Novelty) -> Stage:
        return Stage(dict(result.state_dict()), {})

    def restore(self, stage: Stage, pipe: Pipeline) -> Novelty:
        novelty, _ = self.start()
        novelty.load_state_dict(stage.tensors)
        return novelty


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


def carry_over(restart: str, old: DiffusionSampler, new: DiffusionSampler) -> None:
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
