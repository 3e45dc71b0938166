"""The posterior over periodic translations under wrapped-normal noise: exact, with N nodes and no
tolerance.

Per axis, with residuals r_i = x_t,i - x_1,i and F(τ) = Σ_i log WN(r_i - τ; σ), the posterior is e^F
/ ∫ e^F. Writing WN as its sum over images and completing the square in τ, e^F is a sum over
windings m ∈ Z^N,

    e^F(τ) = Σ_m exp(-S_m/2σ²) N(τ; mean(r + m), σ²/N) · const,     mean(r + m) ∈ c + Z/N,  c =
    mean(r),

so all its Gaussians are equally wide and sit on the lattice c + Z/N. Summed over the N nodes τ_j =
c + j/N, each of them gives the same multiple of its integral, whatever m and σ. Hence, exactly,

    evidence  ∫_0^1 e^F dτ      = (1/N) Σ_j e^F(τ_j) / WN(0; σ√N)
      (1) score     ∂ log ∫ e^F /∂x_t = Σ_j w_j [s_i(τ_j) - mean_k s_k(τ_j)],  w = softmax_j F(τ_j)
            (2) a draw    j ~ w, then windings m | τ_j, then τ ~ N(mean(r + m), σ²/N)
                  (3)

with s_i(τ) = ∂ log WN(r_i - τ; σ). (2) is the gradient of (1): every node moves by 1/N with each
x_t,i. For small σ one node carries all weight and (2) is the ordinary score minus its mean over the
crystal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.torus import PeriodicTranslation, nearest_image, wrap, wrapped_normal
from orbitwise.orbits.posterior import dispatch
from orbitwise.orbits.posterior.noise import Wrapped
from orbitwise.orbits.posterior.question import Question
from orbitwise.orbits.posterior.result import Draw, Method, OrbitPosterior

_FLAT = 1.4  # above this σ the posterior is uniform to 1e-16: windings are drawn as if σ were this
CACHE = (
    2**16
    # entries of a table computed at a time: what a core's cache holds; an accelerator takes 128
    # times that
)
_CLIMB = 30  # fixed-point steps from the best node to the mode


@dispatch.exact.register
def exact_torus(group: PeriodicTranslation, question: Question) -> OrbitPosterior:
    """Exact for every σ > 0 and any residuals; N² terms per axis, in chunks.

    ``log_evidence`` is the log density in fractional coordinates; ``mean`` is ``x_t + σ² score``,
    the posterior mean of the lifted points (not wrapped). ``NoClosedFormError`` if the process is
    not wrapped.
    """
    axes = Axes(group, question)
    log_evidence, score, weights = axes.solve()
    return axes.result(log_evidence, score, "exact", lambda K, gen: axes.draw(K, weights, gen))


@dispatch.mode.register
def mode_torus(group: PeriodicTranslation, question: Question) -> OrbitPosterior:
    """The most probable shift: per axis the best of the N nodes, then 30 steps of
    expectation-maximisation over the windings. Biased at every noise level; at small σ it misses
    only the shift's variance σ²/N.
    """
    axes = Axes(group, question)
    best = axes.solve()[2].argmax(-1, keepdim=True)
    shift = axes.climb(axes.nodes().gather(-1, best).squeeze(-1))
    log_density, score = axes.at(shift)
    element = axes.element(shift)
    return axes.result(
        log_density, score, "mode", lambda K, gen: element.expand(K, *element.shape).clone()
    )


class Axes:
    """The residuals, batch and axes in front: ``r: (R, D, N)``, ``real: (R, 1, N)``, ``sigma, n:
    (R, 1)``, where R runs over the batch ``(*L, *B)``."""

    def __init__(self, group: PeriodicTranslation, question: Question):
        noise, xt, mask = question.noise, question.xt, question.mask
        if not isinstance(noise, Wrapped):
            raise NoClosedFormError(
                "PeriodicTranslation needs wrapped-normal noise (WrappedNormalProcess), not"
                f" {type(question.process).__name__}; under Gaussian noise use Translation or"
                " zero_com=True"
            )
        if xt.shape[-1] != group.dim:
            raise InputError(
                f"PeriodicTranslation({group.dim}) on points with {xt.shape[-1]} coordinates"
            )
        r = xt - question.x1
        self.batch, self.xt = r.shape[:-2], xt
        real = (
            torch.ones(xt.shape[:-1], dtype=torch.bool, device=xt.device) if mask is None else mask
        )
        self.real = real.expand(r.shape[:-1]).reshape(-1, 1, r.shape[-2])
        self.r = torch.where(
            self.real, nearest_image(r).mT.reshape(-1, r.shape[-1], r.shape[-2]), 0.0
        )
        self.sigma = noise.sigma.expand(self.batch).reshape(-1, 1)
        self.n = self.real.sum(-1).to(xt)
        self.start = self.r.sum(-1) / self.n  # c
        self.chunk = CACHE if xt.device.type == "cpu" else 128 * CACHE

    def nodes(self) -> Tensor:
        """τ_j, (R, D, N); those with j >= n are not used."""
        steps = torch.arange(self.r.shape[-1], device=self.r.device) / self.n.unsqueeze(-1)
        return self.start.unsqueeze(-1) + steps

    def log_nodes(self) -> Tensor:
        """log of what the sum over the nodes is to the integral, (R, 1): the denominator of (1)."""
        spread = wrapped_normal(torch.zeros_like(self.sigma), self.sigma * self.n.sqrt())
        return self.n.log() + spread.log_density

    def solve(self) -> tuple[Tensor, Tensor, Tensor]:
        """Log evidence (R), score (R, D, N) and node weights (R, D, N): equations (1) and (2)."""
        rows, dim, points = self.r.shape
        nodes, parts = self.nodes(), []
        step = max(1, self.chunk // (dim * points * points))
        for rows_of in torch.arange(rows, device=self.r.device).split(step):
            u = self.r[rows_of].unsqueeze(-2) - nodes[rows_of].unsqueeze(-1)  # (R, D, J, N)
            sigma, real = self.sigma[rows_of, :, None, None], self.real[rows_of].unsqueeze(-2)
            kernel = wrapped_normal(u, sigma)
            log_f = torch.where(real, kernel.log_density, 0.0).sum(-1)
            spare = torch.arange(points, device=u.device) >= self.n[rows_of, :, None]
            log_f = log_f.masked_fill(spare, -math.inf)
            pull = torch.where(real, kernel.score, 0.0)
            total = torch.logsumexp(log_f, -1)
            weights = (log_f - total.unsqueeze(-1)).exp()
            score = (weights.unsqueeze(-2) @ pull).squeeze(-2)
            parts.append((total, score, weights))
        total, score, weights = (torch.cat(part) for part in zip(*parts, strict=True))
        return (total - self.log_nodes()).sum(-1), self.without_mean(score), weights

    def without_mean(self, score: Tensor) -> Tensor:
        """``(R, D, N)`` less its mean over the real points; 0 on the others."""
        mean = score.sum(-1, keepdim=True) / self.n.unsqueeze(-1)
        return torch.where(self.real, score - mean, 0.0)

    def draw(self, K: int, weights: Tensor, generator: torch.Generator | None) -> Tensor:
        """``K`` shifts (K, *L, *B, D): equation (3)."""
        uniform = self._uniform((*weights.shape[:-1], K), generator)
        cdf = weights.cumsum(-1)
        j = torch.searchsorted(cdf, uniform * cdf[..., -1:], right=True).clamp_max(
            weights.shape[-1] - 1
        )
        shift = self.nodes().gather(-1, j).movedim(-1, 0)  # (K, R, D)
        sigma = self.sigma.clamp(max=_FLAT)
        reach = math.ceil(8.5 * float(sigma.max())) + 1
        images = torch.arange(-reach, reach + 1, device=shift.device)
        step, means = max(1, self.chunk // (self.r.numel() * len(images))), []
        for part in shift.split(step):
            u = nearest_image(self.r - part.unsqueeze(-1))
            table = torch.softmax(
                -0.5 * ((u.unsqueeze(-1) + images) / sigma[..., None, None]) ** 2, -1
            )
            below = table.cumsum(-1) < self._uniform(u.shape, generator).unsqueeze(-1)
            lifted = u + images[below.sum(-1).clamp_max(2 * reach)]
            means.append(torch.where(self.real, lifted, 0.0).sum(-1) / self.n)
        where = shift.device if generator is None else generator.device
        noise = torch.randn(shift.shape, generator=generator, device=where, dtype=shift.dtype).to(
            shift
        )
        return self.element(shift + torch.cat(means) + sigma / self.n.sqrt() * noise)

    def climb(self, shift: Tensor) -> Tensor:
        """The mode near a node, (R, D): τ <- mean of the residuals at their expected windings."""
        for _ in range(_CLIMB):
            pull = wrapped_normal(self.r - shift.unsqueeze(-1), self.sigma.unsqueeze(-1)).score
            shift = shift - self.sigma**2 * torch.where(self.real, pull, 0.0).sum(-1) / self.n
        return shift

    def at(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Log density (R) and score (R, D, N) of the points shifted by (R, D)."""
        kernel = wrapped_normal(self.r - shift.unsqueeze(-1), self.sigma.unsqueeze(-1))
        log_f = torch.where(self.real, kernel.log_density, 0.0).sum((-2, -1))
        return log_f, torch.where(self.real, kernel.score, 0.0)

    def element(self, shift: Tensor) -> Tensor:
        """``(*K, R, D)`` as group elements ``(*K, *L, *B, D)``."""
        return wrap(shift).reshape(*shift.shape[:-2], *self.batch, shift.shape[-1])

    def result(
        self, log_evidence: Tensor, score: Tensor, method: Method, draw: Draw
    ) -> OrbitPosterior:
        score = score.mT.reshape(*self.batch, *self.xt.shape[-2:])
        mean = self.xt + self.sigma.reshape(*self.batch, 1, 1) ** 2 * score
        return OrbitPosterior(
            mean=mean,
            log_evidence=log_evidence.reshape(self.batch),
            score=score,
            method=method,
            exact=method == "exact",
            draw=draw,
        )

    def _uniform(self, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
        where = self.r.device if generator is None else generator.device
        return torch.rand(shape, generator=generator, device=where, dtype=self.r.dtype).to(self.r)
