"""Step-size adaptation, and only before sampling starts: what it returns is frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.search.base import Info, Kernel, State


def warmup(
    kernel: Kernel,
    state: State,
    energy: Energy,
    steps: int,
    *,
    generator: torch.Generator | None = None,
    target: float | None = None,
    own_dims: int | None = None,
    observe: Callable[[int, State, Info], object] | None = None,
) -> State:
    """Run ``steps`` steps and tune ``state.step_size`` to an acceptance of ``target``.

    Robbins-Monro on the logarithm, ``log h += g n^-0.6 (acceptance - target)`` with the gain ``g =
    (target (1-target))^-½``. In the first third every chain has a step size of its own, so that a
    chain that starts far from equilibrium can come down in small steps; then the first ``own_dims``
    batch dimensions keep theirs and the others share one (default: one for all chains; for a
    replica exchange one per temperature), starting from the median. The result is the average of
    log h over the second half of this part.

    The chains move on while h changes, so nothing of the warm-up belongs to a sample. ``observe(n,
    state, info)`` is called after every step; a true answer ends the warm-up. Raises ``InputError``
    for a kernel without a step size.
    """
    target = kernel.target_acceptance if target is None else target
    if target is None:
        raise InputError(f"{type(kernel).__name__} has no step size to adapt")
    if not 0 < target < 1:
        raise InputError(f"the target acceptance must lie between 0 and 1, got {target}")
    lead, dtype = state.step_size.shape, state.step_size.dtype
    own_dims = kernel.step_dims if own_dims is None else own_dims
    own, chains = lead[:own_dims].numel(), lead[own_dims:].numel()
    settle = steps // 3
    gain = (target * (1 - target)) ** -0.5
    log_step = state.step_size.double().log().reshape(own, -1)
    average, weight = torch.zeros_like(log_step[:, :1]), 0

    for n in range(1, steps + 1):
        if n == settle + 1:
            log_step = log_step.median(1, keepdim=True).values
        step_size = log_step.exp().to(dtype).expand(own, chains).reshape(lead)
        state, info = kernel.step(replace(state, step_size=step_size), energy, generator)
        acceptance = info.log_accept.double().exp().reshape(own, -1)
        if n > settle:
            acceptance = acceptance.mean(1, keepdim=True)
        # At most a factor e at a time: a hopeless first guess must not throw the scale away.
        age = n if n <= settle else n - settle
        log_step = log_step + (gain * age**-0.6 * (acceptance - target)).clamp(-1, 1)
        if 2 * (n - settle) > steps - settle:
            average, weight = average + log_step, weight + 1
        if observe is not None and observe(n, state, info):
            break

    log_step = average / weight if weight else log_step.median(1, keepdim=True).values
    return replace(state, step_size=log_step.exp().to(dtype).expand(own, chains).reshape(lead))
