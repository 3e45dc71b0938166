"""Distances between configurations of identical particles, whatever their orientation, place and
labels.

The ground distance of the published "geometric" W2 of Lennard-Jones clusters and the double well is
the minimum over rotations and permutations of Klein, Krämer and Noé (Equivariant flow matching,
arXiv 2306.15030), approximated by one assignment (Hungarian) of the points as given and then one
rotation (Kabsch). That is ``published_distance``; it lies above the minimum by as much as the first
matching misses. ``aligned_distance`` searches for the minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.metrics.transport import wasserstein_from_distances

ROTATIONS = 512  # tried by the screen
FREQUENCIES = 128
CELLS = 10_000_000  # numbers in a chunk of tables; memory only


def aligned_distance(
    x: Tensor,
    y: Tensor,
    *,
    starts: int = 4,
    reflection: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """``min (Σ_i |x_i - y_π(i) R - v|²)^½`` over rotations R, shifts v and permutations π, for all
    pairs.

    ``x: (n, N, D), y: (m, N, D) -> (n, m)`` float64 in units of x (not divided by N);
    ``reflection=True`` also over mirror images. Found by assignment (Hungarian) and rotation
    (Kabsch) in turns, from the orientation as given and from the ``starts`` most promising of many
    random rotations, so the value is an upper bound of the minimum and grows tighter with
    ``starts``. ``generator`` draws the rotations; without one they are the same every time. LJ-13
    takes some 0.15 ms a pair on one core. Raises ``InputError`` for shapes that do not belong
    together, points that are not finite or ``starts < 0``.
    """
    matcher = _Matcher.of(x, y, starts, reflection, generator)
    matcher.improve(range(-1, starts))
    return matcher.distance()


def published_distance(x: Tensor, y: Tensor, *, reflection: bool = False) -> Tensor:
    """The same from one assignment of the points as given and one rotation after it: the convention
    of the published figures. ``x: (n, N, D), y: (m, N, D) -> (n, m)``."""
    matcher = _Matcher.of(x, y, 0, reflection, None)
    matcher.improve([-1], rounds=1)
    return matcher.distance()


def symmetric_w2(
    x: Tensor,
    y: Tensor,
    *,
    starts: int = 16,
    slack: float = 0.15,
    reflection: bool = False,
    generator: torch.Generator | None = None,
) -> float:
    """``W_2`` between two sets of configurations under ``aligned_distance``, equal weights.

    ``x: (n, N, D), y: (m, N, D)``, result in units of x. All pairs are aligned from one start, and
    from all ``starts`` those that could then enter the plan: in the optimal plan with potentials u
    and v, ``d_ij² >= u_i + v_j``, so a pair cannot matter unless its distance still falls below
    ``(u_i + v_j)^½``; it is tried where a fall by the fraction ``slack`` would do. Like the
    distances this is an upper bound. It does not go to zero for equal laws: compare with its value
    between two independent reference sets of the same sizes.
    """
    if starts < 1 or not 0 < slack < 1:
        raise InputError(
            f"starts must be at least 1 and slack between 0 and 1, got {starts} and {slack}"
        )
    if not (len(x) and len(y)):
        raise InputError(f"W2 needs at least one sample on either side, got {len(x)} and {len(y)}")
    matcher = _Matcher.of(x, y, starts, reflection, generator)
    matcher.improve([0])
    d = matcher.distance()
    fine = torch.zeros_like(d, dtype=torch.bool)
    while (new := (((1 - slack) * d).square() < _potentials(d)) & ~fine).any():
        matcher.improve([-1, *range(1, starts)], new)
        fine |= new
        d = matcher.distance()
    return wasserstein_from_distances(d)


def _potentials(d: Tensor) -> Tensor:
    """``u_i + v_j`` of the optimal plan for the squared distances: (n, m)."""
    import ot

    _, log = ot.emd([], [], d.square().cpu().numpy(), numItermax=10_000_000, log=True)
    return torch.from_numpy(log["u"][:, None] + log["v"]).to(d)


@dataclass
class _Matcher:
    """Overlaps ``Σ_i x_i · (y_π(i) R)`` of all pairs, the best so far; ``order: (n, m, S + 1)``:
    which rotations to start from, best first, the identity last."""

    x: Tensor
    y: Tensor
    rotations: Tensor
    order: Tensor
    reflection: bool
    best: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor, starts: int, reflection: bool, generator) -> _Matcher:
        if x.ndim != 3 or y.ndim != 3 or x.shape[1:] != y.shape[1:] or not x.shape[1:].numel():
            raise InputError(
                f"configurations must be (n, N, D) and (m, N, D), got {tuple(x.shape)},"
                f" {tuple(y.shape)}"
            )
        if starts < 0:
            raise InputError(f"starts must not be negative, got {starts}")
        if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
            raise InputError("configurations must be finite")
        x, y = (v.detach().double() - v.detach().double().mean(1, keepdim=True) for v in (x, y))
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        rotations = _rotations(max(ROTATIONS, starts), x.shape[-1], reflection, generator).to(x)
        order = _screen(x, y, rotations, starts, generator)
        rotations = torch.cat([rotations, torch.eye(x.shape[-1]).to(x)[None]])
        order = torch.nn.functional.pad(order, (0, 1), value=len(rotations) - 1)
        return cls(x, y, rotations, order, reflection, x.new_full((len(x), len(y)), -torch.inf))

    def improve(
        self, starts: Sequence[int], pairs: Tensor | None = None, rounds: int = 100
    ) -> None:
        """Align ``pairs: (n, m)`` bool (default all) from some of their starts; -1 is the
        orientation as given."""
        every = torch.ones_like(self.best, dtype=torch.bool) if pairs is None else pairs
        tasks = torch.cartesian_prod(
            every.flatten().nonzero()[:, 0], torch.tensor(starts).to(every.device)
        )
        for pair, start in (
            part.unbind(1) for part in tasks.split(max(1, CELLS // self.x.shape[1] ** 2))
        ):
            i, j = pair // len(self.y), pair % len(self.y)
            rotation = self.rotations[self.order[i, j, start].long()]
            found = _ascend(self.x[i], self.y[j], rotation, self.reflection, rounds)
            self.best.view(-1).scatter_reduce_(0, pair, found, "amax")

    def distance(self) -> Tensor:
        norms = self.x.square().sum((1, 2))[:, None] + self.y.square().sum((1, 2))
        return (norms - 2 * self.best).clamp_min(0).sqrt()


def _rotations(count: int, dim: int, reflection: bool, generator: torch.Generator) -> Tensor:
    """Haar from O(D), or from SO(D): (count, D, D), by the QR factors of Gaussian matrices
    (Mezzadri 2007)."""
    gaussian = torch.randn(
        count, dim, dim, generator=generator, device=generator.device, dtype=torch.float64
    )
    q, r = torch.linalg.qr(gaussian)
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]
    if not reflection:
        q[..., 0] *= torch.linalg.det(q).sign()[:, None]
    return q


def _screen(
    x: Tensor, y: Tensor, rotations: Tensor, keep: int, generator: torch.Generator
) -> Tensor:
    """The ``keep`` rotations with the largest overlap of x and y R as sums of Gaussians, for each
    pair: (n, m, keep).

    The overlap ``Σ_ij exp(-|x_i - y_j R|²/2s²)`` is ``E_k Σ_i e^{ik·x_i} (Σ_j e^{ik·y_j R})*`` with
    k ~ N(0, 1/s²) (Rahimi and Recht 2007), so all pairs and rotations are one product of feature
    vectors; s is half the typical distance between neighbours.
    """
    n, points, dim = x.shape
    if keep == 0 or points == 1 or n * len(y) == 0:
        return torch.zeros(n, len(y), keep, dtype=torch.int16, device=x.device)
    near = torch.cdist(y, y) + torch.full((points,), torch.inf).to(y).diag()
    scale = 0.5 * near.amin(-1).mean().clamp_min(1e-12)
    k = torch.randn(
        dim, FREQUENCIES, generator=generator, device=generator.device, dtype=torch.float64
    )
    k = k.to(x) / scale
    left = _features((x @ k).float())
    turned = (
        (rotations @ k).float().permute(1, 0, 2).reshape(dim, -1)
    )  # y R k, so the frequencies are turned
    size = max(1, CELLS // (max(n, points * FREQUENCIES) * len(rotations)))
    found = []

    for part in y.float().split(size):
        phase = (part @ turned).view(len(part), points, len(rotations), FREQUENCIES)
        right = _features(phase)  # (m, K, 2 F)
        score = (left @ right.flatten(0, 1).T).view(n, len(part), -1)
        order = torch.empty(n, len(part), keep, dtype=torch.int16, device=x.device)
        # every second one at random: the best by score crowd around few optima, above all in the
        # plane
        order[..., 0::2] = score.topk((keep + 1) // 2, -1).indices.to(torch.int16)
        order[..., 1::2] = torch.arange(keep // 2, dtype=torch.int16, device=x.device)
        found.append(order)
    return torch.cat(found, 1)


def _features(phase: Tensor) -> Tensor:
    """cos and sin summed over the particles: (*B, N, ..., F) with N the second axis -> (*B, ...,
    2F)."""
    return torch.cat([phase.cos().sum(1), phase.sin().sum(1)], -1)


def _ascend(x: Tensor, y: Tensor, rotation: Tensor, reflection: bool, rounds: int) -> Tensor:
    """Assignment and rotation in turns until neither helps; (P, N, D), (P, N, D), (P, D, D) ->
    overlap (P)."""
    best = x.new_full((len(x),), -torch.inf)
    active, rotation = torch.arange(len(x), device=x.device), rotation.clone()
    for _ in range(rounds):
        if not len(active):
            break
        a, b = x[active], y[active]
        order = _assign(a @ (b @ rotation[active]).mT)
        image = b.gather(1, order[..., None].expand_as(b))
        turn = _kabsch(image, a, reflection)
        overlap = (a * (image @ turn)).sum((1, 2))
        better = overlap > best[active] + 1e-10 * overlap.abs()
        best[active] = best[active].maximum(overlap)
        rotation[active] = turn
        active = active[better]
    return best


def _kabsch(y: Tensor, x: Tensor, reflection: bool) -> Tensor:
    """R with y R closest to x: (P, N, D) -> (P, D, D)."""
    import roma

    return roma.procrustes(y.mT @ x, force_rotation=not reflection)


def _assign(gain: Tensor) -> Tensor:
    """The permutations that maximise ``Σ_i gain[p, i, π_p(i)]``: (P, N, N) -> (P, N) long."""
    from scipy.optimize import linear_sum_assignment

    tables = gain.cpu().numpy()
    order = np.empty(tables.shape[:2], np.int64)
    for row, table in enumerate(tables):  # SciPy has no batches
        order[row] = linear_sum_assignment(table, maximize=True)[1]
    return torch.from_numpy(order).to(gain.device)
