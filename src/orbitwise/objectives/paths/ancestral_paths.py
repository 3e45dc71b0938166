"""Ancestral paths of a denoiser and their importance weights: independent draws become exact
averages.

For ``x_t = α x_1 + σ ε`` and an endpoint estimate D(x_t, t) a path on a grid of times, noise first
and the data itself last, has two densities: P_B noises the data step by step, P_F walks back with D
in the place of x_1 (Ho et al. 2006.11239, eq. 6-7). ``log w = -U(x_1) + log P_B - log P_F`` is an
exact importance weight whatever D is: ``E_F[w] = Z = ∫ exp(-U)``, over 3(N-1) dimensions where the
process has ``zero_com``. An equivariant D needs no symmetrisation: turning or relabelling a whole
path changes neither density.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.objectives.denoiser import Preconditioning
from orbitwise.objectives.paths.path import Paths
from orbitwise.objectives.paths.sampler import Normal
from orbitwise.processes.gaussian import GaussianProcess, beside
from orbitwise.processes.sampling import Denoise

CHUNK = 500  # states per network call


@dataclass(frozen=True)
class AncestralSampler:
    """P_F and P_B of points ``(N, D)`` = ``event_shape`` on the times ``grid: (T,)``, increasing; T
    steps, the last one from the smallest noise to the data.

    ``denoise(x: (M, N, D), t: (M,)) -> (M, N, D)``; ``data_scale`` as that of the ``Denoiser``. The
    variance of P_F is that of the posterior between x_t and x_1, plus what D leaves open of x_1:
    the spread of a Gaussian target (``Preconditioning.out``²) times ``factor: (T,)``, 1 unless
    given (``fitted`` measures it). So a Gaussian target with its exact denoiser has weights that
    are all equal to Z, for any number of steps.

    Raises ``InputError`` for a grid that does not increase or touches σ = 0 (a bridge has a sampler
    of its own).
    """

    denoise: Denoise
    process: GaussianProcess
    grid: Tensor
    data_scale: float
    event_shape: tuple[int, int]
    factor: Tensor | None = None

    def __post_init__(self):
        if self.grid.ndim != 1 or len(self.grid) < 1 or not bool((self.grid.diff() > 0).all()):
            raise InputError("grid must be a vector of increasing times")
        if not bool((self.process.sigma(self.grid) > 0).all()):
            raise InputError(
                "every time of the grid needs noise; the step to the data is added to it"
            )

    @property
    def dims(self) -> int:
        points, space = self.event_shape
        return space * (points - int(self.process.zero_com))

    @property
    def steps(self) -> int:
        return len(self.grid)

    def levels(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """α and σ before and after every step, ``(T,)`` each; the last step ends at the data, α = 1
        and σ = 0."""
        a, s = self.process.alpha(self.grid), self.process.sigma(self.grid)
        return a, s, torch.cat([a[1:], a.new_ones(1)]), torch.cat([s[1:], s.new_zeros(1)])

    def backward_kernel(self, after: Tensor, k: Tensor) -> Normal:
        """P_B(x_k | x_{k+1}) for ``after: (M, N, D)`` and the steps ``k: (M,)``: noise is added."""
        a, s, a_next, s_next = (v[k] for v in self.levels())
        r = a / a_next
        return Normal(beside(r) * after, beside(s.square() - (r * s_next).square()), self.dims)

    def forward_kernel(self, x: Tensor, k: Tensor) -> Normal:
        """P_F(x_{k+1} | x_k) for ``x: (M, N, D)`` and the steps ``k: (M,)``. One network call."""
        a, s, a_next, s_next = (v[k] for v in self.levels())
        added = s.square() - (a / a_next * s_next).square()
        pull, kept = added * a_next / s.square(), a / a_next * (s_next / s).square()
        variance = added * (s_next / s).square() + pull.square() * self.spread()[k]
        return Normal(
            beside(kept) * x + beside(pull) * self.endpoint(x, k), beside(variance), self.dims
        )

    def start_kernel(self, count: int) -> Normal:
        """Law of x_0: the marginal of Gaussian data, of which nothing but the noise is left where α
        is 0."""
        into = Preconditioning.of(self.process, self.grid[:1], self.data_scale).into
        mean = torch.zeros(count, *self.event_shape, dtype=self.grid.dtype, device=self.grid.device)
        return Normal(mean, beside(into.pow(-2)), self.dims)

    def endpoint(self, x: Tensor, k: Tensor) -> Tensor:
        """D at the times of the steps ``k``; the network in its own precision, at most ``CHUNK``
        states a call."""
        t = self.grid[k]
        parts = zip(x.split(CHUNK), t.split(CHUNK), strict=True)
        return self.process.project(torch.cat([self.denoise(*part) for part in parts]).to(x.dtype))

    def spread(self) -> Tensor:
        """What is open about each coordinate of x_1, given x_t: ``(T,)``."""
        out = Preconditioning.of(self.process, self.grid, self.data_scale).out.square()
        return out if self.factor is None else out * self.factor.to(out)

    def normal(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Standard normal numbers ``(count, N, D)`` in the process's subspace."""
        like = torch.empty(count, *self.event_shape, dtype=self.grid.dtype, device=self.grid.device)
        return self.process.noise(like, generator=generator)

    @torch.no_grad()
    def fitted(self, x1: Tensor, generator: torch.Generator | None) -> AncestralSampler:
        """The same with ``factor`` = mean of |x_1 - D|²/(dims out²) at every step, over noised
        frames ``x1: (M, N, D)`` of the target. Weights are exact for any factor; this one makes
        them most equal among isotropic variances."""
        x1 = self.process.project(x1.to(self.grid))
        k = torch.arange(self.steps, device=x1.device).repeat_interleave(len(x1))
        a, s, _, _ = (v[k] for v in self.levels())
        clean = x1.repeat(self.steps, 1, 1)
        xt = beside(a) * clean + beside(s) * self.normal(len(k), generator)
        open_ = (clean - self.endpoint(xt, k)).square().sum((1, 2)).view(self.steps, -1).mean(
            1
        ) / self.dims
        return replace(self, factor=open_ / replace(self, factor=None).spread())


