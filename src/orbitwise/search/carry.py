"""Samples of one energy carried to another: sequential Monte Carlo along ``U_λ = (1-λ) U_low + λ
U_high``.

P. Del Moral, A. Doucet and A. Jasra, J. R. Stat. Soc. B 68, 411 (2006), with the annealed path of
Neal (Stat. Comput. 11, 125, 2001); the ladder keeps the conditional effective size (Y. Zhou, A. M.
Johansen and J. A. D. Aston, arXiv 1303.3123, eq. 14). Islands of particles are resampled apart and
exchange nothing, so that their scatter is the error of everything that is said of all of them (C.
Vergé et al., Stat. Comput. 25, 243, 2015).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import EnergyError, InputError
from orbitwise.search.base import Kernel
from orbitwise.search.clean import Clean, supported
from orbitwise.search.cycle import Cycle
from orbitwise.search.metropolis import initial_step
from orbitwise.search.schedule import AnnealingPath, drop, widest
from orbitwise.search.tempering import ReplicaExchange
from orbitwise.search.weights import effective, log_mean, normalised, systematic

PRUDENCE = 0.9  # share of the time left that levels are planned for


@dataclass(frozen=True, eq=False)
class Carried:
    """Weighted points of exp(-U_high), in islands.

    ``x: (C, *event)``, ``energy: (C,)`` [kT] of the high energy, ``log_weight: (C,)`` float64;
    ``island: (C,)`` and ``ancestor: (C,)``, the start that a point descends from.
    ``free_energy = -log(Z_high / Z_low)`` [kT] with ``free_energy_error``, by jackknife over
    islands. ``ess``: effective number of points by their weights; ``families``: of starts that the
    weight descends from, the smaller of the two after much resampling. ``levels: (L,)``: the λ
    used, ``acceptance: (L,)`` there of the kernel's first part, ``resampled``: how often, islands
    added up; ``complete``: False where time ran out and the rest of the path was weighed at once,
    without moves (still right, with few effective points). ``step_size`` at the end; ``seconds``.
    """

    x: Tensor
    energy: Tensor
    log_weight: Tensor
    island: Tensor
    ancestor: Tensor
    free_energy: float
    free_energy_error: float
    ess: float
    families: float
    levels: Tensor
    acceptance: Tensor
    resampled: int
    complete: bool
    step_size: float
    seconds: float

    def mean(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of ``value: (C, *K)`` under exp(-U_high) and its standard error, ``(*K)`` each; of
        ``one_hot`` labels, populations."""
        return weighted_mean(value, self.log_weight, self.island)


