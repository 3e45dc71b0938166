"""Generative augmented flow networks: trajectory balance with an intrinsic reward (Pan et al.
2210.03308)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from orbitwise.data.buffer import ReplayBuffer
from orbitwise.energies.base import Energy
from orbitwise.networks.distillation import Distillation
from orbitwise.networks.former import Former
from orbitwise.networks.mlp import MLP
from orbitwise.networks.seeded import seeded
from orbitwise.objectives.paths.path import Paths
from orbitwise.objectives.paths.trajectory_balance import TrajectoryBalance


class AugmentedFlow(Former, TrajectoryBalance):
    """Trajectory balance whose reward is augmented along the path: ``log R -> log(R + Σ_t r(x_t) /
    T)``.

    ``r = weight · |f(x) - f_φ(x)|²`` is the novelty of random network distillation (Burda et al.
    1810.12894): f is a fixed random network, f_φ learns it on the states that the learner visits,
    one plain gradient step of size ``rate`` a call. f_φ is part of the objective's state and the
    policy's gradient never reaches it.
    """

    def __init__(
        self,
        energy: Energy,
        buffer: ReplayBuffer | None = None,
        *,
        on_policy: float = 0.5,
        time_steps: int | None = None,
        weight: float = 0.1,
        rate: float = 1e-2,
        seed: int = 0,
    ):
        super().__init__(energy, buffer, on_policy=on_policy, time_steps=time_steps)
        self.weight, self.rate = weight, rate
        with seeded(seed):
            self.distillation = Distillation(lambda: self._network(energy))

    def upgrade(self, state: dict[str, Any], prefix: str) -> None:
        """The two networks were the objective's own."""
        for name in ("target.", "predictor."):
            for key in [key for key in state if key.startswith(prefix + name)]:
                state[f"{prefix}distillation.{key.removeprefix(prefix)}"] = state.pop(key)

    @staticmethod
    def _network(energy: Energy) -> nn.Module:
        network = MLP(energy.event_shape, 64, 1, out_shape=(16,))
        nn.init.normal_(network.out.weight, std=64**-0.5)
        return network

    def novelty(self, x: Tensor, scale: Tensor) -> Tensor:
        """``|f - f_φ|²`` of states ``(M, *E)``, ``(M,)``, differentiable in the predictor."""
        still = torch.ones(len(x), device=x.device)
        return self.distillation.error(x / scale, still)

    def paths(self, sampler, count: int, generator: torch.Generator | None) -> Paths:
        paths = super().paths(sampler, count, generator)
        visited = paths.x[1:].flatten(0, 1)
        with torch.no_grad():
            bonus = self.weight * self.novelty(visited, sampler.data_scale).view(
                paths.steps, -1
            ).mean(0)
        self._distil(visited[:: max(1, len(visited) // 1024)], sampler.data_scale)
        return replace(paths, energy=-torch.logaddexp(-paths.energy, bonus.clamp_min(1e-30).log()))

    def _distil(self, x: Tensor, scale: Tensor) -> None:
        parameters = list(self.distillation.predictor.parameters())
        with torch.enable_grad():
            grads = torch.autograd.grad(self.novelty(x, scale).mean(), parameters)
        with torch.no_grad():
            for p, g in zip(parameters, grads, strict=True):
                p -= self.rate * g.clamp(-1, 1)
