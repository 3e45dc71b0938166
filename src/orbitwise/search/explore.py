"""Chains on an energy with a novelty bonus, stored with the energies of the target alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.search.base import Kernel, State
from orbitwise.search.clean import ONE_PROPOSAL, Follow, needs_one_proposal
from orbitwise.search.novelty import Novelty, NoveltyEnergy
from orbitwise.search.run import run
from orbitwise.search.warmup import warmup


@dataclass(frozen=True, eq=False)
class Explored:
    """Points on the way of every chain, in order; a rejected step repeats its point, so that each
    counts as often as the chain stayed.

    ``x: (S, *B, *event)``; ``energy: (S, *B)`` [kT] and ``grad`` (shape of x) of the energy without
    the bonus. ``state``: where the chains stand, its energy and gradient with the bonus.
    ``acceptance: (*B)``, ``steps`` made after the warm-up, ``seconds``, ``interrupted`` by Ctrl-C.
    """

    x: Tensor
    energy: Tensor
    grad: Tensor
    state: State
    acceptance: Tensor
    steps: int
    seconds: float
    interrupted: bool


def explore(
    kernel: Kernel,
    x: Tensor,
    energy: Energy,
    novelty: Novelty,
    steps: int,
    *,
    weight: float,
    warmup_steps: int = 0,
    thin: int = 1,
    refit_every: int | None = None,
    refit_steps: int = 20,
    generator: torch.Generator | None = None,
) -> Explored:
    """Run chains from ``x: (*B, *event)`` on ``U - weight·bonus`` and keep every ``thin``-th of
    ``steps`` states.

    ``kernel``: one proposal per step (MALA, HMC, Langevin, AdjustedLangevin), so that the energy of
    every state is one already computed: evaluations are ``(*B).numel() · (1 + warmup_steps +
    steps)`` times the gradients of a step, and none besides. ``warmup_steps`` tune the step size
    first and are not kept.

    ``refit_every``: train the novelty for ``refit_steps`` on all points kept so far after each so
    many steps (a chain then does not come back to what it has just seen); the states get the new
    bonus at once, without an evaluation. By default the bonus stays what it is, and the chains have
    exp(-U + weight·bonus) as their stationary law. Raises ``InputError`` for other kernels and
    counts below 1.
    """
    needs_one_proposal(kernel, ONE_PROPOSAL, "exploring")
    segment = steps if refit_every is None else refit_every
    if steps < 1 or thin < 1 or segment < 1 or segment % thin:
        raise InputError(
            "steps, thin and refit_every must be at least 1 and refit_every a multiple of thin;"
            f" got {steps}, {thin}, {refit_every}"
        )

    begin = time.perf_counter()
    surface = NoveltyEnergy(energy, novelty, weight)
    state = kernel.init(x, surface)
    follow = Follow(surface, surface.last)
    if warmup_steps:
        state = warmup(kernel, state, surface, warmup_steps, generator=generator, observe=follow)
    points, values, grads, rates, done, interrupted = [], [], [], 0.0, 0, False
    while done < steps and not interrupted:
        follow = Follow(surface, follow.clean, thin)
        trace = run(
            kernel,
            state,
            surface,
            min(segment, steps - done),
            generator=generator,
            thin=thin,
            observe=follow,
        )
        # Ctrl-C may fall between a step and its observer; whole pairs only.
        whole = min(len(trace.x), len(follow.kept))
        points.append(trace.x[:whole])
        values += [clean.energy for clean in follow.kept[:whole]]
        grads += [clean.grad for clean in follow.kept[:whole]]
        state, interrupted = trace.state, trace.interrupted
        done += trace.steps
        if trace.rates is not None:
            rates = rates + trace.acceptance * trace.steps
        if refit_every is not None and done < steps and not interrupted:
            seen = torch.cat([p.flatten(0, x.ndim - len(energy.event_shape)) for p in points])
            novelty.fit(seen, refit_steps, generator=generator)
            value, grad = surface.overlay(state.x, follow.clean)
            state = replace(state, energy=value, grad=grad)

    batch = x.shape[: x.ndim - len(energy.event_shape)]
    return Explored(
        x=torch.cat(points),
        energy=torch.stack(values) if values else x.new_empty(0, *batch),
        grad=torch.stack(grads) if grads else x.new_empty(0, *x.shape),
        state=state,
        acceptance=rates / done if done else torch.zeros(batch),
        steps=done,
        seconds=time.perf_counter() - begin,
        interrupted=interrupted,
    )
