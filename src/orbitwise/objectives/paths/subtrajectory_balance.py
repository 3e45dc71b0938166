"""Sub-trajectory balance (Madan et al. 2209.12782, eq. 5; for diffusion samplers Zhang et al.
2310.02679)."""

from __future__ import annotations

import torch
from torch import Tensor

from orbitwise.data.buffer import ReplayBuffer
from orbitwise.energies.base import Energy
from orbitwise.objectives.paths.detailed_balance import FlowObjective
from orbitwise.objectives.paths.path import step_ratios


class SubTrajectoryBalance(FlowObjective):
    """Squared residuals of all pieces i < j of a path, weighted ∝ ``decay``^(j-i) with weights that
    sum to 1.

    With A_i = log F(x_i) - Σ_{k<i} (log P_F - log P_B)_k the residual of a piece is A_i - A_j, so
    all T(T+1)/2 of them are one difference table.
    """

    def __init__(
        self,
        energy: Energy,
        buffer: ReplayBuffer | None = None,
        *,
        on_policy: float = 0.5,
        decay: float = 0.9,
        partial_energy: bool = False,
    ):
        super().__init__(energy, buffer, on_policy=on_policy, partial_energy=partial_energy)
        self.decay = decay

    def losses(self, sampler, count: int, generator: torch.Generator | None) -> Tensor:
        paths = self.paths(sampler, count, generator)
        states = torch.arange(paths.steps + 1, device=paths.times.device)
        ratio = step_ratios(sampler, paths).cumsum(0)
        potential = self.log_flows(sampler, paths, states)
        potential = potential - torch.cat([torch.zeros_like(ratio[:1]), ratio])
        length = (states[None] - states[:, None]).to(ratio.dtype)
        # decay > 1 over many steps overflows; only ratios of the weights matter
        log_weight = (length * torch.as_tensor(self.decay).log()).masked_fill(
            length <= 0, -torch.inf
        )
        weight = torch.softmax(log_weight.flatten(), 0).view_as(log_weight)
        residual = potential[:, None] - potential[None]
        return 0.5 * (weight[..., None] * residual.square().nan_to_num(0, 0, 0).clamp_max(1e6)).sum(
            (0, 1)
        )