@torch.no_grad()
def ancestral_paths(
    sampler: AncestralSampler,
    energy: Callable[[Tensor], Tensor],
    count: int,
    generator: torch.Generator | None,
) -> Paths:
    """``count`` paths from noise to data with their ``log_ratio``; ``paths.log_weight`` makes
    weights of them. ``energy``: an ``Energy``, or any ``(count, N, D) -> (count,)`` in kT."""
    start = sampler.start_kernel(count)
    x = start.variance.sqrt() * sampler.normal(count, generator)
    ratio, states = start.log_density(x), [x]
    for step in range(sampler.steps):
        k = torch.full((count,), step, device=x.device)
        kernel = sampler.forward_kernel(x, k)
        new = kernel.mean + kernel.variance.sqrt() * sampler.normal(count, generator)
        ratio = ratio + kernel.log_density(new) - sampler.backward_kernel(new, k).log_density(x)
        x = new
        states.append(x)
    return Paths(torch.stack(states), _times(sampler), energy(x), log_ratio=ratio)


@torch.no_grad()
def noised_paths(
    sampler: AncestralSampler, x1: Tensor, end_energy: Tensor, generator: torch.Generator | None
) -> Paths:
    """Paths of P_B from frames ``x1: (B, N, D)`` of the target with energies ``end_energy: (B,)``
    [kT], with their ``log_ratio``. All states are drawn at once and judged together."""
    x1 = sampler.process.project(x1.to(sampler.grid))
    count, steps = len(x1), sampler.steps
    a, s, _, _ = sampler.levels()
    # ε_k = c_k ε_{k+1} + √(1 - c_k²) η_k with c_k² = SNR_k/SNR_{k+1}, as one triangular matrix on
    # the η
    snr = (a / s).square()
    ratio = (snr[:, None] / snr).sqrt().fill_diagonal_(1.0)
    fresh = torch.cat([(1 - snr[:-1] / snr[1:]).sqrt(), snr.new_ones(1)])
    eta = sampler.normal(steps * count, generator).view(steps, -1)
    eps = (torch.triu(ratio * fresh) @ eta).view(steps, count, *sampler.event_shape)
    scale = (steps, *[1] * x1.ndim)
    x = torch.cat([a.view(scale) * x1 + s.view(scale) * eps, x1[None]])
    k = torch.arange(steps, device=x1.device).repeat_interleave(count)
    before, after = x[:-1].flatten(0, 1), x[1:].flatten(0, 1)
    log = sampler.forward_kernel(before, k).log_density(after)
    log = (log - sampler.backward_kernel(after, k).log_density(before)).view(steps, count).sum(0)
    log = log + sampler.start_kernel(count).log_density(x[0])
    return Paths(x, _times(sampler), end_energy.to(x1), log_ratio=log)


def _times(sampler: AncestralSampler) -> Tensor:
    return torch.cat([sampler.grid, sampler.grid.new_ones(1)])
