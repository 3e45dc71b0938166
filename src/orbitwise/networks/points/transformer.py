"""A plain transformer over atoms: what a network without built-in symmetry does with the same
inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from orbitwise.networks.attention import Projections
from orbitwise.networks.embedding import GraphFeatures, Labels, TimeFeatures, remove_mean
from orbitwise.networks.former import Former


class TransformerLayer(nn.Module):
    """Attention with a pair bias and a feed-forward layer, modulated by time (adaLN, arXiv
    2212.09748)."""

    def __init__(self, hidden: int, heads: int, times: int, expand: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.modulate = nn.Linear(times, 6 * hidden)
        self.inward = Projections(hidden)
        self.outward = nn.Linear(hidden, hidden)
        self.feed = nn.Sequential(
            nn.Linear(hidden, expand * hidden), nn.GELU(), nn.Linear(expand * hidden, hidden)
        )
        # half-open gates at the start: every block is near the identity, yet all of it learns from
        # step one
        nn.init.normal_(self.modulate.weight, std=0.02)
        nn.init.constant_(self.modulate.bias, 0.0)

    def forward(self, h: Tensor, bias: Tensor, time: Tensor) -> Tensor:
        """``h (B, N, hidden)``, ``bias (B, heads, N, N)`` added to the logits, ``time (B,
        times)``."""
        shift, scale, gate, shift2, scale2, gate2 = self.modulate(time)[:, None].chunk(6, -1)
        n = self.norm(h) * (1 + scale) + shift
        q, k, v = self.inward(n).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
        h = h + (0.5 + gate) * self.outward(seen)
        return h + (0.5 + gate2) * self.feed(self.norm(h) * (1 + scale2) + shift2)


class PointTransformer(Former):
    """Network without rotational symmetry, ``net(x, t, batch) -> (B, N, 3)``; same signature as
    ``EGNN``.

    One token per atom: its coordinates (as they are and as ``waves`` random Fourier features), its
    element and surroundings in the graph. Bonds and distances along bonds bias the attention.
    Permutes with the atoms; padded atoms are not seen and their output is zero. Centre ``x``
    yourself if it is not centred.
    """

    def __init__(
        self,
        hidden: int = 80,
        layers: int = 4,
        heads: int = 8,
        expand: int = 2,
        waves: int = 32,
        times: int = 32,
        zero_com: bool = True,
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden ({hidden}) must be a multiple of heads ({heads})")
        self.zero_com = zero_com
        self.graph = GraphFeatures(hidden)
        self.time = TimeFeatures(times)
        self.waves = nn.Buffer(torch.randn(3, waves) * torch.logspace(-0.5, 1.0, waves))
        self.lift = nn.Linear(3 + 2 * waves, hidden)
        self.bias = nn.Linear(self.graph.pair_features, layers * heads, bias=False)
        self.layers = nn.ModuleList(
            TransformerLayer(hidden, heads, times, expand) for _ in range(layers)
        )
        # what is the same for all atoms is removed with the mean
        self.norm = nn.LayerNorm(hidden, bias=not zero_com)
        self.readout = nn.Linear(hidden, 3, bias=not zero_com)
        self.gone = ("bias.bias", *(("norm.bias", "readout.bias") if zero_com else ()))

    def forward(self, x: Tensor, t: Tensor, batch: Labels) -> Tensor:
        x = x.masked_fill(~batch.mask[..., None], 0)
        h, bonds = self.graph(batch)
        phase = x @ self.waves
        h = h + self.lift(
            torch.cat([x, phase.sin() * math.sqrt(2), phase.cos() * math.sqrt(2)], -1)
        )
        unseen = (~batch.mask)[
            :, None, None
        ]  # finite, so that a molecule without atoms gives no NaN
        biases = (
            self.bias(bonds).movedim(-1, 1).masked_fill(unseen, -1e9).chunk(len(self.layers), 1)
        )
        time = self.time(t)
        for layer, bias in zip(self.layers, biases, strict=True):
            h = layer(h, bias, time)
        out = self.readout(self.norm(h))
        return remove_mean(out, batch.mask) if self.zero_com else out * batch.mask[..., None]
