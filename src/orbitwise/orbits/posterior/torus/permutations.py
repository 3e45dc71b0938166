"""Periodic translations times permutations under wrapped-normal noise: the torus nodes of all
permutations at once.

The nodes τ_j = c + j/N of ``torus.exact`` are the same for every permutation π, because c =
mean(x_t) - mean(x_1) modulo 1/N is. So one table of pairs, T_ik(j) = log WN(x_t,i - x_1,k - τ_j; σ)
per axis, serves all of them:

    F_π(j) = Σ_i T_iπ(i)(j),      evidence = const^D Σ_π μ(π) Π_axes Σ_j e^F_π(j),
    score  = Σ_jk A_ik(j) ∂T_ik(j) - its mean over i,      A_ik(j) = Σ_π P(π, j) [π(i) = k].

Both sums over π are products with the matrix [π(i) = k] of the pairs that the group makes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from orbitwise.groups.permutation import PointPermutation
from orbitwise.groups.torus import PeriodicTranslation, wrapped_normal
from orbitwise.orbits.posterior import dispatch
from orbitwise.orbits.posterior.question import Question
from orbitwise.orbits.posterior.result import OrbitPosterior
from orbitwise.orbits.posterior.sums import Clouds, draws
from orbitwise.orbits.posterior.torus.exact import Axes


def sum_over_permutations(
    torus: PeriodicTranslation, permutations: PointPermutation, clouds: Clouds, question: Question
) -> OrbitPosterior:
    """The exact posterior over ``torus`` × the ``permutations`` that ``clouds`` holds the images of
    ``x1`` under.

    As ``sums.sum_over`` with the exact torus posterior inside, and equal to it; kernels are
    evaluated for N times as many pairs as the permutations make, not for every permutation. ``ess``
    counts permutations.
    """
    axes, x1, xt = Axes(torus, question), question.x1, question.xt
    tables, log_prior = _rows(permutations, axes, clouds, question.mask)
    dim, points = axes.r.shape[1:]
    difference = (xt.unsqueeze(-2) - x1.unsqueeze(-3)).reshape(-1, points * points, dim)
    nodes, order, most = (
        axes.nodes(),
        tables.shape[1],
        min(points * points, tables.shape[1] * points),
    )
    spare = torch.arange(points, device=xt.device) >= axes.n
    step = max(1, axes.chunk // max(dim * points * most, order * (most + dim * points) // 4))
    parts = []

    for rows in torch.arange(len(difference), device=xt.device).split(step):
        pairs, makes = _pairs(tables[rows] if len(tables) > 1 else tables)
        pairs = pairs.expand(len(rows), -1)
        apart = difference[rows].gather(1, pairs.unsqueeze(-1).expand(*pairs.shape, dim))
        kernel = wrapped_normal(
            apart.unsqueeze(-1) - nodes[rows].unsqueeze(1), axes.sigma[rows, :, None, None]
        )
        place = pairs // points
        real = axes.real[rows, 0].gather(1, place)[..., None, None]
        log_f = makes @ torch.where(real, kernel.log_density, 0.0).flatten(2)  # (R, M, D J)
        log_f = log_f.unflatten(-1, (dim, points)).masked_fill(spare[rows, None, None], -math.inf)
        per_axis = torch.logsumexp(log_f, -1)
        logits = per_axis.sum(-1) + (log_prior[rows] if len(log_prior) > 1 else log_prior)
        total = torch.logsumexp(logits, 1)
        weights = (logits - total.unsqueeze(1)).exp()
        joint = (log_f - per_axis.unsqueeze(-1)).exp() * weights[..., None, None]
        share = (makes.mT @ joint.flatten(2)).unflatten(-1, (dim, points))  # A: (R, P, D, J)
        pull = (share * torch.where(real, kernel.score, 0.0)).sum(-1)
        score = pull.new_zeros(len(rows), points, dim)
        parts.append(
            (total, score.scatter_add_(1, place.unsqueeze(-1).expand(pull.shape), pull), weights)
        )

    total, score, weights = (torch.cat(part) for part in zip(*parts, strict=True))
    score = axes.without_mean(score.mT)
    weights = weights.mT.reshape(order, *axes.batch)
    draw = draws(clouds, lambda x: dispatch.exact(torus, question.about(x)), weights)
    result = axes.result(total - dim * axes.log_nodes().squeeze(-1), score, "exact", draw)
    return result.but(ess=1 / weights.square().sum(0))


def _rows(
    permutations: PointPermutation, axes: Axes, clouds: Clouds, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The tables ``(R or 1, M, N)`` and prior weights ``(R or 1, M)`` of the items of ``axes``, R =
    1 where all have the same group."""
    tables = permutations.enumerate(device=axes.r.device)[0]
    ones, points = [1] * (len(axes.batch) - (tables.ndim - 2)), axes.r.shape[-1]
    tables = tables.reshape(len(tables), *ones, *tables.shape[1:])
    permutations.on(tables, points, mask)  # refuses what would move padding
    tables, log_prior = permutations.on(tables, points), clouds.log_prior
    log_prior = log_prior.reshape(len(tables), *ones, *log_prior.shape[1:])
    if tables[0].numel() > points:
        tables = tables.expand(-1, *axes.batch, -1)
        log_prior = log_prior.expand(-1, *axes.batch)
    return tables.reshape(len(tables), -1, points).movedim(0, 1), log_prior.reshape(
        len(tables), -1
    ).mT


def _pairs(tables: Tensor) -> tuple[Tensor, Tensor]:
    """Of tables ``(G, M, N)`` the pairs ``i N + k`` with ``π(i) = k`` for some π, ``(G, P)``, and
    which π makes which: ones and zeros ``(G, M, P)``. Where an item has fewer pairs, others that
    none of its π makes follow."""
    groups, _, n = tables.shape
    flat = (torch.arange(n, device=tables.device) * n + tables).flatten(1)
    used = torch.zeros(groups, n * n, dtype=torch.bool, device=tables.device).scatter_(
        1, flat, True
    )
    pairs = used.byte().argsort(dim=1, descending=True, stable=True)[:, : int(used.sum(1).max())]
    column = (used.cumsum(1) - 1).gather(1, flat).view(tables.shape)
    makes = torch.zeros(
        *tables.shape[:2], pairs.shape[1], dtype=torch.float64, device=tables.device
    )
    return pairs, makes.scatter_(-1, column, 1.0)
