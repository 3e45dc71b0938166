"""Von Mises mixtures from angles: expectation maximisation with weights, restarts and a floor."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.processes.von_mises import LOG_TURN, ProductMixture, VonMisesMixture


def fit_von_mises(
    angle: Tensor,
    components: int,
    *,
    weight: Tensor | None = None,
    floor: float = 0.0,
    bounds: tuple[float, float] = (0.0, 1000.0),
    prior: float = 0.0,
    restarts: int = 4,
    steps: int = 100,
    generator: torch.Generator | None = None,
) -> VonMisesMixture:
    """``fit_products`` of one angle each: ``angle: (n, *B) -> (*B, K)``, or ``K + 1`` with a
    floor."""
    weight = None if weight is None else weight.expand(angle.shape)
    fitted = fit_products(
        angle.unsqueeze(-1),
        components,
        weight=weight,
        floor=floor,
        bounds=bounds,
        prior=prior,
        restarts=restarts,
        steps=steps,
        generator=generator,
    )
    return VonMisesMixture(
        fitted.log_weight, fitted.mean.squeeze(-1), fitted.concentration.squeeze(-1)
    )


def fit_products(
    angle: Tensor,
    components: int,
    *,
    weight: Tensor | None = None,
    floor: float = 0.0,
    bounds: tuple[float, float] = (0.0, 1000.0),
    prior: float = 0.0,
    restarts: int = 4,
    steps: int = 100,
    generator: torch.Generator | None = None,
) -> ProductMixture:
    """The likeliest mixture of ``components`` products for ``angle: (n, *B, D)``, in float64.

    ``weight: (n, *B)``: how much each row counts (shares of a grid, importance weights). ``floor``
    > 0 puts that much of the weight on one more component, the last, which is uniform and stays so:
    it keeps the density of everything above ``floor/(2π)^D``. ``bounds`` of κ. ``prior``: so many
    rows without any direction are added to each component, which keeps one that rests on few rows
    wide. All of the batch and all ``restarts`` (means drawn from the rows, far apart) move at once;
    the best of the restarts is kept. The same generator gives the same mixture.

    E and M step: Banerjee, Dhillon, Ghosh, Sra, JMLR 6, 1345 (2005), eqs 3.5-3.8 on the circle.
    Raises ``InputError`` for shapes that do not fit and for angles that are not finite.
    """
    if angle.ndim < 2 or len(angle) < 1 or components < 1 or not 0 <= floor < 1:
        raise InputError(
            f"cannot fit {components} components with a floor of {floor} to angles of shape"
            f" {tuple(angle.shape)}; need (n, *B, D), at least one of each, and 0 <= floor < 1"
        )
    if not torch.isfinite(angle).all():
        raise InputError("cannot fit angles that are not finite")
    lead, (n, d) = angle.shape[1:-1], (len(angle), angle.shape[-1])
    data = angle.detach().double().reshape(n, -1, d).movedim(0, 1)  # (M, n, D)
    if weight is None:
        counts = torch.ones(data.shape[:2], dtype=torch.float64, device=data.device)
    else:
        counts = weight.detach().double().expand(n, *lead).reshape(n, -1).T
    arms = torch.cat([data.cos(), data.sin()], -1)  # (M, n, 2D)

    mean = _spread(data, counts, components, restarts, generator)  # (S, M, K, D)
    kappa = torch.full_like(mean, 4.0).clamp(*bounds)
    log_weight = torch.full_like(mean[..., 0], math.log((1 - floor) / components))
    uniform = math.log(floor) - d * LOG_TURN if floor else -math.inf
    for _ in range(steps):
        joint, _ = _log_joint(arms, log_weight, mean, kappa, uniform)
        share = joint.exp() * counts.unsqueeze(-1)  # (S, M, n, K)
        mass = share.sum(-2)
        pull = share.transpose(-1, -2) @ arms
        cos, sin = pull[..., :d], pull[..., d:]
        total = mass.unsqueeze(-1).clamp_min(1e-12)
        mean = torch.atan2(sin, cos)
        kappa = concentration_of(torch.hypot(sin, cos) / (total + prior)).clamp(*bounds)
        log_weight = (mass / mass.sum(-1, keepdim=True)).clamp_min(1e-12).log()
        log_weight = log_weight.log_softmax(-1) + math.log1p(-floor)

    _, evidence = _log_joint(arms, log_weight, mean, kappa, uniform)
    best = (evidence * counts).sum(-1).argmax(0)  # (M,)
    rows = torch.arange(len(best), device=best.device)
    log_weight, mean, kappa = (v[best, rows] for v in (log_weight, mean, kappa))
    if floor:
        last = torch.full_like(log_weight[:, :1], math.log(floor))
        log_weight = torch.cat([log_weight, last], -1)
        mean, kappa = (torch.cat([v, torch.zeros_like(v[:, :1])], 1) for v in (mean, kappa))
    return ProductMixture(
        log_weight.reshape(*lead, -1),
        mean.reshape(*lead, -1, d),
        kappa.reshape(*lead, -1, d),
    )


def concentration_of(resultant: Tensor) -> Tensor:
    """κ with ``I₁(κ)/I₀(κ) = R`` for mean resultant lengths R in [0, 1), to 1e-9 of κ below 1e4:
    the first guess of Banerjee et al. (eq 4.4) and four Newton steps."""
    r = resultant.clamp(1e-12, 1 - 1e-9)
    kappa = r * (2 - r.square()) / (1 - r.square())
    for _ in range(4):
        ratio = torch.special.i1e(kappa) / torch.special.i0e(kappa)
        slope = (1 - ratio.square() - ratio / kappa).clamp_min(1e-20)
        kappa = (kappa - (ratio - r) / slope).maximum(kappa / 2).minimum(2 * kappa)
    return kappa


def _log_joint(
    arms: Tensor, log_weight: Tensor, mean: Tensor, kappa: Tensor, uniform: float
) -> tuple[Tensor, Tensor]:
    """Log responsibilities ``(S, M, n, K)`` of the components and log densities ``(S, M, n)``."""
    pull = torch.cat([kappa * mean.cos(), kappa * mean.sin()], -1)  # (S, M, K, 2D)
    scale = (kappa + LOG_TURN + torch.special.i0e(kappa).log()).sum(-1)
    joint = arms @ pull.transpose(-1, -2) + (log_weight - scale).unsqueeze(-2)
    total = joint.logsumexp(-1)
    if uniform > -math.inf:
        total = torch.logaddexp(total, torch.full_like(total, uniform))
    return joint - total.unsqueeze(-1), total


def _spread(
    data: Tensor, counts: Tensor, components: int, restarts: int, generator: torch.Generator | None
) -> Tensor:
    """Rows far from each other, ``(restarts, M, K, D)`` of ``data: (M, n, D)``: each next one drawn
    with probability ∝ weight × distance to the nearest so far (k-means++)."""
    where = data.device if generator is None else generator.device
    rows, n = data.shape[:2]
    far = counts.expand(restarts, rows, n)
    found: list[Tensor] = []
    for _ in range(components):
        u = torch.rand(
            restarts, rows, 1, generator=generator, device=where, dtype=torch.float64
        ).to(data.device)
        edges = far.cumsum(-1)
        pick = torch.searchsorted(edges, u * edges[..., -1:]).clamp_max(n - 1)
        new = data.expand(restarts, -1, -1, -1).take_along_dim(pick.unsqueeze(-1), -2)
        found.append(new)
        away = (1 - (data - new).cos()).sum(-1) * counts
        far = away if len(found) == 1 else far.minimum(away)
        far = far + 1e-9 * counts  # fewer different rows than components
    return torch.cat(found, -2)
