"""Detailed balance between neighbouring states (Bengio et al. 2111.09266; Zhang et al.
2310.02679)."""

from __future__ import annotations

import torch
from torch import Tensor

from orbitwise.data.buffer import ReplayBuffer
from orbitwise.energies.base import Energy
from orbitwise.objectives.paths.objective import PathObjective
from orbitwise.objectives.paths.path import Paths, step_ratios


class FlowObjective(PathObjective):
    """Objectives with flows of inner states. ``partial_energy``: -t U(x_t) stands in log F(x_t);
    then every inner state costs an energy evaluation (forward-looking flows, Pan et al.
    2302.01687)."""

    def __init__(
        self,
        energy: Energy,
        buffer: ReplayBuffer | None = None,
        *,
        on_policy: float = 0.5,
        time_steps: int | None = None,
        partial_energy: bool = False,
    ):
        super().__init__(energy, buffer, on_policy=on_policy, time_steps=time_steps)
        self.partial_energy = partial_energy

    def log_flows(self, sampler, paths: Paths, states: Tensor) -> Tensor:
        """``log F`` of the states ``(K,)`` of every path: ``(K, B)``; log Z at 0 and -U at T."""
        count = len(paths)
        inner = states.clamp(1, paths.steps - 1)
        x = paths.x[inner].flatten(0, 1)
        energy = None
        if self.partial_energy:
            with torch.no_grad():
                energy = self.energy(x).nan_to_num(posinf=1e6).clamp_max(1e6)
        t = paths.times[inner].repeat_interleave(count)
        flow = sampler.log_flow(x, t, energy).view(-1, count)
        first, last = (states == 0)[:, None], (states == paths.steps)[:, None]
        flow = torch.where(first, sampler.log_z.expand_as(flow), flow)
        return torch.where(last, -paths.energy.expand_as(flow), flow)


class DetailedBalance(FlowObjective):
    """``½ Σ_k (log F(x_k) + log P_F - log F(x_{k+1}) - log P_B)²``, or its unbiased estimate from
    some steps."""

    def losses(self, sampler, count: int, generator: torch.Generator | None) -> Tensor:
        paths = self.paths(sampler, count, generator)
        chosen, factor = self.steps(sampler, paths.steps, generator)
        k = torch.arange(paths.steps, device=paths.times.device) if chosen is None else chosen
        flow = self.log_flows(sampler, paths, torch.cat([k, k + 1]))
        before, after = flow.chunk(2)
        residual = before - after + step_ratios(sampler, paths, chosen)
        return 0.5 * factor * residual.square().nan_to_num(0, 0, 0).clamp_max(1e6).sum(0)
