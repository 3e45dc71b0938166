"""Search: replica exchange of one molecule from embedded geometries, in rounds that processes
share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Self

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.methods.conformers.clock import Budget, shown
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.exchange.columns import Columns, Round, advance, begin, thinning
from orbitwise.methods.conformers.exchange.crew import Crew
from orbitwise.methods.conformers.exchange.mixing import Mixing, Watched
from orbitwise.methods.conformers.exchange.pooled import Pooled
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.metrics.multistate import multistate_log_weights
from orbitwise.molecules.molecule import embed
from orbitwise.molecules.search.mixture_move import MixtureMove
from orbitwise.molecules.search.stereo import Stereo
from orbitwise.runs.stages import Kept, Pipeline, Stage, Step
from orbitwise.search.quench import minimise
from orbitwise.search.tempering import geometric_ladder
from orbitwise.training import Progress

FRAMES = 20_000  # of the target temperature are kept, more where a precision needs them
ROUND = 4.0  # seconds that a round is meant to take
KEEP_EVERY = 30.0  # seconds between two writings of what there is
LEAST = 8  # steps that count, whatever the budget: without frames there is no answer at all
SHARD_SEEDS = 1_000_003  # apart: the first shard has the seed of the run


@dataclass(frozen=True)
class Found(Kept):
    """What the search left, warm-up excluded: frames ``x: (S, C, N, 3)`` and ``energy: (S, C)`` of
    the target temperature in order of time, some of the hotter ones ``hot_x: (S', T-1, C, N, 3)``,
    ``hot_energy: (S', T-1, C)``; the step size at the target; rates in ``info``.

    ``columns``: where each shard stands, ``mixture``: its learned moves; both to go on from.
    """

    x: Tensor
    energy: Tensor
    step_size: float
    info: dict
    hot_x: Tensor | None = None
    hot_energy: Tensor | None = None
    columns: tuple[Columns, ...] = ()
    mixture: MixtureMove | None = None

    def stage(self) -> Stage:
        tensors = {"x": self.x, "energy": self.energy}
        if self.hot_x is not None:
            tensors |= {"hot_x": self.hot_x, "hot_energy": self.hot_energy}
        for k, columns in enumerate(self.columns):
            tensors |= {f"columns.{k}.{f.name}": getattr(columns, f.name) for f in fields(Columns)}
        if self.mixture is not None:
            tensors |= {f"mixture.{k}": v for k, v in self.mixture.tensors().items()}
        return Stage(tensors, {"step_size": self.step_size, "search": self.info})

    @classmethod
    def of(cls, stage: Stage) -> Self:
        tensors, info = stage.tensors, stage.info
        columns = [
            Columns(**{f.name: tensors[f"columns.{k}.{f.name}"] for f in fields(Columns)})
            for k in range(sum(name.endswith(".clock") for name in tensors))
        ]
        mixture = {k[8:]: v for k, v in tensors.items() if k.startswith("mixture.")}
        return cls(
            x=tensors["x"],
            energy=tensors["energy"],
            step_size=info["step_size"],
            info=info["search"],
            hot_x=tensors.get("hot_x"),
            hot_energy=tensors.get("hot_energy"),
            columns=tuple(columns),
            mixture=MixtureMove.from_tensors(mixture) if mixture else None,
        )

    @property
    def steps(self) -> int:
        """Steps made, warm-up included."""
        return self.info["steps"] + self.info.get("warm_steps", 0)

    @property
    def betas(self) -> Tensor:
        """Inverse temperatures ``(T,)`` relative to the target."""
        temperatures = torch.tensor(self.info["temperatures"], dtype=torch.float64)
        return temperatures[0] / temperatures

    def pooled(self) -> Pooled:
        """All frames of all temperatures as one weighted sample of the target."""
        columns = torch.arange(self.x.shape[1])

        def blocks(frames: int) -> Tensor:
            half = 2 * torch.arange(frames) // max(1, frames)  # two blocks a column
            return half[:, None] * len(columns) + columns

        parts, energies, owners = [self.x.flatten(0, 1)], [self.energy], [blocks(len(self.x))]
        if self.hot_x is not None and len(self.hot_x):
            parts += [x.flatten(0, 1) for x in self.hot_x.unbind(1)]
            energies += list(self.hot_energy.unbind(1))
            owners += [blocks(len(self.hot_x))] * self.hot_x.shape[1]
        betas = self.betas[: len(energies)]
        log_weights = multistate_log_weights([e.flatten() for e in energies], betas)
        return Pooled(
            x=torch.cat(parts),
            energy=torch.cat([e.flatten() for e in energies]),
            log_weight=torch.cat(log_weights),
            block=torch.cat([b.flatten() for b in owners]),
        )


@dataclass(frozen=True)
class Search(Step[Found]):
    """The search as a stage. It goes on from what there is until ``effort.search_steps`` are made
    or, where that is 0, until the populations are precise or the ``budget`` is spent."""

    system: System
    config: ConformersConfig
    crew: Crew
    budget: Budget

    name, makes, precious = "search", Found, True

    def finished(self, result: Found) -> bool:
        asked = self.config.effort.search_steps if self.config.effort else 0
        if not result.columns:  # by a version that kept nothing to go on from
            return True
        if asked and result.steps > asked:
            raise InputError(
                f"there are {result.steps} steps of the search, more than the {asked} of this"
                " effort; choose another folder with --out"
            )
        if asked:
            return result.steps == asked
        done = result.info["budget_minutes"]
        enough = done is not None and self.config.budget <= done and result.info["steps"] >= LEAST
        return enough or self.mixing(result).precise(self.config.precision)

    @cached_property
    def watched(self) -> Watched:
        return Watched.of(self.system.mol)

    def mixing(self, found: Found) -> Mixing:
        return self.watched.mixing(found.x, found.energy)

    def make(self, pipe: Pipeline) -> Found:
        effort = pipe[Effort]
        clock = _Clock(self.budget, self.config.precision, pipe.seconds.get(self.name, 0.0))
        with self.system.energy.stage("search"), shown("search") as show:
            found = pipe.get(Found) or self._start(effort)
            saved = time.monotonic()

            try:
                while steps := clock.next_steps(effort, found, self.mixing):
                    found = self._round(effort, found, steps)
                    clock.made(steps)
                    show(clock.progress(found))
                    if time.monotonic() - saved > KEEP_EVERY:
                        saved = time.monotonic()
                        pipe.save(self, found)
            except KeyboardInterrupt:  # what whole rounds have found is not lost
                pipe.save(self, found)
                raise
        minutes = None if effort.search_steps else self.config.budget  # an effort spends no budget
        return replace(found, info=found.info | {"budget_minutes": minutes})

    def settles(self, result: Found) -> dict:
        """What comes after depends on how long the search was."""
        return {"searched": result.steps} if result.columns else {}

    def _start(self, effort: Effort) -> Found:
        """Quenched embeddings, tuned step sizes, a first look for the mixtures, and the rest of the
        warm-up."""
        system, shards = self.system, effort.shards or 1
        starts = self._starts(effort.chains)
        tune = effort.warm // 3
        seeds = [self.config.seed + SHARD_SEEDS * k for k in range(shards)]
        parts = [
            (effort, part, seed, tune)
            for part, seed in zip(starts.chunk(shards), seeds, strict=True)
        ]
        columns = tuple(self.crew.map(begin, parts))

        found = self._nothing(effort, columns)
        look = self._round(effort, found, effort.warm // 3, thin=4)
        mixture = None
        if self.config.learner == "torsions" and look.hot_x is not None and len(look.hot_x):
            stride = len(look.x) // len(look.hot_x)
            frames = torch.cat(
                [look.x[stride - 1 :: stride][: len(look.hot_x), None], look.hot_x], 1
            )
            mixture = MixtureMove.fit(system.mol, frames, seed=self.config.seed)

        found = replace(found, columns=look.columns, mixture=mixture)
        warm = self._round(effort, found, effort.warm - tune - effort.warm // 3)
        return self._nothing(effort, warm.columns, mixture)

    def _starts(self, count: int) -> Tensor:
        """Quenched embeddings ``(count, N, 3)`` of the right stereochemistry: one that has lost it
        in the quench is replaced by another one."""
        system = self.system
        embedded = torch.as_tensor(
            embed(system.mol, count, self.config.seed), device=system.device, dtype=system.dtype
        )
        stereo = Stereo.from_mol(system.mol, embedded[0])
        starts = minimise(embedded, system.energy, tolerance=5.0, max_steps=100).x
        kept = (stereo.keeps(starts) & stereo.keeps(embedded)).nonzero().flatten()
        if not len(kept):  # not even one: from where they were embedded
            starts, kept = embedded, stereo.keeps(embedded).nonzero().flatten()
        starts = starts[kept[torch.arange(count, device=kept.device) % len(kept)]]
        return starts - starts.mean(-2, keepdim=True)

    def _nothing(
        self, effort: Effort, columns: tuple[Columns, ...], mixture: MixtureMove | None = None
    ) -> Found:
        """No step that counts."""
        system = self.system
        betas = geometric_ladder(system.temperature, system.hottest, effort.rungs)
        like = torch.cat([c.x for c in columns], 1)
        energy = torch.cat([c.energy for c in columns], 1)
        info = {
            "temperatures": (system.temperature / betas).tolist(),
            "acceptance": [0.0] * effort.rungs,
            "swap_rate": [0.0] * (effort.rungs - 1),
            "swaps_tried": [0.0] * (effort.rungs - 1),
            "round_trips": 0,
            "stereo_rejections": 0,
            "frames_every": 1,
            "steps": 0,
            "warm_steps": effort.warm,
            "budget_minutes": None,
        }
        return Found(
            x=like[:0],
            energy=energy[:0],
            step_size=float(torch.cat([c.step_size[0] for c in columns]).mean()),
            info=info,
            hot_x=like[None, 1:][:0],
            hot_energy=energy[None, 1:][:0],
            columns=columns,
            mixture=mixture,
        )

    def _round(self, effort: Effort, found: Found, steps: int, thin: int | None = None) -> Found:
        """All shards moved on by ``steps`` steps, and what they saw added."""
        if not steps:
            return found
        info, made = found.info, found.info["steps"]
        chains = sum(c.x.shape[1] for c in found.columns)
        thin = thin or info["frames_every"]
        task = partial(advance, made=made, steps=steps, thin=thin)
        like = found.columns[0].x[0, 0]
        parts = [(effort, columns, like, found.mixture) for columns in found.columns]
        rounds: list[Round] = self.crew.map(task, parts)
        self.budget.seen(sum(r.wall for r in rounds), sum(r.processor for r in rounds))

        def joined(old: Tensor, name: str, dim: int) -> Tensor:
            return torch.cat([old, torch.cat([getattr(r, name) for r in rounds], dim)])

        found = replace(
            found,
            x=joined(found.x, "x", 1),
            energy=joined(found.energy, "energy", 1),
            hot_x=joined(found.hot_x, "hot_x", 2),
            hot_energy=joined(found.hot_energy, "hot_energy", 2),
            columns=tuple(r.columns for r in rounds),
            info=_added(info, rounds, steps),
        )
        limit = max(FRAMES, int(1 / self.config.precision**2))
        wanted = thinning(made + steps, limit // chains)
        return _thinned(found, wanted // thin) if wanted > thin else found


def search(system: System, effort: Effort, seed: int) -> Found:
    """A search of ``effort.search_steps`` steps at once, here, without learned moves."""
    config = ConformersConfig(smiles="", seed=seed, learner="none", effort=effort)
    step = Search(system, config, Crew(config, system, 1), Budget(math.inf))
    with system.energy.stage("search"):
        found = step._start(effort)
        return step._round(effort, found, effort.search_steps - effort.warm)


def _added(info: dict, rounds: list[Round], steps: int) -> dict:
    """Rates over the steps so far."""

    def mean(name: str) -> Tensor:
        return torch.stack([getattr(r, name) for r in rounds]).mean(0).double().cpu()

    made = info["steps"]
    tried = torch.tensor(info["swaps_tried"], dtype=torch.float64)
    swapped = tried * torch.tensor(info["swap_rate"], dtype=torch.float64) + mean("swaps")
    tried = tried + mean("swaps_tried")
    accepted = made * torch.tensor(info["acceptance"], dtype=torch.float64) + mean("accepted")
    return info | {
        "acceptance": (accepted / (made + steps)).tolist(),
        "swap_rate": (swapped / tried.clamp_min(1)).tolist(),
        "swaps_tried": tried.tolist(),
        "round_trips": sum(int(r.columns.round_trips.sum()) for r in rounds),
        "stereo_rejections": info["stereo_rejections"] + sum(r.refused for r in rounds),
        "steps": made + steps,
    }


def _thinned(found: Found, factor: int) -> Found:
    """Every ``factor``-th frame: the frames that a run of this length keeps, however it was cut."""
    names = ("x", "energy", "hot_x", "hot_energy")
    rows = {name: getattr(found, name)[factor - 1 :: factor].clone() for name in names}
    return replace(
        found, **rows, info=found.info | {"frames_every": found.info["frames_every"] * factor}
    )


class _Clock:
    """How many steps come next, from how fast they were and what is left of the ``budget``;
    ``spent`` seconds before, by an earlier run."""

    def __init__(self, budget: Budget, precision: float, spent: float):
        self.budget, self.precision, self.spent = budget, precision, spent
        self.begin = self.last = time.monotonic()
        self.rate: float | None = None
        self.left = 0.0
        self.looked, self.mixing = 0, Mixing(math.inf, 1.0)

    def made(self, steps: int) -> None:
        now = time.monotonic()
        self.rate, self.last = steps / max(now - self.last, 1e-6), now

    @property
    def elapsed(self) -> float:
        """Seconds of this stage."""
        return self.spent + time.monotonic() - self.begin

    def next_steps(self, effort: Effort, found: Found, mixing: Callable[[Found], Mixing]) -> int:
        """0 where it is enough."""
        self.last = time.monotonic()
        if effort.search_steps:
            missing = effort.search_steps - found.steps
            round_ = 50 if self.rate is None else max(1, int(ROUND * self.rate))
            self.left = missing / (self.rate or 1.0)
            return max(0, min(missing, round_))

        atoms = found.x.shape[-2]
        whole = self.budget.for_stage(effort.quenched or 0, atoms)
        room = whole - self.budget.elapsed - self.spent
        if (missing := LEAST - found.info["steps"]) > 0:
            return missing
        if self.rate is None:
            return LEAST if room > 0 else 0

        if found.steps >= 1.1 * self.looked:  # looking costs the more the longer the search is
            self.looked, self.mixing = found.steps, mixing(found)
        now, self.last = self.mixing, time.monotonic()
        missing = 0.25 / self.precision**2 - now.effective_samples
        pace = now.effective_samples / max(self.elapsed, 1e-6)
        self.left = max(0.0, min(room, missing / max(pace, 1e-6)))
        steps = int(min(ROUND, room) * self.rate)
        return 0 if now.precise(self.precision) or steps < 1 else steps

    def progress(self, found: Found) -> Progress:
        """Steps made, of how many as far as can be told."""
        whole = self.elapsed + self.left
        steps = max(found.steps, round(found.steps * whole / max(self.elapsed, 1e-6)))
        return Progress(found.steps, steps, rate=self.rate, seconds_left=self.left)
