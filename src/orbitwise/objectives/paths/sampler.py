"""A diffusion sampler: Brownian motion steered by a network from the origin to the target.

On the Brownian clock t in [0, 1] the uncontrolled motion is x_t ~ N(0, noise² t I). The network
estimates the endpoint, D(x, t) ≈ E[x_1 | x_t], and the drift is (D - x)/(1 - t): the form of
Föllmer's optimal control. Its preconditioning is that of the Brownian bridge, so a sampler that is
trained by likelihood on samples of the target is a denoiser, and every orbit target of
``denoising`` applies to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orbitwise.errors import InputError
from orbitwise.networks.embedding import TimeFeatures
from orbitwise.objectives.denoiser import Preconditioning
from orbitwise.objectives.paths.schedule import NoiseSchedule
from orbitwise.processes.gaussian import GaussianProcess

VARIANCES = ("reference", "gaussian", "learned")


@dataclass(frozen=True)
class Normal:
    """Isotropic or diagonal normal kernel over events: ``mean (M, *E)``, ``variance`` broadcasts
    against it.

    ``dims``: dimensions the density lives in, D(N-1) in the subspace of zero centre of mass.
    """

    mean: Tensor
    variance: Tensor
    dims: int

    def log_density(self, x: Tensor) -> Tensor:
        """``(M,)``."""
        square = ((x - self.mean).square() / self.variance).flatten(1).sum(1)
        if self.variance.shape[1:].numel() == 1:
            logs = self.dims * self.variance.flatten(1)[:, 0].log()
        else:
            logs = self.variance.expand_as(x).log().flatten(1).sum(1)
        return -0.5 * (square + logs + self.dims * math.log(2 * math.pi))


class TimeHead(nn.Module):
    """A learned function of time alone, zero at first: ``(M,) -> (M, outputs)``."""

    def __init__(self, outputs: int, features: int = 32) -> None:
        super().__init__()
        self.features = TimeFeatures(features)
        self.out = nn.Linear(features, outputs)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, t: Tensor) -> Tensor:
        return self.out(torch.nn.functional.silu(self.features(t)))


class DiffusionSampler(nn.Module):
    """The forward policy P_F, the backward policy P_B, and what objectives need beside them.

    ``network(x, fraction[, labels])`` as ``Denoiser`` uses it; ``labels`` (one item stands for all)
    only for networks on points. ``noise``: standard deviation of the uncontrolled motion at t = 1;
    ``data_scale``: root mean square coordinate expected of the target; both in units of x.
    ``schedule``: the steps.

    ``variance`` of a step: ``"reference"`` noise² Δt, as published (SGDS 2505.19552);
    ``"gaussian"`` that of the bridge to an endpoint with the spread a Gaussian target would leave;
    ``"learned"`` the same with a learned factor of time on that spread, one per coordinate unless
    ``zero_com``. ``langevin`` adds a learned function of time times the gradient of the energy,
    clipped at ``langevin_clip`` (PIS-grad, 2111.15141, eq. 17): one gradient per step. ``flow``:
    network ``(x, fraction) -> (M,)`` for balance conditions between inner states. ``backward``:
    network ``(x, fraction) -> (M, *E)`` that makes P_B learned: its mean shifts by the bridge's
    deviation times tanh of it.

    ``log_z``: estimate of log Z; ``log_z_rate`` sets how fast its parameter moves beside the
    others. Raises ``InputError`` for values out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        schedule: NoiseSchedule,
        *,
        noise: float,
        data_scale: float,
        zero_com: bool = False,
        variance: str = "learned",
        langevin: bool = False,
        langevin_clip: float = 100.0,
        flow: nn.Module | None = None,
        backward: nn.Module | None = None,
        labels=None,
        log_z_rate: float = 10.0,
    ):
        super().__init__()
        if variance not in VARIANCES:
            raise InputError(f"unknown variance {variance!r}; use one of {', '.join(VARIANCES)}")
        if not (noise > 0 and data_scale > 0):
            raise InputError(f"noise and data_scale must be positive, got {noise} and {data_scale}")
        self.network, self.flow, self.backward_network, self.labels = (
            network,
            flow,
            backward,
            labels,
        )
        self.event_shape, self.schedule, self.zero_com = tuple(event_shape), schedule, zero_com
        points = self.event_shape[0] - 1 if zero_com else self.event_shape[0]
        self.dims = points * math.prod(self.event_shape[1:])
        self.process = GaussianProcess.bridge(float(noise))
        self.variance, self.langevin_clip, self.log_z_rate = variance, langevin_clip, log_z_rate
        outputs = 1 if zero_com else math.prod(self.event_shape)
        self.spread = TimeHead(outputs) if variance == "learned" else None
        self.langevin = TimeHead(1) if langevin else None
        self.register_buffer("data_scale", torch.tensor(float(data_scale)))
        self.register_buffer("log_z_start", torch.zeros(()))
        self.log_z_parameter = nn.Parameter(torch.zeros(()))

    @property
    def noise(self) -> float:
        return self.process.scale

    @property
    def log_z(self) -> Tensor:
        return self.log_z_start + self.log_z_rate * self.log_z_parameter

    def beside(self, v: Tensor) -> Tensor:
        """``(M,)`` -> ``(M, 1, ...)``, to stand beside events."""
        return v.view(-1, *[1] * len(self.event_shape))

    def centre(self, x: Tensor) -> Tensor:
        return x - x.mean(-2, keepdim=True) if self.zero_com else x

    def normal(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Standard normal numbers ``(count, *E)`` in the sampler's subspace."""
        where = self.data_scale.device if generator is None else generator.device
        eps = torch.randn(
            count, *self.event_shape, generator=generator, device=where, dtype=self.data_scale.dtype
        )
        return self.centre(eps.to(self.data_scale.device))

    def times(self, generator: torch.Generator | None = None) -> Tensor:
        """The steps of one batch ``(T + 1,)``."""
        return self.schedule(generator).to(self.data_scale)

    def _apply(self, function, recurse: bool = True):
        if self.labels is not None:
            self.labels = self.labels.to(function(self.data_scale).device)
        return super()._apply(function, recurse)

    def _call(self, network: nn.Module, x: Tensor, fraction: Tensor) -> Tensor:
        return network(x, fraction) if self.labels is None else network(x, fraction, self.labels)

    def endpoint(self, x: Tensor, t: Tensor, grad: Tensor | None = None) -> Tensor:
        """``D(x, t) ≈ E[x_1 | x_t]`` for ``x: (M, *E)``, ``t: (M,)``; ``grad``: ∇U(x), with
        ``langevin``."""
        c = Preconditioning.of(self.process, t, self.data_scale)
        raw = self._call(self.network, self.beside(c.into) * x, c.fraction)
        d = self.beside(c.skip) * x + self.beside(c.out) * raw
        if self.langevin is not None:
            # near t = 1 the optimal endpoint is x - noise² (1 - t) ∇U(x)
            size = self.noise**2 * (1 - t) * t * (1 + self.langevin(t)[:, 0])
            d = d - self.beside(size) * grad.nan_to_num().clamp(
                -self.langevin_clip, self.langevin_clip
            )
        return self.centre(d)

    def forward(self, xt: Tensor, t: Tensor, batch=None) -> Tensor:
        """As ``Denoiser``: the endpoint."""
        return self.endpoint(xt, t)

    def step_variance(self, t: Tensor, after: Tensor) -> Tensor:
        """Variance of P_F(. | x_t), broadcasting against events."""
        step = after - t
        if self.variance == "reference":
            return self.beside(self.noise**2 * step)
        share = step / (1 - t)
        bridge = self.noise**2 * step * (1 - after) / (1 - t)
        spread = Preconditioning.of(self.process, t, self.data_scale).out.square()
        if self.spread is None:
            return self.beside(bridge + share.square() * spread)
        factor = self.spread(t).exp()
        shape = self.beside(factor[:, 0]) if self.zero_com else factor.view(-1, *self.event_shape)
        return self.beside(bridge) + self.beside(share.square() * spread) * shape

    def forward_kernel(
        self, x: Tensor, t: Tensor, after: Tensor, grad: Tensor | None = None
    ) -> Normal:
        """P_F(x_after | x_t)."""
        share = self.beside((after - t) / (1 - t))
        mean = x + share * (self.endpoint(x, t, grad) - x)
        return Normal(mean, self.step_variance(t, after), self.dims)

    def backward_kernel(self, x: Tensor, before: Tensor, t: Tensor) -> Normal:
        """P_B(x_before | x_t) for ``before > 0``: the bridge to the origin, shifted where P_B is
        learned."""
        variance = self.beside(self.noise**2 * before * (t - before) / t)
        mean = self.beside(before / t) * x
        if self.backward_network is not None:
            c = Preconditioning.of(self.process, t, self.data_scale)
            shift = torch.tanh(
                self._call(self.backward_network, self.beside(c.into) * x, c.fraction)
            )
            mean = mean + variance.sqrt() * self.centre(shift)
        return Normal(mean, variance, self.dims)

    def start_kernel(self, count: int, start: Tensor) -> Normal:
        """Law of the first state: the origin, or for ``start`` > 0 the marginal of a Gaussian
        target."""
        t = start.expand(count)
        mean = torch.zeros(count, *self.event_shape, dtype=start.dtype, device=start.device)
        variance = Preconditioning.of(self.process, t, self.data_scale).into.pow(-2) * (t > 0)
        return Normal(mean, self.beside(variance), self.dims)

    def start_density(self, x: Tensor, start: Tensor) -> Tensor:
        """log density of the first state ``(B,)``: 0 for the origin."""
        return (
            x.new_zeros(len(x))
            if float(start) == 0
            else self.start_kernel(len(x), start).log_density(x)
        )

    def log_flow(self, x: Tensor, t: Tensor, energy: Tensor | None = None) -> Tensor:
        """Estimate of log F(x_t), ``(M,)``: the network plus (1-t) log N(x; 0, noise² t) and, given
        U(x), -t U (partial energies, Zhang et al. 2310.02679). The flow at the start is ``log_z``,
        at the end -U."""
        if self.flow is None:
            raise InputError("this objective needs inner flows; give the sampler a flow network")
        c = Preconditioning.of(self.process, t, self.data_scale)
        value = self.flow(self.beside(c.into) * x, c.fraction)
        reference = Normal(
            torch.zeros_like(x), self.beside(self.noise**2 * t), self.dims
        ).log_density(x)
        value = value + (1 - t) * reference
        return value if energy is None else value - t * energy
