"""Search: replica exchange of one molecule from embedded geometries, in rounds that processes
share."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.methods.conformers.clock import Budget, shown
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.exchange.columns import Columns, Round, advance, begin, thinning
from orbitwise.methods.conformers.exchange.crew import Crew
from orbitwise.methods.conformers.exchange.found import Found, added, thinned
from orbitwise.methods.conformers.exchange.mixing import Mixing, Watched
from orbitwise.methods.conformers.exchange.pace import FEWEST, Pace
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.molecules.molecule import embed
from orbitwise.molecules.search.mixture_move import MixtureMove
from orbitwise.molecules.search.stereo import Stereo
from orbitwise.runs.stages import Pipeline, Step
from orbitwise.search.quench import minimise
from orbitwise.search.tempering import geometric_ladder

FRAMES = 20_000  # of the target temperature are kept, more where a precision needs them
FITTED = 400  # about so many for each temperature are what moves are learned from
KEEP_EVERY = 30.0  # seconds between two writings of what there is
SHARD_SEEDS = 1_000_003  # apart: the first shard has the seed of the run


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
        enough = done is not None and self.config.budget <= done and result.info["steps"] >= FEWEST
        return enough or self.mixing(result).precise(self.config.precision)

    @cached_property
    def watched(self) -> Watched:
        return Watched.of(self.system.mol)

    def mixing(self, found: Found) -> Mixing:
        settled = found.settled
        return self.watched.mixing(settled.x, settled.energy)

    def make(self, pipe: Pipeline) -> Found:
        effort = pipe[Effort]
        clock = Pace(self.budget, self.config.precision, pipe.seconds.get(self.name, 0.0))
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
        shards = effort.shards or 1
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
        if self.config.learner == "torsions":
            mixture = self._mixture(look)

        found = replace(found, columns=look.columns, mixture=mixture)
        warm = self._round(effort, found, effort.warm - tune - effort.warm // 3)
        return self._nothing(effort, warm.columns, mixture)

    def _mixture(self, look: Found) -> MixtureMove | None:
        """Learned moves from the frames of a first look, some of them for each temperature."""
        if look.hot_x is None or not len(look.hot_x):
            return None
        stride = len(look.x) // len(look.hot_x)
        cold = look.x[stride - 1 :: stride][: len(look.hot_x), None]
        frames = torch.cat([cold, look.hot_x], 1)
        few = -(-len(frames) * frames.shape[2] // FITTED)
        return MixtureMove.fit(self.system.mol, frames[:, :, ::few], seed=self.config.seed)

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
            info=added(info, rounds, steps),
        )
        limit = max(FRAMES, int(1 / self.config.precision**2))
        wanted = thinning(made + steps, limit // chains)
        return thinned(found, wanted // thin) if wanted > thin else found


def search(system: System, effort: Effort, seed: int) -> Found:
    """A search of ``effort.search_steps`` steps at once, here, without learned moves."""
    config = ConformersConfig(smiles="", seed=seed, learner="none", effort=effort)
    step = Search(system, config, Crew(config, system, 1), Budget(math.inf))
    with system.energy.stage("search"):
        found = step._start(effort)
        return step._round(effort, found, effort.search_steps - effort.warm)
