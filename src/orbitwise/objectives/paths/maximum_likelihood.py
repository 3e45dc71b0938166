"""Maximum likelihood of the learner on samples of the target, with exact orbit targets."""

from __future__ import annotations

import torch
from torch import Tensor

from orbitwise.data.buffer import ReplayBuffer
from orbitwise.energies.base import Energy
from orbitwise.groups.base import Group
from orbitwise.objectives.paths.objective import PathObjective
from orbitwise.orbits.posterior.entrance import orbit_posterior


class MaximumLikelihood(PathObjective):
    """``E[-log P_F(path)]`` over bridges back from the buffer's points: one random step of each
    path.

    The mean over x_{k+1} given (x_k, x_1) is taken in closed form, so that step k with a = Δt/(1-t)
    costs, up to a constant,

        T · ½ [n log v_θ + (n v_bridge + a² |x_1 - D|²) / v_θ].

    D regresses on E[x_1 | x_k] and may do so through any target with this conditional mean. Two
    things are done to the plain target x_1, neither of which moves the expected gradient:

    * ``group``: its mean over the orbit of x_1 given x_k (Orbit Diffusion, 2502.09890), exactly;
    * ``forces``: the buffer's gradients as a control variate. For samples of exp(-U) the target
      score identity (De Bortoli et al. 2402.08667) says that x_k + (1-t)(x_1 - noise² ∇U(x_1)) has
      the mean E[x_1 | x_k] too; its difference from x_1 is added with the factor that has cancelled
      most so far (one per step). At little noise nearly nothing is left to average over. The
      gradients were computed by the search already.

    No energy is evaluated. ``group`` must act isometrically (rotations, permutations) and be a
    symmetry of U.
    """

    products: Tensor

    def __init__(
        self,
        energy: Energy,
        buffer: ReplayBuffer,
        group: Group | None = None,
        *,
        forces: bool = False,
        steps: int = 100,
    ):
        super().__init__(energy, buffer, on_policy=0.0)
        self.group, self.forces = group, forces
        # running sums of <x_1 - D, c> and <c, c> for each step
        self.register_buffer("products", torch.zeros(2, steps))

    def losses(self, sampler, count: int, generator: torch.Generator | None) -> Tensor:
        with torch.no_grad():
            index = self.replay.draw(count, generator)
            x1, slope = (
                self.replay.x[index].to(sampler.data_scale),
                self.replay.grad[index].to(sampler.data_scale),
            )
            times = sampler.times(generator)
            k = self._stratified(count, len(times) - 1, generator, times.device)
            t, after = times[k], times[k + 1]
            x, plain, target, difference = self._noised(
                sampler, sampler.centre(x1), slope, t, generator
            )

        share, n = (after - t) / (1 - t), sampler.dims
        bridge = sampler.noise**2 * (after - t) * (1 - after) / (1 - t)
        variance = sampler.step_variance(t, after)
        endpoint = sampler.endpoint(x, t)
        if self.forces:
            target = (
                target
                + sampler.beside(self._factor(k, plain - endpoint.detach(), difference))
                * difference
            )

        scatter = (plain - endpoint.detach()).square() * sampler.beside(share.square())
        regression = (target - endpoint).square() * sampler.beside(share.square())
        # the variance learns from the plain target, whose scatter it has to cover; D from the
        # quieter one
        if variance.shape[1:].numel() == 1:
            flat = variance.flatten(1)[:, 0]
            terms = n * flat.log() + (n * bridge + scatter.flatten(1).sum(1)) / flat
        else:
            terms = (
                (variance.log() + (sampler.beside(bridge) + scatter) / variance).flatten(1).sum(1)
            )

        mean = (regression / variance.detach()).flatten(1).sum(1)
        terms = terms + mean - mean.detach()
        return 0.5 * (len(times) - 1) * (terms - n * (sampler.noise**2 * (after - t)).log())

    def _noised(
        self, sampler, x1: Tensor, slope: Tensor, t: Tensor, generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(x_t, the point of the orbit that made it, its mean given x_t, control variate)``."""
        alpha, sigma = sampler.process.alpha(t), sampler.process.sigma(t)
        if self.group is not None:
            g = self.group.sample(
                x1.shape[:1], generator=generator, device=x1.device, dtype=x1.dtype
            )
            x1, slope = self.group.act(g, x1), self.group.act(g, slope)
        x = sampler.beside(alpha) * x1 + sampler.beside(sigma) * sampler.normal(len(x1), generator)
        target = x1
        if self.group is not None:
            # at t = 0 the posterior is the Haar measure; any tiny time gives its mean
            target = orbit_posterior(self.group, sampler.process, x1, x, t.clamp_min(1e-6)).mean.to(
                x1
            )
        other = x + sampler.beside(1 - t) * (x1 - sampler.noise**2 * sampler.centre(slope))
        return x, x1, target, other - x1

    def _factor(self, k: Tensor, error: Tensor, difference: Tensor) -> Tensor:
        """What to multiply the control variate by, ``(B,)``: from the batches before this one."""
        dot, square = self.products.to(error)
        factor = torch.where(square > 0, -dot / square.clamp_min(1e-30), 0.0)[k]
        new = torch.stack(
            [(error * difference).flatten(1).sum(1), difference.square().flatten(1).sum(1)]
        )
        fresh = torch.zeros_like(self.products).index_add_(1, k, new.to(self.products))
        self.products.mul_(0.98).add_(fresh)
        return factor

    @staticmethod
    def _stratified(count: int, steps: int, generator, device) -> Tensor:
        """Steps ``(count,)``, each uniform, spread evenly over the batch."""
        where = device if generator is None else generator.device
        shift = torch.rand((), generator=generator, device=where, dtype=torch.float64)
        order = torch.randperm(count, generator=generator, device=where)
        u = (shift + torch.arange(count, device=where, dtype=torch.float64))[order] / count
        return (u * steps).floor().long().clamp_max(steps - 1).to(device)
