"""The searches of a sampler configuration: annealing, chains, replica exchange, or none."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from orbitwise.energies import Energy
from orbitwise.methods.samplers.searcher import Found, MovingConfig, NoSearchConfig, moving
from orbitwise.methods.samplers.targets import Target
from orbitwise.metrics.mixing import effective_sample_size
from orbitwise.runs.choice import named
from orbitwise.search import ReplicaExchange, anneal, geometric_ladder, pilot, run, warmup
from orbitwise.search.base import Kernel
from orbitwise.search.weights import effective
from orbitwise.training.progress import Progress, ProgressBar


class AnnealConfig(MovingConfig):
    """Sequential Monte Carlo from a Gaussian over ``levels`` with resampling."""

    method: Literal["anneal"] = "anneal"
    levels: int = Field(100, ge=2)

    @property
    def calls(self) -> int:
        each = self.calls_a_step
        return self.chains * (self.levels * each + 1) + 64 * (4 * each * self.levels // 2 + 1)

    def _plain(self, target: Target, energy: Energy, generator: torch.Generator) -> Found:
        prior, kernel = self._prior(energy), self.build_kernel()
        schedule = pilot(energy, prior, kernel, generator=generator).with_levels(self.levels)
        with ProgressBar("annealing") as bar:
            done = anneal(
                energy,
                prior,
                kernel,
                schedule,
                self.chains,
                generator=generator,
                resample_below=0.5,
                observe=lambda n, state, info: bar(Progress(n, self.levels)),
            )
        keep = torch.isfinite(done.log_weight)
        weight = done.log_weight[keep].to(done.energy)
        return Found(
            x=done.x[keep],
            energy=done.energy[keep],
            grad=done.grad[keep],
            log_weight=weight - weight.max(),
            log_z=done.log_z,
            log_z_error=done.log_z_error,
            independent=max(1, round(effective(weight.double()))),
        )


class ChainsConfig(MovingConfig):
    """``steps`` of one kernel after ``warmup`` steps."""

    method: Literal["chains"] = "chains"
    steps: int = Field(500, ge=1)

    @property
    def calls(self) -> int:
        return self._calls(rows=1)

    def _calls(self, rows: int) -> int:
        starts = 6 * 15 * (self.chains + 16)
        return starts + rows * self.chains * self.calls_a_step * (self.steps + self.warmup)

    def _plain(self, target: Target, energy: Energy, generator: torch.Generator) -> Found:
        starts = self._starts(target, energy, self.chains, generator)
        return self._run(self.build_kernel(), starts, energy, generator)

    def _run(
        self,
        kernel: Kernel,
        x: Tensor,
        energy: Energy,
        generator: torch.Generator,
        row: int | None = None,
    ) -> Found:
        """``row``: of several temperatures the one that is kept."""
        total = self.warmup + self.steps
        with ProgressBar("search") as bar:

            def show(done):
                return lambda n, state, info: bar(Progress(done + n, total))

            state = kernel.init(x, energy)
            if self.warmup:
                state = warmup(
                    kernel, state, energy, self.warmup, generator=generator, observe=show(0)
                )
            trace = run(
                kernel,
                state,
                energy,
                self.steps,
                generator=generator,
                thin=self.thin,
                row=row,
                gradients=True,
                observe=show(self.warmup),
            )
        if trace.interrupted:
            raise KeyboardInterrupt
        moved = trace.acceptance if row is None else trace.acceptance[row]
        alive = moving(moved)
        x, value, grad = (v[:, alive].flatten(0, 1) for v in (trace.x, trace.energy, trace.grad))
        return Found(
            x, value, grad, torch.zeros_like(value), independent=_worth(trace.energy[:, alive])
        )


class ReplicaExchangeConfig(ChainsConfig):
    """The same on ``rungs`` temperatures up to ``hottest`` times the target's."""

    method: Literal["replica_exchange"] = "replica_exchange"
    rungs: int = Field(6, ge=2)
    hottest: float = Field(2.5, gt=1)

    @property
    def calls(self) -> int:
        return self._calls(rows=self.rungs)

    def _plain(self, target: Target, energy: Energy, generator: torch.Generator) -> Found:
        x = self._starts(target, energy, self.chains, generator)
        betas = geometric_ladder(1.0, self.hottest, self.rungs)
        kernel = ReplicaExchange(self.build_kernel(), betas)
        return self._run(kernel, x.expand(self.rungs, *x.shape).clone(), energy, generator, row=0)


SearchConfig = Annotated[
    NoSearchConfig | AnnealConfig | ChainsConfig | ReplicaExchangeConfig,
    Field(discriminator="method"),
    BeforeValidator(named("chains", "method")),
]


def _worth(energy: Tensor) -> int | None:
    """Independent samples that the energies ``(steps, chains)`` are worth; None where that cannot
    be told."""
    if len(energy) < 8:
        return None
    found = float(effective_sample_size(energy.T))
    return max(1, round(found)) if math.isfinite(found) else None
