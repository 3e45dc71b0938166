"""A network of pairs without rotational symmetry: what an equivariant one knows of distances, but
no rotations.

Directions enter as their three numbers in the frame of the coordinates, as in EScAIP (arXiv
2410.24169), beside smooth features of the distance; nothing ties the three components of an answer
together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from orbitwise.networks.embedding import (
    GraphFeatures,
    Labels,
    RadialBasis,
    TimeFeatures,
    remove_mean,
)
from orbitwise.networks.former import Former

SOFTENING = 1e-2  # directions are r / sqrt(r² + SOFTENING): smooth where two atoms coincide


class PairLayer(nn.Module):
    """``h + W Σ_j w_ij silu(A p_ij + B h_i + C h_j)`` and a feed-forward layer, with two kinds of
    weights w."""

    def __init__(self, hidden: int, width: int, pair_inputs: int, times: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.time = nn.Linear(times, hidden)
        self.pair = nn.Linear(pair_inputs, width, bias=False)
        self.ends = nn.Linear(hidden, 2 * width)
        self.gather = nn.Linear(2 * width, hidden)
        self.feed = nn.Sequential(
            nn.LayerNorm(hidden),
            nn.Linear(hidden, 2 * hidden),
            nn.SiLU(),
            nn.Linear(2 * hidden, hidden),
        )

    def forward(self, h: Tensor, pairs: Tensor, weights: Tensor, time: Tensor) -> Tensor:
        """``h (B, N, hidden)``, ``pairs (B, N, N, inputs)``, ``weights (B, N, 2, N)``, ``time (B,
        times)``."""
        to, of = self.ends(self.norm(h) + self.time(time)[:, None]).chunk(2, -1)
        message = silu(self.pair(pairs) + to[:, :, None] + of[:, None])
        h = h + self.gather((weights @ message).flatten(-2))
        return h + self.feed(h)


class PairNetwork(Former):
    """Network without rotational symmetry, ``net(x, t, batch) -> (B, N, 3)``; same signature as
    ``EGNN``.

    ``x: (B, N, 3)`` in units where a bond is of order one. Invariant under translations of ``x``,
    permutes with the atoms, zero at padded atoms; ``zero_com=True`` removes the mean over the real
    atoms. ``pair``: width of the pair features, ``radial``: number of distance features. A
    ``batch`` of one item stands for all of ``x``.
    """

    def __init__(
        self,
        hidden: int = 64,
        layers: int = 3,
        pair: int = 32,
        radial: int = 16,
        times: int = 32,
        zero_com: bool = True,
    ) -> None:
        super().__init__()
        self.zero_com = zero_com
        self.graph = GraphFeatures(hidden)
        self.radial = RadialBasis(radial)
        self.time = TimeFeatures(times)
        inputs = 4 * radial + self.graph.pair_features
        self.layers = nn.ModuleList(PairLayer(hidden, pair, inputs, times) for _ in range(layers))
        # what is the same for all atoms is removed with the mean
        self.norm = nn.LayerNorm(hidden, bias=not zero_com)
        self.readout = nn.Linear(hidden, 3, bias=not zero_com)
        self.gone = ("norm.bias", "readout.bias") if zero_com else ()

    def forward(self, x: Tensor, t: Tensor, batch: Labels) -> Tensor:
        x = x.masked_fill(~batch.mask[..., None], 0)
        difference = x[:, None] - x[:, :, None]  # from i to j
        square = difference.square().sum(-1, keepdim=True)
        h, bonds = self.graph(batch)
        h = h.expand(len(x), -1, -1)
        # distance features by themselves and times each component of the direction
        unit = difference * torch.rsqrt(square + SOFTENING)
        frame = torch.cat([torch.ones_like(square), unit], -1)
        near = (
            self.radial((square + 1e-6).sqrt()[..., 0])[..., None] * frame[..., None, :]
        ).flatten(-2)
        pairs = torch.cat([near, bonds.expand(len(x), -1, -1, -1)], -1)
        eye = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        others = (batch.mask[:, None] & ~eye).to(x.dtype)[..., None]
        alike = others / batch.mask.sum(-1).clamp(min=1)[:, None, None, None].to(x.dtype).sqrt()
        weights = [
            w.expand(len(x), -1, -1, -1) for w in (alike, others * self.graph.near(bonds, square))
        ]
        weights = torch.cat(weights, -1).mT
        time = self.time(t)
        for layer in self.layers:
            h = layer(h, pairs, weights, time)
        out = self.readout(self.norm(h))
        return remove_mean(out, batch.mask) if self.zero_com else out * batch.mask[..., None]
