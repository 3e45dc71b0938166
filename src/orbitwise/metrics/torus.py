"""Angles: dihedrals of points, and transport between samples on the torus that they form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.metrics.transport import wasserstein_from_distances


def dihedral(x: Tensor, atoms: Tensor | list[tuple[int, int, int, int]]) -> Tensor:
    """Dihedral angles in radians, (-π, π]; cis is 0, trans is π, sign after IUPAC (as in RDKit).

    ``x: (*B, N, 3)``, ``atoms: (T, 4)`` -> ``(*B, T)``. Collinear atoms give 0, never NaN.
    """
    index = torch.as_tensor(atoms, dtype=torch.long, device=x.device).reshape(-1, 4)
    a, b, c, d = x[..., index, :].unbind(-2)
    u, v, w = b - a, c - b, d - c
    m, n = torch.linalg.cross(u, v), torch.linalg.cross(v, w)
    sine = (v.norm(dim=-1, keepdim=True) * u * n).sum(-1)
    return torch.atan2(sine, (m * n).sum(-1))


@dataclass(frozen=True)
class TorusW2:
    """``W_2`` in radians between two clouds of angles, ``size`` points of each, and its ``floor``:
    the same between two disjoint parts of the reference of that size (what exact samples show)."""

    value: float
    floor: float
    size: int


def torus_distances(a: Tensor, b: Tensor) -> Tensor:
    """Geodesic distances on the flat torus: ``(n, D), (m, D)`` radians, any branch -> ``(n, m)``,
    at most ``π √D``."""
    turn = (a.double()[:, None] - b.to(a.device).double()) / (2 * math.pi)
    return 2 * math.pi * (turn - turn.round()).norm(dim=-1)


def torus_w2(
    samples: Tensor,
    reference: Tensor,
    limit: int = 2000,
    *,
    generator: torch.Generator | None = None,
) -> TorusW2:
    """Exact 2-Wasserstein distance on the torus between ``(n, D)`` and ``(m, D)`` angles in
    radians.

    Both sets are thinned at random to ``min(limit, n, m // 2)`` points, so that value and floor are
    biased alike; both fall with the size, so numbers of different sizes are not comparable. ``W2(φ,
    ψ)`` as in Liu et al., arXiv 2506.22565. Exact transport of 2000 points takes a few seconds.

    Raises ``InputError`` where a set is too small or angles are not finite.
    """
    if samples.ndim != 2 or samples.shape[1:] != reference.shape[1:]:
        raise InputError(
            f"angle sets are (n, D) and (m, D), got {tuple(samples.shape)},"
            f" {tuple(reference.shape)}"
        )
    size = min(limit, len(samples), len(reference) // 2)
    if size < 1 or not (torch.isfinite(samples).all() and torch.isfinite(reference).all()):
        raise InputError(
            f"{len(samples)} samples and {len(reference)} reference points: need one and two, all"
            " finite"
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    ours, known = (
        v[torch.randperm(len(v), generator=generator, device=generator.device)[:count].to(v.device)]
        for v, count in ((samples, size), (reference, 2 * size))
    )
    return TorusW2(
        value=wasserstein_from_distances(torus_distances(ours, known[:size])),
        floor=wasserstein_from_distances(torus_distances(known[size:], known[:size])),
        size=size,
    )
