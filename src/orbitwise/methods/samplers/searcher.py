"""What every search of a sampler configuration has: the points it finds, with clean energies, the
kernel and the starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from orbitwise.energies import Energy
from orbitwise.errors import EnergyError, InputError
from orbitwise.methods.samplers.targets import Target
from orbitwise.runs.choice import Choice
from orbitwise.runs.named import Kind
from orbitwise.runs.own import OrOwn, Own
from orbitwise.runs.stages import Kept
from orbitwise.search import (
    HMC,
    MALA,
    AdjustedLangevin,
    GaussianPrior,
    Langevin,
    anneal,
    explore,
    pilot,
)
from orbitwise.search.base import Kernel
from orbitwise.search.novelty import Novelty
from orbitwise.search.weights import effective

KERNEL = Kind(
    "a kernel (orbitwise.search.base.Kernel: init, step, target_acceptance, step_dims)",
    members=("target_acceptance", "step_dims"),
    methods=("init", "step"),
)


@dataclass(frozen=True)
class Found(Kept):
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


class SearchChoice(Choice):
    """A search by its ``method``."""

    tag: ClassVar[str] = "method"
    flat: ClassVar = {
        "kernel": "hmc",
        "chains": 16,
        "steps": 500,
        "warmup": 200,
        "thin": 1,
        "leapfrog_steps": 10,
        "step_size": 0.05,
        "prior_scale": 1.0,
        "levels": 100,
        "rungs": 6,
        "hottest": 2.5,
    }

    @property
    def calls(self) -> int:
        """About how many evaluations one search takes."""
        raise NotImplementedError

    def search(
        self,
        target: Target,
        energy: Energy,
        generator: torch.Generator,
        novelty: Novelty | None = None,
        weight: float = 0.0,
    ) -> Found:
        """One round; with ``novelty`` on U - weight · bonus, whose clean energies are what is
        returned.

        Raises ``EnergyError`` where no chain found a finite energy.
        """
        if novelty is not None:
            return self._explore(target, energy, generator, novelty, weight)
        return self._plain(target, energy, generator)

    def _plain(self, target: Target, energy: Energy, generator: torch.Generator) -> Found:
        raise InputError(
            f"method {self.method} searches nothing; use anneal, chains or replica_exchange"
        )


class NoSearchConfig(SearchChoice):
    """Nothing is searched."""

    method: Literal["none"] = "none"

    @property
    def calls(self) -> int:
        return 0


class OwnKernel(Own):
    """A kernel of one's own; one with parameters ``step_size`` or ``leapfrog_steps`` gets those of
    the search."""

    role: ClassVar[str] = "search.kernel"
    kind: ClassVar[Kind] = KERNEL


class MovingConfig(SearchChoice):
    """Points moved by a ``kernel``: hmc (with ``leapfrog_steps``), mala, langevin (exact),
    dynamics (underdamped, unadjusted), or one's own. Starts are drawn from a Gaussian of
    width ``prior_scale``, or from the molecule's geometry. ``warmup`` and ``thin`` of chains, which
    every search with a novelty runs.
    """

    kernel: Annotated[Literal["hmc", "mala", "langevin", "dynamics"], OrOwn(OwnKernel)] = "hmc"
    chains: int = Field(16, ge=1)
    warmup: int = Field(200, ge=0)
    thin: int = Field(1, ge=1)
    leapfrog_steps: int = Field(10, ge=1)
    step_size: float = Field(0.05, gt=0)
    prior_scale: float = Field(1.0, gt=0)

    def build_kernel(self) -> Kernel:
        chosen: object = self.kernel
        if isinstance(chosen, OwnKernel):
            return chosen.part(step_size=self.step_size, leapfrog_steps=self.leapfrog_steps)
        return {
            "hmc": lambda: HMC(self.step_size, self.leapfrog_steps),
            "mala": lambda: MALA(self.step_size),
            "langevin": lambda: AdjustedLangevin(self.step_size),
            "dynamics": lambda: Langevin(self.step_size),
        }[self.kernel]()

    @property
    def calls_a_step(self) -> int:
        return self.leapfrog_steps if self.kernel == "hmc" else 1

    def _prior(self, energy: Energy) -> GaussianPrior:
        return GaussianPrior(energy.event_shape, self.prior_scale, energy.zero_com)

    def _starts(
        self, target: Target, energy: Energy, count: int, generator: torch.Generator
    ) -> Tensor:
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

    def _explore(
        self,
        target: Target,
        energy: Energy,
        generator: torch.Generator,
        novelty: Novelty,
        weight: float,
    ) -> Found:
        """Chains on U - weight · bonus; the weights lead back to exp(-U)."""
        chains = min(self.chains, 64)  # of annealing there may be thousands
        steps = max(10, self.calls // (chains * self.calls_a_step) - self.warmup)
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
        alive = moving(done.acceptance)
        x, value, grad = (v[:, alive].flatten(0, 1) for v in (done.x, done.energy, done.grad))
        with torch.no_grad():
            tilt = torch.cat([novelty.bonus(part) for part in x.split(4096)])
        # chains hardly cross between modes: none is worth more than one sample of which mode is how
        # heavy
        worth = min(int(alive.sum()), max(1, round(effective((-weight * tilt).double()))))
        return Found(x, value, grad, -weight * tilt, independent=worth)


def moving(acceptance: Tensor) -> Tensor:
    """Chains that move: one that started in an overlap never does. ``EnergyError`` without any."""
    alive = acceptance > 0.05
    if not alive.any():
        raise EnergyError(
            "no chain of the search ever moved; set a smaller search.step_size or longer warmup"
        )
    return alive
