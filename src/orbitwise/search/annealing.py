"""Annealed importance sampling with exact transitions (Neal, Stat. Comput. 11, 125, 2001;
physics/9803008).

With resampling it is a sequential Monte Carlo sampler (Del Moral, Doucet and Jasra, J. R. Stat.
Soc. B 68, 411, 2006). Either way the mean weight is an unbiased estimate of Z, since every
transition leaves its level exactly invariant and nothing adapts during the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import EnergyError, InputError
from orbitwise.search.base import Info, Kernel, State
from orbitwise.search.clean import Clean, Follow, supported
from orbitwise.search.metropolis import initial_step
from orbitwise.search.prior import Prior
from orbitwise.search.schedule import AnnealingPath, Schedule, check_path, drop, pilot
from orbitwise.search.weights import effective, log_mean, log_mean_error, normalised, systematic


@dataclass(frozen=True, eq=False)
class Annealed:
    """Weighted points of the target.

    ``x: (C, *event)``, the energy's own ``energy: (C,)`` [kT] and ``grad`` there; ``log_weight:
    (C,)`` float64, -inf for a chain that never left a region of infinite energy; ``ancestor:
    (C,)``: the start each chain descends from (its own without resampling). ``log_z`` with
    ``log_z_error`` (see ``log_mean_error``), ``ess`` the effective number of chains. ``acceptance:
    (L,)`` of each level of ``schedule``; ``resampled``: how often. ``seconds``; ``interrupted`` by
    Ctrl-C (what is here is still unbiased).
    """

    x: Tensor
    energy: Tensor
    grad: Tensor
    log_weight: Tensor
    ancestor: Tensor
    log_z: float
    log_z_error: float
    ess: float
    acceptance: Tensor
    schedule: Schedule
    resampled: int
    seconds: float
    interrupted: bool

    def draw(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Indices ``(count,)`` of points in proportion to their weights (systematic resampling)."""
        return systematic(normalised(self.log_weight), count, generator)


@dataclass(frozen=True)
class _Part:
    """A batch of chains that went all the way."""

    x: Tensor
    clean: Clean
    log_weight: Tensor
    ancestor: Tensor
    acceptance: Tensor
    resampled: int


def anneal(
    energy: Energy,
    prior: Prior,
    kernel: Kernel,
    schedule: Schedule | Tensor | int,
    chains: int,
    *,
    generator: torch.Generator | None = None,
    steps_per_level: int = 1,
    resample_below: float = 0.0,
    chunk: int | None = None,
    observe: Callable[[int, State, Info], object] | None = None,
) -> Annealed:
    """Take ``chains`` samples of ``prior`` to the target exp(-U) along ``U_β = (1-β) U_prior + β
    U``.

    ``schedule``: levels and step sizes. A tensor of betas or a number of levels first makes a
    ``pilot`` run with its defaults, which places that many levels at equal conditional effective
    sizes; its evaluations are on the same account. ``kernel``: MALA or HMC (Metropolis-tested, no
    memory); it makes ``steps_per_level`` steps at every level, the last (β = 1) included, where
    they do not change the weights.

    ``resample_below``: resample (systematic) when the effective number of chains falls below this
    share, 0 for never. ``chunk``: chains at a time, for memory; each chunk is resampled by itself.

    Evaluations of U with its gradient: ``chains · (1 + levels · steps_per_level)``, for HMC with
    the steps times ``leapfrog_steps``; energies of the points returned are remembered, not computed
    again. A proposal that is not finite is rejected; a start that is not finite has weight zero.

    ``observe(n, state, info)`` is called after every step (``state.energy`` is that of the path). A
    true answer or Ctrl-C ends the run: what reached β = 1 is returned, with ``interrupted`` set, if
    anything did, else ``KeyboardInterrupt`` is raised. Raises ``InputError`` for parts that do not
    fit or have no exact transitions and ``EnergyError`` where all weights are zero.
    """
    check_path(energy, prior, kernel)
    if (
        chains < 1
        or steps_per_level < 1
        or (chunk is not None and chunk < 1)
        or not 0 <= resample_below <= 1
    ):
        raise InputError(
            "annealing needs chains, steps_per_level and chunk of at least 1 and resample_below in"
            f" [0, 1]; got {chains}, {steps_per_level}, {chunk} and {resample_below}"
        )

    begin = time.perf_counter()
    if isinstance(schedule, Tensor):
        schedule = pilot(energy, prior, kernel, betas=schedule, generator=generator)
    elif isinstance(schedule, int):
        schedule = pilot(energy, prior, kernel, generator=generator).with_levels(schedule)

    chunk = chains if chunk is None else chunk
    run = _Run(energy, prior, kernel, schedule, steps_per_level, resample_below, generator, observe)
    parts, interrupted = [], False
    try:
        for first in range(0, chains, chunk):
            parts.append(run.chunk(min(chunk, chains - first), first))
            if run.stopped:
                break
        interrupted = run.stopped
    except KeyboardInterrupt:
        if not parts:
            raise
        interrupted = True
    return _collect(parts, prior, schedule, time.perf_counter() - begin, interrupted)