def weighted_mean(value: Tensor, log_weight: Tensor, island: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of ``value: (C, *K)`` and its standard error by jackknife over islands."""
    count = int(island.max()) + 1
    w = normalised(log_weight.double()).view(-1, *[1] * (value.ndim - 1))
    value = value.double()
    above = value.new_zeros(count, *value.shape[1:]).index_add_(0, island, w * value)
    below = value.new_zeros(count, *[1] * (value.ndim - 1)).index_add_(0, island, w)
    left_out = (above.sum(0) - above) / (below.sum(0) - below)
    return above.sum(0), jackknife(left_out)


def jackknife(left_out: Tensor) -> Tensor:
    """Standard error from estimates ``(I, *K)`` without each of I groups."""
    count = len(left_out)
    return (left_out.var(0, correction=0) * (count - 1)).sqrt()


def carry(
    low: Energy,
    high: Energy,
    kernel: Kernel,
    x: Tensor,
    log_weight: Tensor | None = None,
    *,
    particles: int,
    islands: int = 8,
    moves: int = 2,
    cess: float = 0.9,
    resample_below: float = 0.5,
    step_size: float = 0.015,
    seconds: float | None = None,
    generator: torch.Generator | None = None,
    observe: Callable[[float], object] | None = None,
) -> Carried:
    """Take samples ``x: (M, *event)`` of exp(-U_low), with ``log_weight: (M,)`` where they have
    unequal ones, to exp(-U_high) as ``particles`` weighted points.

    The samples are cut into as many contiguous blocks as ``islands``; what an island starts from is
    drawn from its own block. Where neighbours in ``x`` are of one chain, the errors then hold what
    the chains do not agree in. The next λ is where the conditional effective size of all particles
    falls to ``cess``; an island whose own effective size falls below ``resample_below`` is
    resampled; then every particle makes ``moves`` moves of the kernel at that λ, also at λ = 1.

    ``kernel``: one with one proposal per step and no memory (HMC, MALA, a torsion move, these kept
    in a stereo class), or a ``Cycle`` of such; each is exact at its λ. All particles share its step
    size, which begins with ``step_size`` and follows the acceptance from level to level. The bias
    of the adaptive ladder and step size is of order 1/particles, below the error.

    Evaluations of each energy with its gradient: ``particles · (1 + levels · moves · steps)``, with
    the leapfrog steps of an HMC. Where ``seconds`` would not suffice, steps in λ are made wider
    than ``cess`` asks for; when they are over, what is left of the path is taken at once, without
    moves. ``observe(λ)`` is called after each move; a true answer is as if time were over.

    Raises ``InputError`` for parts that do not fit and ``EnergyError`` where no sample has a finite
    high energy.
    """
    check(low, high, kernel, x, particles, islands, moves)
    begin = time.monotonic()
    swarm = Swarm.drawn(x, log_weight, particles // islands, islands, high, generator)
    path = AnnealingPath(high, low, 0.0)
    parts = kernel.kernels if isinstance(kernel, Cycle) else (kernel,)
    target = parts[0].target_acceptance
    log_step, over = math.log(step_size), False
    levels, acceptance, resampled = [], [], 0

    while path.beta < 1.0:
        delta = drop(low, swarm.x, swarm.clean)
        room = 1.0 - path.beta
        step = room if over else widest(delta, cess, room, normalised(swarm.log_weight))
        if seconds is not None and levels and not over:
            spent = max(time.monotonic() - begin, 1e-9)
            affordable = max(1, int(PRUDENCE * (seconds - spent) / spent * len(levels)))
            step = max(step, room / affordable)
        swarm.log_weight = swarm.log_weight - step * delta
        path.beta = 1.0 if step == room else path.beta + step

        rate = torch.zeros(())
        if not over:  # points that do not move apart again are not doubled
            resampled += swarm.resample(resample_below, generator)
            for move in range(moves):
                rate = rate + swarm.move(parts, path, math.exp(log_step), generator) / moves
                stop = observe is not None and observe(path.beta - step * (1 - (move + 1) / moves))
                over = bool(stop) or (seconds is not None and time.monotonic() - begin > seconds)
                if over:
                    break
            if target is not None:
                log_step += min(max(3.0 * (rate.item() - target), -1.0), 1.0)
        levels.append(path.beta)
        acceptance.append(rate.item())

    return swarm.carried(levels, acceptance, resampled, not over, math.exp(log_step), begin)


def check(
    low: Energy, high: Energy, kernel: Kernel, x: Tensor, particles: int, islands: int, moves: int
) -> None:
    """``InputError`` for what cannot be carried."""
    if isinstance(kernel, ReplicaExchange):
        raise InputError("carry needs a kernel of one proposal per step, such as HMC")
    if tuple(low.event_shape) != tuple(high.event_shape) or low.zero_com != high.zero_com:
        raise InputError(
            f"the two energies are of different systems: {tuple(low.event_shape)} and"
            f" {tuple(high.event_shape)}, zero_com {low.zero_com} and {high.zero_com}"
        )
    if x.shape[1:] != tuple(high.event_shape):
        raise InputError(f"samples must be (M, *{tuple(high.event_shape)}), got {tuple(x.shape)}")
    if islands < 2 or particles < 2 * islands or len(x) < islands or moves < 1:
        raise InputError(
            "carry needs two islands or more, two particles and a sample for each, and a move; got"
            f" {islands} islands, {particles} particles, {len(x)} samples and {moves} moves"
        )


@dataclass(eq=False)
class Swarm:
    """All islands on their way: points, what the high energy is there, their weights and starts;
    the particles of an island stand together, ``size`` of them."""

    x: Tensor
    clean: Clean
    log_weight: Tensor
    ancestor: Tensor
    size: int

    @classmethod
    def drawn(
        cls,
        x: Tensor,
        log_weight: Tensor | None,
        size: int,
        islands: int,
        high: Energy,
        generator: torch.Generator | None,
    ) -> Swarm:
        equal = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        log_weight = equal if log_weight is None else log_weight.to(equal)
        index, start = [], []
        for block in torch.arange(len(x), device=x.device).tensor_split(islands):
            own = log_weight[block]
            index.append(block[systematic(normalised(own), size, generator)])
            share = log_mean(own) - log_mean(log_weight)
            start.append(torch.full((size,), share, dtype=torch.float64, device=x.device))

        x = x[torch.cat(index)]
        clean = supported(Clean(*high.value_and_grad(x)))
        if not torch.isfinite(clean.energy).any():
            raise EnergyError("no sample has a finite energy at the higher level")
        return cls(x, clean, torch.cat(start), torch.cat(index), size)

    def resample(self, below: float, generator: torch.Generator | None) -> int:
        """Each island with too few effective particles, for itself; how many were."""
        index = torch.arange(len(self.x), device=self.x.device)
        count = 0
        for first in range(0, len(self.x), self.size):
            island = slice(first, first + self.size)
            own = self.log_weight[island]
            if 0 < effective(own) < below * self.size:
                index[island] = first + systematic(normalised(own), self.size, generator)
                self.log_weight[island] = log_mean(own)
                count += 1
        if count:
            self.x, self.ancestor = self.x[index], self.ancestor[index]
            self.clean = Clean(self.clean.energy[index], self.clean.grad[index])
        return count

    def move(
        self,
        parts: tuple[Kernel, ...],
        path: AnnealingPath,
        step_size: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """One step of each part; the mean acceptance probability of the first."""
        state = path.state(self.x, self.clean, initial_step(step_size, self.clean.energy))
        rate = None
        for part in parts:
            state, info = part.step(state, path, generator)
            self.clean = self.clean.update(info.accepted, path.last)
            rate = info.log_accept.double().exp().mean().cpu() if rate is None else rate
        self.x = state.x
        return rate

    def carried(
        self,
        levels: list[float],
        acceptance: list[float],
        resampled: int,
        complete: bool,
        step_size: float,
        begin: float,
    ) -> Carried:
        log_weight, count = self.log_weight, len(self.x) // self.size
        if not torch.isfinite(log_weight).any():
            raise EnergyError("all weights are zero: no particle has a finite energy at the end")
        shares = log_weight.view(count, self.size).logsumexp(1) - math.log(self.size)
        without = [log_mean(shares[torch.arange(count) != k]) for k in range(count)]
        starts = torch.unique(self.ancestor, return_inverse=True)[1]
        family = torch.zeros(len(self.x), dtype=torch.float64, device=self.x.device)
        family.index_add_(0, starts, normalised(log_weight))
        return Carried(
            x=self.x,
            energy=self.clean.energy,
            log_weight=log_weight,
            island=torch.arange(count, device=self.x.device).repeat_interleave(self.size),
            ancestor=self.ancestor,
            free_energy=-log_mean(log_weight),
            free_energy_error=float(jackknife(torch.tensor(without, dtype=torch.float64))),
            ess=effective(log_weight),
            families=1.0 / family.square().sum().item(),
            levels=torch.tensor(levels, dtype=torch.float64),
            acceptance=torch.tensor(acceptance, dtype=torch.float64),
            resampled=resampled,
            complete=complete,
            step_size=step_size,
            seconds=time.monotonic() - begin,
        )
