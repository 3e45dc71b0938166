"""Reverse Kullback-Leibler divergence of path measures: the path integral sampler (Zhang and Chen
2111.15141)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.objectives.paths.objective import PathObjective
from orbitwise.objectives.paths.path import first_state


class ReverseKL(PathObjective):
    """``(log P_F - log P_B + U)/n`` of the learner's own paths, differentiated through the paths.

    The one objective whose gradient needs the sequential graph of all T steps and ∇U at the end:
    one energy and one gradient per path (with a Langevin term T gradients more, which are not
    differentiated again). n is the dimension, so that losses compare between systems.
    """

    def __init__(self, energy: Energy):
        super().__init__(energy, on_policy=1.0)

    def losses(self, sampler, count: int, generator: torch.Generator | None) -> Tensor:
        if sampler.backward_network is not None:
            raise InputError(
                "the path integral sampler has a fixed backward process; leave the learned one out"
            )
        times = sampler.times(generator)
        x = first_state(sampler, count, times[0], generator)
        total = sampler.start_density(x, times[0])
        for t, after in pairwise(times):
            now, then = t.expand(count), after.expand(count)
            grad = self.energy.value_and_grad(x)[1] if sampler.langevin is not None else None
            kernel = sampler.forward_kernel(x, now, then, grad)
            new = kernel.mean + kernel.variance.sqrt() * sampler.normal(count, generator)
            total = total + kernel.log_density(new)
            if float(t) > 0:
                total = total - sampler.backward_kernel(new, now, then).log_density(x)
            x = new
        value, slope = self.energy.value_and_grad(x)
        usable = torch.isfinite(value) & torch.isfinite(slope).flatten(1).all(1)
        # U with its gradient, from the one evaluation
        energy = value + ((x - x.detach()) * slope.nan_to_num()).flatten(1).sum(1)
        return torch.where(usable, total + energy, 0.0) / sampler.dims
