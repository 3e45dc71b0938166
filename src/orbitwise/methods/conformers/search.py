"""Search: replica exchange of one molecule from embedded geometries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from orbitwise.methods.conformers.clock import Clock
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.molecules.molecule import embed
from orbitwise.molecules.search.stereo import Stereo
from orbitwise.runs.stages import Kept, Pipeline, Step
from orbitwise.search.quench import minimise
from orbitwise.search.run import run
from orbitwise.search.tempering import ReplicaExchange, geometric_ladder
from orbitwise.search.warmup import warmup
from orbitwise.training import ProgressBar

FRAMES = 20_000  # frames of the search that the learner sees


@dataclass(frozen=True)
class Found(Kept):
    """What the search left: ``x: (S, C, N, 3)`` and ``energy: (S, C)`` at the target temperature,
    in order of time; swap rate per neighbouring pair, round trips, acceptance per rung, moves
    refused for stereochemistry."""

    x: Tensor
    energy: Tensor
    step_size: float
    info: dict

    kept_as: ClassVar = {"info": "search"}


def search(system: System, effort: Effort, seed: int, frames: int = FRAMES) -> Found:
    """Replica exchange from quenched ETKDG embeddings; the first quarter is warm-up and is thrown
    away. About ``frames`` frames of the target temperature are kept."""
    betas = geometric_ladder(system.temperature, system.hottest, effort.rungs).to(system.device)
    generator = system.generator(seed)
    starts = torch.as_tensor(
        embed(system.mol, effort.chains, seed), device=system.device, dtype=system.dtype
    )
    stereo = Stereo.from_mol(system.mol, starts[0])
    with system.energy.stage("search"):
        starts = minimise(starts, system.energy, tolerance=5.0, max_steps=100).x
        starts = starts - starts.mean(-2, keepdim=True)
        kernel = ReplicaExchange(system.kernel(stereo, effort.leapfrog), betas)
        state = kernel.init(starts.expand(len(betas), *starts.shape).contiguous(), system.energy)
        warm = effort.search_steps // 4
        with ProgressBar("search") as show:
            clock = Clock(show, effort.search_steps)
            state = warmup(
                kernel,
                state,
                system.energy,
                warm,
                generator=generator,
                observe=lambda n, s, i: clock(n),
            )
            steps = effort.search_steps - warm
            thin = max(1, round(steps * effort.chains / frames))
            trace = run(
                kernel,
                state,
                system.energy,
                steps,
                generator=generator,
                thin=thin,
                row=0,
                observe=lambda n, s, i: clock(warm + n),
            )

    if trace.interrupted:
        raise KeyboardInterrupt
    info = {
        "temperatures": (system.temperature / betas).tolist(),
        "acceptance": trace.acceptance.mean(-1).tolist(),
        "swap_rate": trace.rates.swap_rate.tolist(),
        "round_trips": int(trace.state.round_trips.sum()),
        "stereo_rejections": trace.count("left_class"),
        "frames_every": thin,
        "steps": steps,
    }
    return Found(trace.x, trace.energy, float(trace.state.step_size[0].mean()), info)


@dataclass(frozen=True)
class Search(Step[Found]):
    """``search`` as a stage."""

    system: System
    seed: int

    name, makes = "search", Found

    def make(self, pipe: Pipeline) -> Found:
        return search(self.system, pipe[Effort], self.seed)
