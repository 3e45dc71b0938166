"""Gaussian noising processes ``x_t = α(t) x_1 + σ(t) ε``; t = 0 noise, t = 1 data."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import signature
from typing import Literal

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.processes.base import Process
from orbitwise.processes.times import refuse_other_than_tensors, refuse_outside

Prediction = Literal["endpoint", "noise", "score", "velocity"]


def centre(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Subtract the mean of the real points. ``x: (*B, N, D)``, ``mask: (*B, N)``; padded rows
    stay."""
    if mask is None:
        return x - x.mean(-2, keepdim=True)
    w = mask.unsqueeze(-1).to(x.dtype)
    return x - w * ((x * w).sum(-2, keepdim=True) / w.sum(-2, keepdim=True).clamp_min(1))


def beside(v: Tensor) -> Tensor:
    """``(*B)`` -> ``(*B, 1, 1)``, to stand beside points."""
    return v[..., None, None]


def standard_normal(
    shape: Sequence[int],
    generator: torch.Generator | None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """N(0, 1) numbers drawn where the generator lives, then moved to ``device``."""
    where = device if generator is None else generator.device
    return torch.randn(tuple(shape), generator=generator, device=where, dtype=dtype).to(
        device or where
    )


class GaussianProcess(Process):
    """``p_t(x_t | x_1) = N(α(t) x_1, σ(t)² I)``: four scalar functions of time; everything else
    follows.

    Build one with ``flow``, ``vp``, ``vp_linear``, ``ve``, ``edm`` or ``bridge``, or from a
    configuration by ``named(name, ...)``. With ``zero_com=True`` the process lives in the subspace
    of zero centre of mass: data and noise are projected onto it and densities are those of its
    D(N−1) dimensions.
    >>> import torch
    >>> import orbitwise as ow
    >>> process = ow.GaussianProcess.flow(scale=2.0)
    >>> t = torch.tensor([0.25, 0.5])
    >>> process.alpha(t).tolist(), process.sigma(t).tolist()
    ([0.25, 0.5], [1.5, 1.0])
    >>> x1 = torch.zeros(2, 5, 3)
    >>> process.perturb(x1, t, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([2, 5, 3])
    """

    zero_com: bool

    # ---- the four functions of time, each (*B) -> (*B)
    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal coefficient."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise standard deviation per coordinate, in the units of the data."""

    @abstractmethod
    def alpha_dot(self, t: Tensor) -> Tensor:
        """dα/dt."""

    @abstractmethod
    def sigma_dot(self, t: Tensor) -> Tensor:
        """dσ/dt (infinite where σ has a square-root zero)."""

    # ---- constructors
    @staticmethod
    def flow(scale: float = 1.0, *, zero_com: bool = False) -> Flow:
        """Linear interpolation with N(0, scale²): α = t, σ = (1−t)·scale (Lipman 2210.02747, σ_min
        = 0)."""
        return Flow(scale, zero_com)

    @staticmethod
    def vp(*, zero_com: bool = False) -> VP:
        """Variance preserving, cosine: α = sin(πt/2), σ = cos(πt/2) (Nichol 2102.09672, offset
        0)."""
        return VP(zero_com)

    @staticmethod
    def vp_linear(
        beta_min: float = 0.1, beta_max: float = 20.0, *, zero_com: bool = False
    ) -> VPLinear:
        """Variance preserving, β linear in time (Song 2011.13456, eq. 32–33); α(0) = 0.0066, not
        0."""
        return VPLinear(beta_min, beta_max, zero_com)

    @staticmethod
    def ve(sigma_min: float = 0.01, sigma_max: float = 50.0, *, zero_com: bool = False) -> VE:
        """Variance exploding, geometric: α = 1, σ = σ_max (σ_min/σ_max)^t (Song 2011.13456, eq.
        30)."""
        return VE(sigma_min, sigma_max, zero_com)

    @staticmethod
    def edm(
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
        *,
        zero_com: bool = False,
    ) -> EDM:
        """α = 1 and the noise levels of Karras 2206.00364 eq. 5 with i/(N−1) = t."""
        return EDM(sigma_min, sigma_max, rho, zero_com)

    @staticmethod
    def bridge(sigma: float = 1.0, *, zero_com: bool = False) -> Bridge:
        """Brownian bridge from the origin to the data: α = t, σ = sigma·√(t(1−t)); at t = 0 a point
        mass."""
        return Bridge(sigma, zero_com)

    @staticmethod
    def named(name: str, **numbers: float | bool) -> GaussianProcess:
        """The process ``name`` with its numbers, for configurations; ``InputError`` on unknown
        names."""
        if name not in PROCESSES:
            raise InputError(f"unknown process {name!r}; {_nearest(name, PROCESSES)}")
        known = list(signature(PROCESSES[name]).parameters)
        for key in numbers:
            if key not in known:
                raise InputError(f"process {name!r} has no setting {key!r}; {_nearest(key, known)}")
        return PROCESSES[name](**numbers)

    # ---- derived
    def time_at_ratio(self, ratio: Tensor) -> Tensor:
        """The time at which σ/α equals ``ratio`` (any shape), cut to [0, 1]; σ/α falls with t.

        Here by bisection, which any process may use; those below have their closed forms.
        """
        low, high = torch.zeros_like(ratio), torch.ones_like(ratio)
        for _ in range(60):
            middle = 0.5 * (low + high)
            noisier = self.sigma(middle) > ratio * self.alpha(middle)
            low, high = torch.where(noisier, middle, low), torch.where(noisier, high, middle)
        return 0.5 * (low + high)

    def project(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Onto the subspace the process lives in: zero centre of mass if ``zero_com``. ``x: (*B, N,
        D)``."""
        return centre(x, mask) if self.zero_com else x

    def dimension(self, mask: Tensor, space: int = 3) -> Tensor:
        """Degrees of freedom ``(*B)`` of points with ``mask: (*B, N)``: D·N, or D·(N−1) with
        ``zero_com``."""
        return space * (mask.sum(-1) - int(self.zero_com)).clamp_min(0)

    def noise(
        self,
        like: Tensor,
        *,
        generator: torch.Generator | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Standard normal in the process's subspace, shape of ``like: (*B, N, D)``; 0 on padded
        rows."""
        eps = standard_normal(like.shape, generator, like.device, like.dtype)
        return self.project(eps if mask is None else eps * mask.unsqueeze(-1), mask)

    def prior(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        mask: Tensor | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """``x`` at t = 0: N(0, σ(0)²), ``shape = (*B, N, D)``; the rest α(0) x_1 of the data is
        dropped."""
        if device is None:
            device = (
                mask.device if mask is not None else None if generator is None else generator.device
            )
        like = torch.empty(tuple(shape), device=device, dtype=dtype)
        return self.sigma(like.new_zeros(())) * self.noise(like, generator=generator, mask=mask)

    def perturb(
        self,
        x1: Tensor,
        t: Tensor,
        *,
        generator: torch.Generator | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """``α x_1 + σ ε``. ``x1: (*B, N, D)``, ``t: (*B)``; with ``zero_com`` ``x1`` is centred
        first. Raises ``InputError`` for t outside [0, 1]."""
        refuse_other_than_tensors(x1=x1, t=t, mask=mask)
        refuse_outside(t)
        eps = self.noise(x1, generator=generator, mask=mask)
        return beside(self.alpha(t)) * self.project(x1, mask) + beside(self.sigma(t)) * eps

    def log_density(self, xt: Tensor, x1: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        """``log N(x_t; α x_1, σ² I)`` over the real points; D(N−1) dimensions with ``zero_com``;
        ``(*B)``."""
        r = self._residual(xt, x1, t, mask)
        real = torch.ones(r.shape[:-1], dtype=torch.bool, device=r.device) if mask is None else mask
        variance = self.sigma(t) ** 2
        log_norm = self.dimension(real, r.shape[-1]) * torch.log(2 * math.pi * variance)
        return -0.5 * (r.square().sum((-2, -1)) / variance + log_norm)

    def score(self, xt: Tensor, x1: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        """``−(x_t − α x_1)/σ²``, shape of ``xt``; 0 on padded rows, projected with ``zero_com``."""
        return -self._residual(xt, x1, t, mask) / beside(self.sigma(t) ** 2)

    def _residual(self, xt: Tensor, x1: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
        refuse_other_than_tensors(xt=xt, x1=x1, t=t, mask=mask)
        refuse_outside(t)
        r = self.project(xt - beside(self.alpha(t)) * x1, mask)
        return r if mask is None else r * mask.unsqueeze(-1)

    def convert(
        self, value: Tensor, xt: Tensor, t: Tensor, *, source: Prediction, target: Prediction
    ) -> Tensor:
        """Turn one prediction at ``(x_t, t)`` into another. ``value, xt: (*B, N, D)``, ``t: (*B)``.

        With ``x_t = α x_1 + σ ε``: endpoint ``x_1``, noise ``ε``, score ``−ε/σ``, velocity ``α̇ x_1
        + σ̇ ε``. All pairs go through the endpoint, so ``noise`` and ``score`` as source need α >
        0, and every target but the endpoint needs σ > 0. Raises ``InputError`` for an unknown name.
        """
        for name in (source, target):
            if name not in ("endpoint", "noise", "score", "velocity"):
                raise InputError(
                    f"unknown prediction {name!r}; use endpoint, noise, score or velocity"
                )
        refuse_outside(t)
        if source == target:
            return value
        a, s, da, ds = (
            beside(f(t)) for f in (self.alpha, self.sigma, self.alpha_dot, self.sigma_dot)
        )
        if source == "endpoint":
            x1 = value
        elif source == "noise":
            x1 = (xt - s * value) / a
        elif source == "score":
            x1 = (xt + s * s * value) / a
        else:  # solve x_t = α x_1 + σ ε, v = α̇ x_1 + σ̇ ε for x_1
            x1 = (s * value - ds * xt) / (s * da - ds * a)
        if target == "endpoint":
            return x1
        eps = (xt - a * x1) / s
        return {"noise": eps, "score": -eps / s, "velocity": da * x1 + ds * eps}[target]


@dataclass(frozen=True)
class Flow(GaussianProcess):
    """See ``GaussianProcess.flow``."""

    scale: float = 1.0
    zero_com: bool = False

    def alpha(self, t: Tensor) -> Tensor:
        return t

    def sigma(self, t: Tensor) -> Tensor:
        return (1 - t) * self.scale

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.full_like(t, -self.scale)

    def time_at_ratio(self, ratio: Tensor) -> Tensor:
        return self.scale / (self.scale + ratio)


@dataclass(frozen=True)
class VP(GaussianProcess):
    """See ``GaussianProcess.vp``."""

    zero_com: bool = False

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(0.5 * math.pi * t)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(0.5 * math.pi * (1 - t))  # the cosine, exactly 0 at t = 1

    def alpha_dot(self, t: Tensor) -> Tensor:
        return 0.5 * math.pi * self.sigma(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return -0.5 * math.pi * self.alpha(t)

    def time_at_ratio(self, ratio: Tensor) -> Tensor:
        return (2 / math.pi) * torch.atan(1 / ratio)


@dataclass(frozen=True)
class VPLinear(GaussianProcess):
    """See ``GaussianProcess.vp_linear``."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    zero_com: bool = False

    def _log_alpha(self, t: Tensor) -> Tensor:
        u = 1 - t
        return -0.25 * u * u * (self.beta_max - self.beta_min) - 0.5 * u * self.beta_min

    def alpha(self, t: Tensor) -> Tensor:
        return self._log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self._log_alpha(t))).sqrt()

    def alpha_dot(self, t: Tensor) -> Tensor:
        return self.alpha(t) * 0.5 * (self.beta_min + (1 - t) * (self.beta_max - self.beta_min))

    def sigma_dot(self, t: Tensor) -> Tensor:
        return -self.alpha(t) * self.alpha_dot(t) / self.sigma(t)  # from α² + σ² = 1

    def time_at_ratio(self, ratio: Tensor) -> Tensor:
        # −4 log α = u² (β_max − β_min) + 2 u β_min, a quadratic in u = 1 − t
        level, slope = 2 * torch.log1p(ratio.square()), self.beta_max - self.beta_min
        u = level / (self.beta_min + (self.beta_min**2 + slope * level).sqrt())
        return (1 - u).clamp(0, 1)


class _Exploding(GaussianProcess):
    """α = 1."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)


@dataclass(frozen=True)
class VE(_Exploding):
    """See ``GaussianProcess.ve``."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    zero_com: bool = False

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_max * torch.exp(t * math.log(self.sigma_min / self.sigma_max))

    def sigma_dot(self, t: Tensor) -> Tensor:
        return math.log(self.sigma_min / self.sigma_max) * self.sigma(t)

    def time_at_ratio(self, ratio: Tensor) -> Tensor:
        return ((ratio / self.sigma_max).log() / math.log(self.sigma_min / self.sigma_max)).clamp(
            0, 1
        )


@dataclass(frozen=True)
class EDM(_Exploding):
    """See ``GaussianProcess.edm``."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    zero_com: bool = False

    def _ends(self) -> tuple[float, float]:
        return self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)

    def _root(self, t: Tensor) -> tuple[Tensor, float]:
        high, low = self._ends()
        return high + t * (low - high), low - high

    def sigma(self, t: Tensor) -> Tensor:
        return self._root(t)[0].pow(self.rho)

    def sigma_dot(self, t: Tensor) -> Tensor:
        root, slope = self._root(t)
        return self.rho * slope * root.pow(self.rho - 1)

    def time_at_ratio(self, ratio: Tensor) -> Tensor:
        high, low = self._ends()
        return ((ratio.pow(1 / self.rho) - high) / (low - high)).clamp(0, 1)


@dataclass(frozen=True)
class Bridge(GaussianProcess):
    """See ``GaussianProcess.bridge``. ``scale`` is the diffusion coefficient of the Brownian
    motion."""

    scale: float = 1.0
    zero_com: bool = False

    def alpha(self, t: Tensor) -> Tensor:
        return t

    def sigma(self, t: Tensor) -> Tensor:
        return self.scale * (t * (1 - t)).sqrt()

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return self.scale * (0.5 - t) / (t * (1 - t)).sqrt()

    def time_at_ratio(self, ratio: Tensor) -> Tensor:
        return self.scale**2 / (self.scale**2 + ratio.square())


PROCESSES: dict[str, type[GaussianProcess]] = {
    "flow": Flow,
    "vp": VP,
    "vp_linear": VPLinear,
    "ve": VE,
    "edm": EDM,
    "bridge": Bridge,
}


def _nearest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
