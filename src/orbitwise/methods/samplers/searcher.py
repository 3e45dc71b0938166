"""The searcher of a sampler configuration: weighted or equilibrium points of an energy, with clean
energies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from orbitwise.energies import Energy
from orbitwise.errors import EnergyError
from orbitwise.methods.samplers.targets import Target
from orbitwise.metrics.mixing import effective_sample_size
from orbitwise.runs.config import Config
from orbitwise.search import (
    HMC,
    MALA,
    AdjustedLangevin,
    GaussianPrior,
    Langevin,
    ReplicaExchange,
    anneal,
    explore,
    geometric_ladder,
    pilot,
    run,
    warmup,
)
from orbitwise.search.novelty import Novelty
from orbitwise.search.weights import effective
from orbitwise.training.progress import Progress, ProgressBar


@dataclass(frozen=True)
class Found:
    """``x: (n, *E)`` with the clean ``energy: (n,)`` and ``grad``; ``log_weight: (n,)`` of annealed
    points, 0 for chains; ``log_z``: unbiased estimate where the search gives one, with its error;
    ``independent``: how many independent samples they are worth, by the energies of chains and by
    the weights of others (None: all of them)."""

    x: Tensor
    energy: Tensor
    grad: Tensor
    log_weight: Tensor
    log_z: float | None = None
    log_z_error: float | None = None
    independent: int | None = None


class SearchConfig(Config):
    """``anneal``: sequential Monte Carlo from a Gaussian over ``levels`` with resampling;
    ``chains``: ``steps`` of one kernel after ``warmup`` steps; ``replica_exchange``: the same on
    ``rungs`` temperatures up to ``hottest`` times the target's; ``none``. ``kernel`` hmc (with
    ``leapfrog_steps``), mala, langevin (exact) or dynamics (underdamped, unadjusted). Starts are
    drawn from a Gaussian of width ``prior_scale``, or from the molecule's geometry.
    """

    method: Literal["anneal", "chains", "replica_exchange", "none"] = "chains"
    kernel: Literal["hmc", "mala", "langevin", "dynamics"] = "hmc"
    chains: int = Field(16, ge=1)
    steps: int = Field(500, ge=1)
    warmup: int = Field(200, ge=0)
    thin: int = Field(1, ge=1)
    leapfrog_steps: int = Field(10, ge=1)
    step_size: float = Field(0.05, gt=0)
    prior_scale: float = Field(1.0, gt=0)
    levels: int = Field(100, ge=2)
    rungs: int = Field(6, ge=2)
    hottest: float = Field(2.5, gt=1)

    def build_kernel(self):
        return {
            "hmc": lambda: HMC(self.step_size, self.leapfrog_steps),
            "mala": lambda: MALA(self.step_size),
            "langevin": lambda: AdjustedLangevin(self.step_size),
            "dynamics": lambda: Langevin(self.step_size),
        }[self.kernel]()

    @property
    def calls(self) -> int:
        """About how many evaluations one search takes."""
        if self.method == "none":
            return 0
        each = self.leapfrog_steps if self.kernel == "hmc" else 1
        if self.method == "anneal":
            return self.chains * (self.levels * each + 1) + 64 * (4 * each * self.levels // 2 + 1)
        rows = self.rungs if self.method == "replica_exchange" else 1
        starts = 6 * 15 * (self.chains + 16)
        return starts + rows * self.chains * each * (self.steps + self.warmup)

    def search(
        self,
        target: Target,
        energy: Energy,
        generator: torch.Generator,
        novelty: Novelty | None,
        weight: float,
    ) -> Found:
        """One round; with ``novelty`` on U - weight · bonus, whose clean energies are what is
        returned.

        Raises ``EnergyError`` where no chain found a finite energy.
        """
        if novelty is not None:
            return self._explore(target, energy, generator, novelty, weight)
        return (
            self._anneal(energy, generator)
            if self.method == "anneal"
            else self._chains(target, energy, generator)
        )

    def _prior(self, energy: Energy) -> GaussianPrior:
        return GaussianPrior(energy.event_shape, self.prior_scale, energy.zero_com)

    def _starts(self, target: Target, energy: Energy, count: int, generator) -> Tensor:
        """Starting points ``(count, *E)``: the molecule's geometry, or the ends of a short
        annealing from the prior."""
        if target.start is not None:
            return target.start.to(torch.float32).expand(count, *energy.event_shape).clone()
        kernel = HMC(self.step_size, 3)
        trial = pilot(
            energy, self._prior(energy), kernel, generator=generator, chains=16, steps=2, cess=0.5
        )
        done = anneal(
            energy,
            self._prior(energy),
            kernel,
            trial.with_levels(min(15, len(trial))),
            max(count, 16),
            generator=generator,
            resample_below=0.5,
            steps_per_level=2,
        )
        return done.x[done.draw(count, generator=generator)]

    def _anneal(self, energy: Energy, generator) -> Found:
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
            done.x[keep],
            done.energy[keep],
            done.grad[keep],
            weight - weight.max(),
            done.log_z,
            done.log_z_error,
            independent=max(1, round(effective(weight.double()))),
        )

    def _chains(self, target: Target, energy: Energy, generator) -> Found:
        kernel, row = self.build_kernel(), None
        x = self._starts(target, energy, self.chains, generator)
        if self.method == "replica_exchange":
            betas = geometric_ladder(1.0, self.hottest, self.rungs)
            kernel, row = ReplicaExchange(kernel, betas), 0
            x = x.expand(self.rungs, *x.shape).clone()
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
        alive = moved > 0.05  # a chain that started in an overlap never moves
        if not alive.any():
            raise EnergyError(
                "no chain of the search ever moved; set a smaller search.step_size or longer warmup"
            )
        x, value, grad = (v[:, alive].flatten(0, 1) for v in (trace.x, trace.energy, trace.grad))
        return Found(
            x, value, grad, torch.zeros_like(value), independent=_worth(trace.energy[:, alive])
        )

    def _explore(
        self, target: Target, energy: Energy, generator, novelty: Novelty, weight: float
    ) -> Found:
        """Chains on U - weight · bonus; the weights lead back to exp(-U)."""
        chains = min(self.chains, 64)  # of annealing there may be thousands
        each = self.leapfrog_steps if self.kernel == "hmc" else 1
        steps = max(10, self.calls // (chains * each) - self.warmup)
        done = explore(
            self.build_kernel(),
            self._starts(target, energy, chains, generator),
            energy,
            novelty,
            steps,
            weight=weight,
            warmup_steps=self.warmup,
            thin=self.thin,
            generator=generator,
        )
        if done.interrupted:
            raise KeyboardInterrupt
        alive = done.acceptance > 0.05
        if not alive.any():
            raise EnergyError(
                "no chain of the search ever moved; set a smaller search.step_size or longer warmup"
            )
        x, value, grad = (v[:, alive].flatten(0, 1) for v in (done.x, done.energy, done.grad))
        with torch.no_grad():
            tilt = torch.cat([novelty.bonus(part) for part in x.split(4096)])
        # chains hardly cross between modes: none is worth more than one sample of which mode is how
        # heavy
        worth = min(int(alive.sum()), max(1, round(effective((-weight * tilt).double()))))
        return Found(x, value, grad, -weight * tilt, independent=worth)


def _worth(energy: Tensor) -> int | None:
    """Independent samples that the energies ``(steps, chains)`` are worth; None where that cannot
    be told."""
    if len(energy) < 8:
        return None
    found = float(effective_sample_size(energy.T))
    return max(1, round(found)) if math.isfinite(found) else None
