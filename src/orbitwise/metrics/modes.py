"""Are all known modes there, and in proportion? Mixtures with known components, and products of
wells.

Every deviation stands beside what an exact sampler of the same (effective) size would show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.errors import InputError

_OUTSIDE = (
    1e-4  # share of an exact Gaussian that lies outside the ellipsoid which counts as its mode
)


@dataclass(frozen=True)
class Deviation:
    """A deviation of samples from the exact law, and its mean and 95 % quantile for exact
    samples."""

    value: float
    exact_mean: float
    exact_95: float

    @property
    def excess(self) -> bool:
        """Larger than 19 of 20 exact samplers would show."""
        return self.value > self.exact_95


@dataclass(frozen=True)
class ModeWeights:
    """Weights of the components of a mixture in a set of samples.

    ``weight: (K,)`` mean responsibilities with standard errors ``error: (K,)`` beside the ``exact:
    (K,)``; ``count: (K,)`` samples that lie inside a component's ellipsoid (all but 10⁻⁴ of its
    mass) and belong to it; ``found``: components with at least one; ``outside``: share of samples
    inside none. ``largest``: max_k |w_k - exact_k|; ``total_variation``: ½ Σ_k |w_k - exact_k|.
    ``effective``: samples that the (weighted) set is worth.
    """

    weight: Tensor
    error: Tensor
    exact: Tensor
    count: Tensor
    outside: float
    largest: Deviation
    total_variation: Deviation
    effective: float

    @property
    def found(self) -> int:
        return int((self.count > 0).sum())

    def lines(self) -> list[str]:
        share = 100 * (self.weight / self.exact - 1).abs().max()
        return [
            (
                f"modes found {self.found} of {len(self.exact)} ({100 * self.outside:.2g} % of"
                " samples outside all)"
            ),
            (
                f"largest error of a mode's weight {_beside(self.largest, 100)} %"
                f" ({float(share):.0f} % of the weight)"
            ),
            f"total variation of the mode weights {_beside(self.total_variation)}",
        ]


@dataclass(frozen=True)
class WellCoverage:
    """Samples of a product of W equal double wells.

    ``minor: (W,)`` mass on the minor side of each well, with standard errors ``error: (W,)``
    expected of exact samples; ``exact``: the true minor mass; ``largest`` and ``rms`` deviation
    over wells. ``minor_wells: (W+1,)``: distribution of the number of minor wells per sample,
    ``binomial: (W+1,)`` the exact one, and their ``total_variation``. ``correlation``: largest
    |correlation| between the sides of two wells (independent in the target).
    """

    minor: Tensor
    error: Tensor
    exact: float
    largest: Deviation
    rms: Deviation
    minor_wells: Tensor
    binomial: Tensor
    total_variation: Deviation
    correlation: Deviation
    effective: float

    def lines(self) -> list[str]:
        return [
            (
                f"minor mass {100 * float(self.minor.mean()):.2f} % on average,"
                f" {100 * float(self.minor.min()):.2f} to {100 * float(self.minor.max()):.2f} %"
                f" over {len(self.minor)} wells; exact {100 * self.exact:.2f} %"
            ),
            f"largest deviation {_beside(self.largest, 100)} %, rms {_beside(self.rms, 100)} %",
            (
                "number of minor wells: total variation against binomial"
                f" {_beside(self.total_variation)}"
            ),
            f"largest correlation between two wells {_beside(self.correlation)}",
        ]


def mixture_modes(
    x: Tensor,
    means: Tensor,
    scales: Tensor,
    weights: Tensor,
    *,
    log_weights: Tensor | None = None,
    repeats: int = 500,
    generator: torch.Generator | None = None,
) -> ModeWeights:
    """Weights of Gaussian components in samples ``x: (n, *E)``.

    ``means, scales: (K, *E)`` and ``weights: (K,)`` of the mixture; ``log_weights: (n,)``
    importance weights up to a constant (default equal). The estimate of w_k is the mean
    responsibility ``E[p(k | x)]``, which equals w_k exactly for exact samples also where components
    overlap (counting the nearest does not). Deviations of exact samplers: ``repeats`` multinomial
    draws of the effective size.

    Raises ``InputError`` for shapes that do not fit and for samples that are not finite.
    """
    if (
        x.shape[1:] != means.shape[1:]
        or means.shape != scales.shape
        or weights.shape != means.shape[:1]
    ):
        raise InputError(
            f"samples {tuple(x.shape)}, means {tuple(means.shape)}, scales {tuple(scales.shape)}"
            f" and weights {tuple(weights.shape)} do not fit; expected (n, *E), (K, *E), (K, *E),"
            " (K,)"
        )

    share, effective = _shares(x, log_weights)
    points, means, scales = (v.to(x.device).double().flatten(1) for v in (x, means, scales))
    exact = weights.to(x.device).double() / weights.sum()
    log_density = torch.distributions.Normal(means, scales).log_prob(points[:, None]).sum(-1)
    belongs = (log_density + exact.log()).softmax(-1)  # (n, K)
    inside = ((points[:, None] - means) / scales).square().sum(-1) < _ellipsoid(means.shape[1])
    nearest = belongs.argmax(1)
    counted = inside.gather(1, nearest[:, None])[:, 0]
    weight = share @ belongs
    off = weight - exact
    null = _multinomial(exact, effective, repeats, generator) - exact

    return ModeWeights(
        weight=weight,
        error=(share.square() @ (belongs - weight).square()).sqrt(),
        exact=exact,
        count=torch.bincount(nearest[counted], minlength=len(exact)),
        outside=max(0.0, float(share @ (~inside.any(1)).double())),
        largest=_against(float(off.abs().max()), null.abs().amax(-1)),
        total_variation=_against(0.5 * float(off.abs().sum()), 0.5 * null.abs().sum(-1)),
        effective=effective,
    )


def well_coverage(
    x: Tensor,
    minor_mass: float,
    *,
    log_weights: Tensor | None = None,
    repeats: int = 500,
    generator: torch.Generator | None = None,
) -> WellCoverage:
    """Coverage of a many-well target by ``x: (n, 2W)``, whose even coordinates are the double
    wells.

    ``minor_mass``: exact probability of a < 0 in one well (0.1557 for ``ManyWell``, its
    ``minor_mass``); ``log_weights: (n,)`` as in ``mixture_modes``. What exact samplers show is
    drawn ``repeats`` times from the exact law: W binomials of the effective size for the wells, a
    multinomial for the number of minor wells; for the largest of P correlations, P independent
    normals of variance 1/size.

    Raises ``InputError`` for an odd number of coordinates and samples that are not finite.
    """
    if x.ndim != 2 or x.shape[1] % 2 or not 0 < minor_mass < 1:
        raise InputError(
            "a many-well sample is (n, 2W) and its minor mass lies between 0 and 1, got"
            f" {tuple(x.shape)} and {minor_mass}"
        )

    share, effective = _shares(x, log_weights)
    minor = (x[:, 0::2] < 0).double()
    wells = minor.shape[1]
    mass = share @ minor
    off = mass - minor_mass
    two = torch.tensor([minor_mass, 1 - minor_mass], dtype=torch.float64, device=x.device)
    null = (
        _multinomial(two, effective, repeats * wells, generator)[:, 0].reshape(repeats, wells)
        - minor_mass
    )
    number = torch.zeros(wells + 1, dtype=torch.float64, device=x.device)
    number.index_add_(0, minor.sum(1).long(), share)
    k = torch.arange(wells + 1, dtype=torch.float64, device=x.device)
    binomial = torch.distributions.Binomial(wells, probs=two[0]).log_prob(k).exp()
    spread = _multinomial(binomial, effective, repeats, generator) - binomial
    pairs = wells * (wells - 1) // 2
    chance = _normal((repeats, max(pairs, 1)), generator, x.device).abs().amax(-1) / math.sqrt(
        effective
    )
    centred = minor - mass
    covariance = (centred * share[:, None]).T @ centred
    scale = covariance.diagonal().clamp_min(1e-300).sqrt()
    # a well without both sides has no correlation, which its mass tells
    correlation = (covariance / scale / scale[:, None]).triu(1).abs().max()

    return WellCoverage(
        minor=mass,
        error=torch.full_like(mass, math.sqrt(minor_mass * (1 - minor_mass) / effective)),
        exact=minor_mass,
        largest=_against(float(off.abs().max()), null.abs().amax(-1)),
        rms=_against(float(off.square().mean().sqrt()), null.square().mean(-1).sqrt()),
        minor_wells=number,
        binomial=binomial,
        total_variation=_against(
            0.5 * float((number - binomial).abs().sum()), 0.5 * spread.abs().sum(-1)
        ),
        correlation=_against(float(correlation), chance),
        effective=effective,
    )


def _shares(x: Tensor, log_weights: Tensor | None) -> tuple[Tensor, float]:
    """Normalised weights (n,) and the number of equally weighted samples that they are worth
    (Kish)."""
    n = len(x)
    bad = int((~torch.isfinite(x.flatten(1))).any(1).sum()) if n else 0
    if n == 0 or bad:
        raise InputError(f"{bad} of {n} samples are not finite; modes cannot be counted")
    if log_weights is None:
        return torch.full((n,), 1.0 / n, dtype=torch.float64, device=x.device), float(n)
    if log_weights.shape != (n,) or bool(log_weights.isnan().any()):
        raise InputError(f"log weights must be ({n},) without NaN, got {tuple(log_weights.shape)}")
    share = log_weights.to(x.device).double().softmax(0)
    return share, 1.0 / float(share.square().sum())


def _ellipsoid(dims: int) -> float:
    """Squared radius in standard deviations that holds all but ``_OUTSIDE`` of a Gaussian."""
    from scipy.stats import chi2

    return float(chi2.ppf(1 - _OUTSIDE, dims))


def _multinomial(p: Tensor, size: float, repeats: int, generator: torch.Generator | None) -> Tensor:
    """Frequencies ``(repeats, K)`` of ``size`` exact draws."""
    size = max(1, round(size))
    if size * repeats > 2_000_000:  # many draws: binomials are normal; Σ_k stays 1 by projection
        noise = _normal((repeats, len(p)), generator, p.device) * p.sqrt()
        return p + (noise - p * noise.sum(-1, keepdim=True)) / math.sqrt(size)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    u = torch.rand(
        (repeats, size), generator=generator, device=generator.device, dtype=torch.float64
    )
    cell = torch.searchsorted(p.cumsum(0).to(u.device), u).clamp(max=len(p) - 1)
    row = torch.arange(repeats, device=u.device)[:, None] * len(p)
    counts = torch.bincount((row + cell).flatten(), minlength=repeats * len(p))
    return (counts.double() / size).reshape(repeats, len(p)).to(p.device)


def _normal(shape: tuple[int, ...], generator: torch.Generator | None, device) -> Tensor:
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64).to(
        device
    )


def _against(value: float, null: Tensor) -> Deviation:
    return Deviation(value, float(null.mean()), float(null.quantile(0.95)))


def _beside(d: Deviation, scale: float = 1.0) -> str:
    return (
        f"{d.value * scale:.3g} (exact sampler {d.exact_mean * scale:.3g}, 95 % below"
        f" {d.exact_95 * scale:.3g})"
    )
