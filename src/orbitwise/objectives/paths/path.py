"""Paths of a diffusion sampler and their densities, all (batch x time) states in one network call.

A path from the learner is rolled out without a graph, one backwards from a sample of the target is
a Brownian bridge; both are known before any gradient is taken. So the densities of their steps need
no sequential calls, and a random subset of the steps gives an unbiased gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.objectives.paths.sampler import DiffusionSampler


@dataclass(frozen=True)
class Paths:
    """``x: (T+1, B, *E)`` at ``times: (T+1,)``; ``energy: (B,)`` U of the last state [kT].

    ``grad: (T, B, *E)``: ∇U of every state but the last, where the sampler has a Langevin term.
    ``log_ratio: (B,)``: log P_F(path) - log P_B(path | x_1), where it was computed on the way.
    """

    x: Tensor
    times: Tensor
    energy: Tensor
    grad: Tensor | None = None
    log_ratio: Tensor | None = None

    def __len__(self) -> int:
        return len(self.energy)

    @property
    def steps(self) -> int:
        return len(self.times) - 1


class NoEnergy:
    """Stands for an energy where a roll-out is only asked where it ends: zero, and never
    counted."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x))

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raise InputError("a sampler with a Langevin term needs the energy to be rolled out")


def join(a: Paths, b: Paths) -> Paths:
    """The paths of both, on the same times."""
    if len(a) == 0 or len(b) == 0:
        return b if len(a) == 0 else a
    ratio = (
        None
        if a.log_ratio is None or b.log_ratio is None
        else torch.cat([a.log_ratio, b.log_ratio])
    )
    grad = None if a.grad is None else torch.cat([a.grad, b.grad], 1)
    return Paths(torch.cat([a.x, b.x], 1), a.times, torch.cat([a.energy, b.energy]), grad, ratio)


def first_state(sampler: DiffusionSampler, count: int, start: Tensor, generator) -> Tensor:
    """Where paths begin, ``(count, *E)``."""
    return sampler.start_kernel(count, start).variance.sqrt() * sampler.normal(count, generator)


@torch.no_grad()
def roll_out(
    sampler: DiffusionSampler,
    energy: Energy | NoEnergy,
    count: int,
    generator: torch.Generator | None,
    times: Tensor | None = None,
) -> Paths:
    """``count`` paths of the learner, with their ``log_ratio``. One energy per path, and with a
    Langevin term one gradient per step."""
    times = sampler.times(generator) if times is None else times
    x = first_state(sampler, count, times[0], generator)
    ratio = sampler.start_density(x, times[0])
    states, grads = [x], []
    for t, after in pairwise(times):
        now, then = t.expand(count), after.expand(count)
        grad = energy.value_and_grad(x)[1] if sampler.langevin is not None else None
        kernel = sampler.forward_kernel(x, now, then, grad)
        new = kernel.mean + kernel.variance.sqrt() * sampler.normal(count, generator)
        ratio = ratio + kernel.log_density(new)
        if float(t) > 0:
            ratio = ratio - sampler.backward_kernel(new, now, then).log_density(x)
        x = new
        states.append(x)
        if grad is not None:
            grads.append(grad)
    return Paths(
        torch.stack(states), times, energy(x), torch.stack(grads) if grads else None, ratio
    )


