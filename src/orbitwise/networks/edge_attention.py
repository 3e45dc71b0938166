"""Attention over edges that see displacement vectors: learns forces well and knows nothing of rotations.

Family: EScAIP (Qu and Krishnapriyan, arXiv 2410.24169), a force network without built-in equivariance: edges carry
distances and directions as plain features, nodes gather them with attention, a linear head reads the vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from orbitwise.networks.embedding import GraphFeatures, Labels, RadialBasis, TimeFeatures, remove_mean


class EdgeLayer(nn.Module):
    """Messages from edges and their two ends; every head weighs its own slice of them."""

    def __init__(self, hidden: int, pair: int, pair_inputs: int, heads: int, times: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(hidden)
        self.time = nn.Linear(times, hidden)
        self.edge = nn.Linear(pair_inputs, pair, bias=False)
        self.ends = nn.Linear(hidden, 2 * pair)
        self.logits = nn.Linear(pair, heads)
        self.update = nn.Sequential(
            nn.Linear(hidden + 2 * pair, 2 * hidden), nn.SiLU(), nn.Linear(2 * hidden, hidden)
        )

    def forward(self, h: Tensor, pairs: Tensor, seen: Tensor, time: Tensor) -> Tensor:
        """``h (B, N, hidden)``, ``pairs (B, N, N, pair_inputs)``, ``seen (B, N, N, 1)`` 1 for real neighbours."""
        n = self.norm(h) + self.time(time)[:, None]
        to, of = self.ends(n).chunk(2, -1)
        message = silu(self.edge(pairs) + to[:, :, None] + of[:, None]) * seen
        gate = torch.sigmoid(self.logits(message)).repeat_interleave(message.shape[-1] // self.heads, -1)
        # plain sums keep the size of forces, gated ones choose neighbours
        gathered = torch.cat([message.sum(2), (gate * message).sum(2)], -1) / seen.sum(2).clamp(min=1).sqrt()
        return h + self.update(torch.cat([n, gathered], -1))


class EdgeAttention(nn.Module):
    """Network without rotational symmetry, ``net(x, t, batch) -> (B, N, 3)``; same signature as ``EGNN``.

    ``x: (B, N, 3)`` in units where a bond is of order one. Invariant under translations, permutes with the atoms;
    padded atoms are not seen and their output is zero. ``pair`` (a multiple of ``heads``): width of the edges;
    ``radial``: distance features, each also times the three components of the direction.
    """

    def __init__(
        self,
        hidden: int = 64,
        layers: int = 3,
        pair: int | None = None,
        heads: int = 8,
        radial: int = 16,
        times: int = 32,
        zero_com: bool = True,
    ) -> None:
        super().__init__()
        pair = max(heads, hidden // 2 // heads * heads) if pair is None else pair
        if pair % heads:
            raise ValueError(f"pair ({pair}) must be a multiple of heads ({heads})")
        self.zero_com = zero_com
        self.graph = GraphFeatures(hidden)
        self.time = TimeFeatures(times)
        self.radial = RadialBasis(radial)
        inputs = 4 * radial + self.graph.pair_features
        self.layers = nn.ModuleList(EdgeLayer(hidden, pair, inputs, heads, times) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.readout = nn.Linear(hidden, 3)

    def forward(self, x: Tensor, t: Tensor, batch: Labels) -> Tensor:
        x = x.masked_fill(~batch.mask[..., None], 0)
        h, bonds = self.graph(batch)
        h = h.expand(len(x), -1, -1)
        difference = x[:, None] - x[:, :, None]  # from i to j
        distance = (difference.square().sum(-1) + 1e-6).sqrt()
        basis = self.radial(distance)
        direction = difference / distance[..., None]
        turned = (basis[..., None] * direction[..., None, :]).flatten(-2)
        pairs = torch.cat([basis, turned, bonds.expand(len(x), -1, -1, -1)], -1)
        eye = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        seen = (
            (batch.mask[:, None] & batch.mask[:, :, None] & ~eye)
            .to(x.dtype)[..., None]
            .expand(len(x), -1, -1, -1)
        )
        time = self.time(t)
        for layer in self.layers:
            h = layer(h, pairs, seen, time)
        out = self.readout(self.norm(h))
        return remove_mean(out, batch.mask) if self.zero_com else out * batch.mask[..., None]
