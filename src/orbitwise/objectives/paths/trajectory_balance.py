"""Trajectory balance (Malkin et al. 2201.13259, eq. 14) and its log-variance form (Richter et al.
2010.10436)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from orbitwise.objectives.paths.objective import PathObjective, with_gradient_of
from orbitwise.objectives.paths.path import step_ratios


class _SquaredResidual(PathObjective):
    """``½ (log P_F - log P_B + U + c)²`` per path.

    Its gradient is the residual times Σ_k ∇(log P_F - log P_B)_k. The residual is known without a
    graph, so the sum may run over a random subset of the steps: ``time_steps``.
    """

    clip: float = 1e3  # of residuals, so that one hopeless path does not decide a step

    @abstractmethod
    def centre(self, sampler, residual: Tensor) -> tuple[Tensor, Tensor]:
        """``(constant c, what of it carries a gradient)``."""

    def losses(self, sampler, count: int, generator: torch.Generator | None) -> Tensor:
        paths = self.paths(sampler, count, generator)
        chosen, factor = self.steps(sampler, paths.steps, generator)
        ratios = step_ratios(sampler, paths, chosen)
        known = ratios.detach().sum(0) if chosen is None else paths.log_ratio
        residual = known + paths.energy
        usable = torch.isfinite(residual)
        constant, learned = self.centre(sampler, residual[usable])
        residual = torch.where(usable, residual + constant, 0.0).clamp(-self.clip, self.clip)
        surrogate = residual * (factor * ratios.sum(0).where(usable, 0.0) + learned)
        return with_gradient_of(0.5 * residual.square(), surrogate)


class TrajectoryBalance(_SquaredResidual):
    """``½ (log Z_θ + log P_F - log P_B + U)²``, with the learned constant ``sampler.log_z``."""

    def centre(self, sampler, residual: Tensor) -> tuple[Tensor, Tensor]:
        return sampler.log_z.detach(), sampler.log_z


class VarGrad(_SquaredResidual):
    """Half the variance of log P_F - log P_B + U over the batch: the batch's own mean stands for
    log Z."""

    def centre(self, sampler, residual: Tensor) -> tuple[Tensor, Tensor]:
        zero = residual.new_zeros(())
        return (-residual.mean() if len(residual) else zero), zero