@torch.no_grad()
def bridges(
    sampler: DiffusionSampler,
    energy: Energy,
    x1: Tensor,
    end_energy: Tensor,
    generator: torch.Generator | None,
    times: Tensor | None = None,
) -> Paths:
    """Paths of P_B back from ``x1: (B, *E)`` with known energies ``end_energy: (B,)``.

    With the fixed P_B these are Brownian bridges, drawn for all times at once; a learned one goes
    step by step.
    """
    times = sampler.times(generator) if times is None else times
    x1 = sampler.centre(x1.to(sampler.data_scale))
    count, inner = len(x1), times[:-1]
    if sampler.backward_network is None:
        # pin a free motion W at t = 1: x_t = t x_1 + noise (W_t - t W_1)
        width = torch.diff(times, prepend=times.new_zeros(1)).sqrt()
        free = sampler.normal(count * len(times), generator).view(len(times), count, *x1.shape[1:])
        free = (free * width.view(-1, *[1] * x1.ndim)).cumsum(0)
        t = inner.view(-1, *[1] * x1.ndim)
        x = torch.cat([t * x1 + sampler.noise * (free[:-1] - t * free[-1]), x1[None]])
    else:
        x = x1.new_zeros(len(times), *x1.shape)
        x[-1] = x1
        for k in range(len(inner) - 1, -1, -1):
            if float(times[k]) > 0:
                kernel = sampler.backward_kernel(
                    x[k + 1], times[k].expand(count), times[k + 1].expand(count)
                )
                x[k] = kernel.mean + kernel.variance.sqrt() * sampler.normal(count, generator)
    grad = None
    if sampler.langevin is not None:
        grad = energy.value_and_grad(x[:-1].flatten(0, 1))[1].view_as(x[:-1])
    return Paths(x, times, end_energy.to(x1), grad)


def step_ratios(sampler: DiffusionSampler, paths: Paths, steps: Tensor | None = None) -> Tensor:
    """``log P_F(x_{k+1} | x_k) - log P_B(x_k | x_{k+1})`` of the chosen ``steps: (K,)`` (all):
    ``(K, B)``.

    One network call; the start density belongs to step 0. Differentiable in the sampler's
    parameters.
    """
    k = torch.arange(paths.steps, device=paths.times.device) if steps is None else steps
    count = len(paths)
    x, after = paths.x[k].flatten(0, 1), paths.x[k + 1].flatten(0, 1)
    t = paths.times[k].repeat_interleave(count)
    then = paths.times[k + 1].repeat_interleave(count)
    grad = None if paths.grad is None else paths.grad[k].flatten(0, 1)
    ratio = sampler.forward_kernel(x, t, then, grad).log_density(after).view(-1, count)
    # P_B into the origin is certain; put any valid time there and leave it out
    certain = paths.times[k] == 0
    before = torch.where(t > 0, t, 0.5 * then)
    back = sampler.backward_kernel(after, before, then).log_density(x).view(-1, count)
    ratio = ratio - back.masked_fill(certain[:, None], 0.0)
    start = sampler.start_density(paths.x[0], paths.times[0])
    return ratio + (k == 0).to(ratio)[:, None] * start


@torch.no_grad()
def with_log_ratio(sampler: DiffusionSampler, paths: Paths, chunk: int = 8_000) -> Paths:
    """The paths with ``log_ratio`` filled in, at most ``chunk`` states per network call."""
    if paths.log_ratio is not None:
        return paths
    each = max(1, chunk // max(1, len(paths)))
    steps = torch.arange(paths.steps, device=paths.times.device)
    total = sum(step_ratios(sampler, paths, part).sum(0) for part in steps.split(each))
    return replace(paths, log_ratio=total)


def log_weight(paths: Paths) -> Tensor:
    """``log w = -U(x_1) - log P_F + log P_B``, ``(B,)``: E[w] = Z over paths of the learner."""
    if paths.log_ratio is None:
        raise InputError("these paths have no densities; use with_log_ratio(sampler, paths)")
    return -paths.energy - paths.log_ratio


def chosen_steps(
    total: int, count: int | None, generator: torch.Generator | None, device
) -> Tensor | None:
    """``count`` of ``total`` steps without replacement, stratified: one from each of ``count``
    equal groups of a random rotation, so that every step has probability count/total. None means
    all."""
    if count is None or count >= total:
        return None
    where = device if generator is None else generator.device
    shift = torch.rand((), generator=generator, device=where, dtype=torch.float64).to(device)
    edge = torch.arange(count, device=device, dtype=torch.float64) + shift
    return (edge * total / count).floor().long().clamp_max(total - 1)