class _Run:
    def __init__(self, energy, prior, kernel, schedule, steps, resample_below, generator, observe):
        self.energy, self.prior, self.kernel, self.schedule = energy, prior, kernel, schedule
        self.steps, self.resample_below = steps, resample_below
        self.generator, self.observe = generator, observe
        self.done, self.stopped = 0, False

    def chunk(self, count: int, first: int) -> _Part:
        x = self.prior.sample((count,), generator=self.generator)
        clean = supported(Clean(*self.energy.value_and_grad(x)))
        path = AnnealingPath(self.energy, self.prior)
        log_weight = torch.zeros(count, dtype=torch.float64, device=x.device)
        ancestor = torch.arange(first, first + count, device=x.device)
        acceptance, resampled, beta = [], 0, 0.0
        sizes = self.schedule.step_size.tolist()
        for level, following in enumerate(self.schedule.betas.tolist()):
            # Neal's eq. 11: the weight grows by the ratio of neighbouring densities at the present
            # point.
            log_weight = log_weight - (following - beta) * drop(self.prior, x, clean)
            beta = path.beta = following
            if (
                effective(log_weight) < self.resample_below * count
                and torch.isfinite(log_weight).any()
            ):
                index = systematic(normalised(log_weight), count, self.generator)
                x, clean = x[index], Clean(clean.energy[index], clean.grad[index])
                ancestor, resampled = ancestor[index], resampled + 1
                log_weight = torch.full_like(log_weight, log_mean(log_weight))
            x, clean, rate = self._move(
                path, path.state(x, clean, initial_step(sizes[level], clean.energy)), clean
            )
            acceptance.append(rate)
        return _Part(x, clean, log_weight, ancestor, torch.stack(acceptance), resampled)

    def _move(
        self, path: AnnealingPath, state: State, clean: Clean
    ) -> tuple[Tensor, Clean, Tensor]:
        """The steps of one level. At the last level the weights are final, so that an end there is
        no loss."""
        follow, rate = (
            Follow(path, clean),
            torch.zeros((), dtype=torch.float64, device=state.x.device),
        )
        for _ in range(self.steps):
            if self.stopped and path.beta == 1.0:
                break
            state, info = self.kernel.step(state, path, self.generator)
            self.done += 1
            follow(self.done, state, info)
            rate = rate + info.accepted.double().mean() / self.steps
            if self.observe is not None and self.observe(self.done, state, info):
                self.stopped = True
                if path.beta < 1.0:
                    raise KeyboardInterrupt(
                        "annealing was stopped before these chains reached the target"
                    )
        return state.x, follow.clean, rate


def _collect(
    parts: list[_Part], prior: Prior, schedule: Schedule, seconds: float, interrupted: bool
) -> Annealed:
    log_weight = torch.cat([p.log_weight for p in parts]) + prior.log_z
    if not torch.isfinite(log_weight).any():
        raise EnergyError(
            "all weights are zero: no chain ever had a finite energy; choose a wider prior or a"
            " finer schedule"
        )
    ancestor = torch.cat([p.ancestor for p in parts])
    return Annealed(
        x=torch.cat([p.x for p in parts]),
        energy=torch.cat([p.clean.energy for p in parts]),
        grad=torch.cat([p.clean.grad for p in parts]),
        log_weight=log_weight,
        ancestor=ancestor,
        log_z=log_mean(log_weight),
        log_z_error=log_mean_error(log_weight, ancestor),
        ess=effective(log_weight),
        acceptance=sum(p.acceptance * len(p.x) for p in parts) / len(log_weight),
        schedule=schedule,
        resampled=sum(p.resampled for p in parts),
        seconds=seconds,
        interrupted=interrupted,
    )
