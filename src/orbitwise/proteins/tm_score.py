"""TM-score (Zhang & Skolnick 2004, Proteins 57:702, eq. 1), batched: the best superposition of two
Cα traces.

    TM = max over rigid motions of  (1/L) Σ_i 1/(1 + (d_i/d0)²),   d0 = 1.24 (L − 15)^(1/3) − 1.8 Å

Each term is convex in d_i², so its tangent lies below it: superposing with the weights (1 +
(d_i/d0)²)⁻² maximises that lower bound and never lowers the score (minorise-maximise). Started from
fragments of the chain, as the published program is, and carried on to convergence.
"""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
from torch import Tensor

from orbitwise.errors import InputError

STEPS = 20  # of superposition, from each start
_PARTS = (
    1,
    2,
    4,
    8,
)  # fragments of a whole, a half, a quarter, an eighth of the chain, half over each other
_SHORTEST = 4  # residues in a fragment
_WIDER = 3.0  # the first step after a fragment looks for residues this much farther away


@dataclass(frozen=True)
class NearestChain:
    """For each chain its best ``score: (B,)`` in a library, the ``index: (B,)`` of that chain
    there, and the ``shift: (B,)`` of the alignment: residue i lies on residue i + shift."""

    score: Tensor
    index: Tensor
    shift: Tensor


def tm_d0(length: Tensor) -> Tensor:
    """The scale d0 in Å of a chain of ``length`` residues, at least 0.5 as in the published
    program."""
    return (1.24 * (length.double() - 15).clamp_min(0) ** (1 / 3) - 1.8).clamp_min(0.5)


def tm_score(
    x: Tensor, y: Tensor, mask: Tensor | None = None, length: Tensor | None = None
) -> Tensor:
    """TM-score of residues that are already matched, ``(B,)`` in (0, 1], 1 = the same shape.

    ``x, y: (B, N, 3)`` Cα in Å, ``mask: (B, N)`` True where a residue is matched, ``length: (B,)``
    what the score is divided by (the matched residues unless given). A lower bound of the maximum,
    as every search is. Mirror images are not the same. Raises ``InputError`` for shapes that
    differ, or an item with nothing matched.
    """
    if x.shape != y.shape or x.ndim != 3:
        raise InputError(f"tm_score needs two (B, N, 3), got {tuple(x.shape)} and {tuple(y.shape)}")
    mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
    count = mask.sum(-1)
    if not bool((count > 0).all()):
        raise InputError("tm_score: an item has no matched residue")
    x, y = (v.double().masked_fill(~mask[..., None], 0)[:, None] for v in (x, y))
    length = count if length is None else length
    d0 = tm_d0(length)[:, None, None]
    weight = _fragments(mask)
    best = x.new_zeros(len(x))
    wide = _WIDER
    for _ in range(STEPS):
        square = _superposed(x, y, weight)
        near = 1 / (1 + square / d0.square())
        score = (near * mask[:, None]).sum(-1) / length[:, None]
        best = torch.maximum(best, score.max(-1).values)
        weight = mask[:, None] / (1 + square / (wide * d0).square()).square()
        wide = 1.0
    return best


def nearest_chain(
    x: Tensor,
    x_mask: Tensor,
    library: Tensor,
    library_mask: Tensor,
    *,
    overlap: float = 0.5,
    refined: int = 24,
) -> NearestChain:
    """The chain of a library that each chain is most like, over all gapless alignments.

    ``x: (B, L, 3)`` and ``library: (M, K, 3)`` Cα in Å with masks, real residues first. Every shift
    at which at least the share ``overlap`` of a chain lies on the other is scored with one
    superposition; the ``refined`` best are searched fully. Scores are divided by the length of the
    chain in ``x``. Alignments with gaps (TM-align) can only score higher: this is a lower bound of
    the likeness.
    """
    found = [
        _nearest(chain[: int(n)], library, library_mask, overlap, refined)
        for chain, n in zip(
            x.float(), x_mask.sum(-1), strict=True
        )  # memory: one chain against the library
    ]
    score, index, shift = (torch.stack(v) for v in zip(*found, strict=True))
    return NearestChain(score, index, shift)


def _nearest(
    chain: Tensor, library: Tensor, mask: Tensor, overlap: float, refined: int
) -> tuple[Tensor, ...]:
    n, width = len(chain), library.shape[1]
    least = max(_SHORTEST, int(overlap * n + 0.5))
    shifts = torch.arange(least - n, width - least + 1, device=chain.device)
    place = torch.arange(n, device=chain.device) + shifts[:, None]  # (S, n) in the library's chain
    inside = (place >= 0) & (place < width)
    place = place.clamp(0, width - 1)
    matched = mask[:, place] & inside  # (M, S, n)
    which, at = torch.nonzero(matched.sum(-1) >= least, as_tuple=True)
    if not len(which):
        none = torch.zeros((), dtype=torch.long, device=chain.device)
        return chain.new_zeros((), dtype=torch.float64), none, none

    length = torch.tensor(n, device=chain.device)
    d0 = tm_d0(length)
    scores = []
    for some in torch.arange(len(which), device=chain.device).split(16_384):  # chunks of memory
        real = matched[which[some], at[some]]
        other = library[which[some, None], place[at[some]]].float() * real[..., None]
        own = (chain * real[..., None])[:, None]
        square = _superposed(own, other[:, None], real[:, None].float())[:, 0]
        scores.append((real / (1 + square / d0.square())).sum(-1) / n)

    top = torch.cat(scores).topk(min(refined, len(which))).indices
    real = matched[which[top], at[top]]
    other = library[which[top, None], place[at[top]]]
    full = tm_score(chain.expand(len(top), -1, -1), other, real, length.expand(len(top)))
    best = full.argmax()
    return full[best], which[top[best]], shifts[at[top[best]]]


def _fragments(mask: Tensor) -> Tensor:
    """Indicator of each fragment of each chain, ``(B, S, N)``; a fragment too short is the whole
    chain."""
    rank, count = mask.cumsum(-1) - 1, mask.sum(-1)
    starts = torch.cat([torch.arange(2 * k - 1, device=mask.device) / (2 * k) for k in _PARTS])
    sizes = torch.cat([torch.full((2 * k - 1,), 1 / k, device=mask.device) for k in _PARTS])
    first, size = (starts * count[:, None]).floor(), (sizes * count[:, None]).ceil()
    inside = (
        (rank[:, None] >= first[..., None])
        & (rank[:, None] < (first + size)[..., None])
        & mask[:, None]
    )
    return torch.where((size >= _SHORTEST)[..., None], inside, mask[:, None]).double()


def _superposed(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Squared distances after the weighted superposition of ``x (B, 1, N, 3)`` on ``y``; ``weight,
    -> (B, S, N)``."""
    share = (weight / weight.sum(-1, keepdim=True).clamp_min(1e-30))[..., None]
    a, b = (v - (share * v).sum(-2, keepdim=True) for v in (x, y))
    turn = roma.special_procrustes((share * b).mT @ a)
    return (a @ turn.mT - b).square().sum(-1)
