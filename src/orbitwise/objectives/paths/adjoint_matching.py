"""Adjoint sampling: regression of the drift on gradients at end points (Havens et al.
2504.11713)."""

from __future__ import annotations

import torch
from torch import Tensor

from orbitwise.data.buffer import ReplayBuffer
from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.objectives.denoiser import Preconditioning
from orbitwise.objectives.paths.objective import PathObjective
from orbitwise.objectives.paths.path import NoEnergy, roll_out


class AdjointMatching(PathObjective):
    """Reciprocal adjoint matching (2504.11713, eq. 13) with a buffer of the learner's own end
    points.

    For the motion from the origin the adjoint state at all times is ∇U(x_1) - x_1/noise², and given
    x_1 the state x_t is the bridge's, so a stored end point with its gradient serves many
    regressions:

        D(x_t, t) -> x_t + (1-t) (x_1 - noise² ∇U(x_1))

    Every ``refresh``-th step ``endpoints`` new paths are rolled out: one energy and one gradient
    each. Gradients are clipped at norm ``clip`` (per event). ``memory`` is part of the checkpoint.
    A start from a Gaussian is an error: the reciprocal projection used here is that of the motion
    from a point.
    """

    calls: Tensor

    def __init__(
        self,
        energy: Energy,
        memory: ReplayBuffer,
        *,
        endpoints: int = 256,
        refresh: int = 50,
        clip: float = 1e3,
    ):
        super().__init__(energy, memory, on_policy=0.0)
        if endpoints < 1 or refresh < 1:
            raise InputError(
                f"endpoints and refresh must be at least 1, got {endpoints} and {refresh}"
            )
        self.endpoints, self.refresh, self.clip = endpoints, refresh, clip
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def losses(self, sampler, count: int, generator: torch.Generator | None) -> Tensor:
        with torch.no_grad():
            if int(self.calls) % self.refresh == 0:
                self._collect(sampler, generator)
            self.calls += 1
            index = self.replay.draw(count, generator)
            x1, slope = self.replay.x[index], self.replay.grad[index]
            times = sampler.times(generator)
            k = torch.randint(
                len(times) - 1,
                (count,),
                generator=generator,
                device=generator.device if generator else None,
            )
            t = times[k.to(times.device)]
            sigma, alpha = sampler.process.sigma(t), sampler.process.alpha(t)
            x = sampler.beside(alpha) * x1 + sampler.beside(sigma) * sampler.normal(
                count, generator
            )
            target = x + sampler.beside(1 - t) * (x1 - sampler.noise**2 * slope)
        weight = Preconditioning.of(sampler.process, t, sampler.data_scale).weight
        square = (sampler.endpoint(x, t) - target).square().flatten(1).sum(1)
        return weight * square / sampler.dims

    def _collect(self, sampler, generator) -> None:
        if sampler.langevin is not None or float(sampler.times()[0]) != 0:
            raise InputError(
                "adjoint matching starts at the origin and has no Langevin term; leave them out"
            )
        paths = roll_out(sampler, NoEnergy(), self.endpoints, generator)
        x = paths.x[-1]
        value, slope = self.energy.value_and_grad(x)
        usable = torch.isfinite(value) & torch.isfinite(slope).flatten(1).all(1)
        norm = slope.flatten(1).norm(dim=1).clamp_min(1e-30)
        slope = slope * sampler.beside((self.clip / norm).clamp_max(1.0))
        if usable.any():
            self.replay.add(x[usable], value[usable], slope[usable])
