"""Maximum likelihood of the learner on samples of the target, with exact orbit targets."""

from __future__ import annotations

import torch
from torch import Tensor

from orbitwise.data.buffer import ReplayBuffer
from orbitwise.energies.base import Energy
from orbitwise.groups.base import Group
from orbitwise.objectives.path_objective import PathObjective
from orbitwise.orbits.posterior import orbit_posterior


class MaximumLikelihood(PathObjective):
    """``E[-log P_F(path)]`` over bridges back from the buffer's points: one random step of each path.

    The mean over x_{k+1} given (x_k, x_1) is taken in closed form, and with ``group`` so is the mean over the orbit of
    x_1 given x_k: its first moment is the exact target of Orbit Diffusion (2502.09890), its second the scatter that
    the learned variance has to cover. Up to a constant, for step k with a = Δt/(1-t):

        T · ½ [n log v_θ + (n v_bridge + a² (|E[g·x_1] - D|² + Var_g)) / v_θ]

    No energy is evaluated. ``group`` must act isometrically (rotations, permutations).
    """

    def __init__(self, energy: Energy, buffer: ReplayBuffer, group: Group | None = None):
        super().__init__(energy, buffer, on_policy=0.0)
        self.group = group

    def losses(self, sampler, count: int, generator: torch.Generator | None) -> Tensor:
        with torch.no_grad():
            x1 = sampler.centre(self.replay.x[self.replay.draw(count, generator)].to(sampler.data_scale))
            times = sampler.times(generator)
            k = self._stratified(count, len(times) - 1, generator, times.device)
            t, after = times[k], times[k + 1]
            target, scatter, x = self._noised(sampler, x1, t, generator)
        share, n = (after - t) / (1 - t), sampler.dims
        bridge = sampler.noise**2 * (after - t) * (1 - after) / (1 - t)
        variance = sampler.step_variance(t, after)
        square = (target - sampler.endpoint(x, t)).square() * sampler.beside(share.square())
        if variance.shape[1:].numel() == 1:
            flat = variance.flatten(1)[:, 0]
            terms = n * flat.log() + (n * bridge + square.flatten(1).sum(1) + share.square() * scatter) / flat
        else:
            terms = (variance.log() + (sampler.beside(bridge) + square) / variance).flatten(1).sum(1)
        return 0.5 * (len(times) - 1) * (terms - n * (sampler.noise**2 * (after - t)).log())

    def _noised(self, sampler, x1: Tensor, t: Tensor, generator) -> tuple[Tensor, Tensor, Tensor]:
        """``(target (B, *E), scatter (B,), x_t)``."""
        alpha, sigma = sampler.process.alpha(t), sampler.process.sigma(t)
        if self.group is not None:
            g = self.group.sample(x1.shape[:1], generator=generator, device=x1.device, dtype=x1.dtype)
            x1 = self.group.act(g, x1)
        x = sampler.beside(alpha) * x1 + sampler.beside(sigma) * sampler.normal(len(x1), generator)
        if self.group is None:
            return x1, torch.zeros_like(t), x
        # at t = 0 the posterior is the Haar measure; any tiny time gives its mean
        mean = orbit_posterior(self.group, sampler.process, x1, x, t.clamp_min(1e-6)).mean.to(x1)
        scatter = x1.square().flatten(1).sum(1) - mean.square().flatten(1).sum(1)
        return mean, scatter.clamp_min(0), x

    @staticmethod
    def _stratified(count: int, steps: int, generator, device) -> Tensor:
        """Steps ``(count,)``, each uniform, spread evenly over the batch."""
        where = device if generator is None else generator.device
        shift = torch.rand((), generator=generator, device=where, dtype=torch.float64)
        order = torch.randperm(count, generator=generator, device=where)
        u = (shift + torch.arange(count, device=where, dtype=torch.float64))[order] / count
        return (u * steps).floor().long().clamp_max(steps - 1).to(device)
