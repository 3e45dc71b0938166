"""Draw samples with a denoiser ``denoise(x_t, t) -> E[x_1 | x_t]`` and a Gaussian process.

One loop over time (``sample``), three steppers (``Euler``, ``Heun``, ``Ancestral``), three grids.
All of them split ``x_t = α D + σ ε̂`` with ``D = denoise(x_t, t)``, ``ε̂ = (x_t − α D)/σ``; the
probability flow is then

    dx = D dα + ε̂ dσ,

which needs no derivative of the schedule, is DDIM for its Euler step, and is the ordinary
Euler/Heun in t for the linear flow and in σ for EDM (Karras 2206.00364, algorithm 1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.processes.gaussian import GaussianProcess, beside
from orbitwise.processes.horizontal import Horizontal
from orbitwise.processes.times import refuse_outside

Denoise = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Samples:
    """``x: (*B, N, D)`` at the end of the data, and how often the network was called per sample."""

    x: Tensor
    evaluations: int


# ---- time grids: (K,) increasing, from 0 to the last time at which the denoiser is asked
def uniform_grid(process: GaussianProcess, steps: int) -> Tensor:
    """``steps`` times evenly spaced from 0; the last is 1 where σ(1) > 0 (ve, edm), else 1 −
    1/steps."""
    _at_least_two(steps)
    end = 1.0 if float(process.sigma(torch.ones(()))) > 0 else 1 - 1 / steps
    return torch.linspace(0, end, steps, dtype=torch.float64)


def edm_grid(
    process: GaussianProcess,
    steps: int,
    *,
    noise_min: float = 0.002,
    noise_max: float = 80.0,
    rho: float = 7.0,
) -> Tensor:
    """Noise ratios σ/α spaced as in Karras 2206.00364 eq. 5, cut to what the process has; starts at
    t = 0."""

    def between(high: float, low: float, k: int) -> Tensor:
        root = torch.linspace(high ** (1 / rho), low ** (1 / rho), k, dtype=torch.float64)
        return root**rho

    return _grid_of_ratios(process, steps, noise_min, noise_max, between)


def snr_grid(
    process: GaussianProcess, steps: int, *, noise_min: float = 0.002, noise_max: float = 80.0
) -> Tensor:
    """Noise ratios σ/α spaced evenly in their logarithm, cut to what the process has; starts at t =
    0."""

    def between(high: float, low: float, k: int) -> Tensor:
        return torch.logspace(0, 1, k, base=low / high, dtype=torch.float64) * high

    return _grid_of_ratios(process, steps, noise_min, noise_max, between)


def _grid_of_ratios(
    process: GaussianProcess,
    steps: int,
    noise_min: float,
    noise_max: float,
    between: Callable[[float, float, int], Tensor],
) -> Tensor:
    _at_least_two(steps)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    first, last = (process.sigma(ends) / process.alpha(ends)).nan_to_num(torch.inf).tolist()
    low = max(noise_min, last)
    if first <= noise_max:  # the process starts at a finite ratio: the grid spans it
        inner = process.time_at_ratio(between(first, low, steps)[1:])
    else:  # it starts at pure noise (or, a bridge, at a point): t = 0, then from noise_max down
        inner = process.time_at_ratio(between(noise_max, low, steps - 1))
    return torch.cat([inner.new_zeros(1), inner])


def _at_least_two(steps: int) -> None:
    if steps < 2:
        raise InputError(f"a time grid needs at least 2 steps, got {steps}")


# ---- steppers
@dataclass(frozen=True)
class Stage:
    """One step from ``t`` to ``s > t`` of one sampling run; times are ``(*B)``.

    ``at_point``: σ(t) = 0, which happens at the start of a bridge only. ``horizontal``: fresh noise
    turns nothing.
    """

    process: GaussianProcess
    denoise: Denoise
    t: Tensor
    s: Tensor
    at_point: bool
    mask: Tensor | None
    generator: torch.Generator | None
    horizontal: bool = False

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``D`` and ``ε̂`` at ``(x, t)``. A point mass (``at_point``) holds no noise yet: draw
        it."""
        return (
            (self.denoise(x, self.t), self.noise(x)) if self.at_point else self.split_at(x, self.t)
        )

    def split_at(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """``D`` and ``ε̂`` at ``(x, t)``, σ(t) > 0."""
        d = self.denoise(x, t)
        return d, (x - beside(self.process.alpha(t)) * d) / beside(self.process.sigma(t))

    def noise(self, x: Tensor) -> Tensor:
        return self.process.noise(x, generator=self.generator, mask=self.mask)

    def noised(self, x: Tensor, size: Tensor) -> Tensor:
        """``x`` with fresh noise of that size, ``(*B, 1, 1)``."""
        if self.horizontal:
            return Horizontal(self.process, self.mask).noised(x, size, self.noise(x))
        return x + size * self.noise(x)

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """α and σ at ``t``, then at ``s``, to stand beside points."""
        alpha, sigma = self.process.alpha, self.process.sigma
        return (
            beside(alpha(self.t)),
            beside(sigma(self.t)),
            beside(alpha(self.s)),
            beside(sigma(self.s)),
        )


class Stepper(ABC):
    """Takes ``x`` from ``stage.t`` to ``stage.s``; ``calls`` is the number of network calls in one
    step."""

    calls: int

    @abstractmethod
    def step(self, x: Tensor, stage: Stage) -> Tensor:
        """``x: (*B, N, D)`` at ``stage.t`` -> at ``stage.s``."""


@dataclass(frozen=True)
class Euler(Stepper):
    """Probability flow, first order (DDIM: Song 2010.02502, eq. 12 with σ = 0)."""

    calls = 1

    def step(self, x: Tensor, stage: Stage) -> Tensor:
        d, eps = stage.split(x)
        _, _, a, s = stage.coefficients()
        return a * d + s * eps


@dataclass(frozen=True)
class Heun(Stepper):
    """Probability flow, second order: trapezoidal rule in α and σ (Karras 2206.00364, algorithm
    1)."""

    calls = 2

    def step(self, x: Tensor, stage: Stage) -> Tensor:
        d, eps = stage.split(x)
        a0, s0, a, s = stage.coefficients()
        guess = a * d + s * eps
        d2, eps2 = stage.split_at(guess, stage.s)
        x = a0 * d + s0 * eps  # = x, except at a point mass, where the noise was just drawn
        return x + 0.5 * ((a - a0) * (d + d2) + (s - s0) * (eps + eps2))


@dataclass(frozen=True)
class Ancestral(Stepper):
    """Draw ``x_s ~ p(x_s | x_t, x_1 = D)``, the Gaussian reverse step (Ho 2006.11239, eq. 6–7).

    ``stochasticity`` η scales the fresh noise as in Song 2010.02502 eq. 16: 1 is ancestral
    sampling, 0 DDIM.
    """

    stochasticity: float = 1.0
    calls = 1

    def __post_init__(self) -> None:
        if not 0 <= self.stochasticity <= 1:
            raise InputError(f"stochasticity must lie in [0, 1], got {self.stochasticity}")

    def step(self, x: Tensor, stage: Stage) -> Tensor:
        d, eps = stage.split(x)
        a0, s0, a, s = stage.coefficients()
        # Var[x_s | x_t, x_1] = σ_s² (1 − SNR_t/SNR_s); at α_t = 0 nothing of x_t carries over
        kept = torch.where(a0 > 0, a0 * s / (s0 * a), torch.zeros_like(a0)).square()
        fresh = self.stochasticity**2 * (1 - kept)
        return stage.noised(a * d + s * (1 - fresh).sqrt() * eps, s * fresh.sqrt())


# ---- the loop
@torch.no_grad()
def sample(
    denoise: Denoise,
    process: GaussianProcess,
    shape: Sequence[int] | None = None,
    *,
    grid: Tensor,
    stepper: Stepper | None = None,
    start: Tensor | None = None,
    mask: Tensor | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    progress: Callable[[int, int], None] | None = None,
    horizontal: bool = False,
) -> Samples:
    """Integrate over the times ``grid: (K,)`` and return the endpoint ``D`` at the last one.

    ``denoise(x: (*B, N, D), t: (*B)) -> (*B, N, D)``. Give ``shape`` to start from the prior or
    ``start`` to start from noise of your own. ``mask: (*B, N)``: padded rows stay 0. With
    ``process.zero_com`` the state, the noise and the answers of ``denoise`` are kept at zero centre
    of mass. ``horizontal``: the answers of ``denoise`` and fresh noise turn nothing, with the drift
    that keeps the law of the shape (``processes.horizontal``): for data without a preferred pose.
    ``progress(done, K)`` is called after every step. The stepper is ``Heun()`` unless
    given. Raises ``InputError`` for neither or both of ``shape`` and ``start``, a grid that does
    not increase, or a last time without noise.
    """
    if grid.ndim != 1 or len(grid) < 2 or not bool((grid.diff() > 0).all()):
        raise InputError("grid must be a vector of at least two increasing times")
    refuse_outside(grid)
    if not float(process.sigma(grid[-1])) > 0:
        raise InputError("grid must end where σ > 0: the last answer of the denoiser is the sample")
    stepper = Heun() if stepper is None else stepper
    if shape is not None and start is None:
        x = process.prior(shape, generator=generator, mask=mask, device=device, dtype=dtype)
    elif start is not None and shape is None:
        x = start
    else:
        raise InputError(
            "give either shape (start from the prior) or start (your own noise), not both"
        )

    def endpoint(x: Tensor, t: Tensor) -> Tensor:
        d = process.project(denoise(x, t), mask)
        if horizontal:
            d = Horizontal(process, mask).part(x, d)
        return d if mask is None else d * mask.unsqueeze(-1)

    times = grid.to(device=x.device, dtype=x.dtype)[:, *[None] * (x.ndim - 2)].expand(
        -1, *x.shape[:-2]
    )
    point = not float(process.sigma(grid[0])) > 0
    for k in range(len(grid) - 1):
        at_point = point and k == 0
        x = stepper.step(
            x,
            Stage(process, endpoint, times[k], times[k + 1], at_point, mask, generator, horizontal),
        )
        if progress is not None:
            progress(k + 1, len(grid))
    x = endpoint(x, times[-1])
    if progress is not None:
        progress(len(grid), len(grid))
    return Samples(x, stepper.calls * (len(grid) - 1) + 1)


STEPPERS = {"heun": Heun, "euler": Euler, "ancestral": Ancestral}
