"""An equivariant dense message-passing network, fast on small molecules.

Family: E(n)-equivariant graph networks (Satorras et al., arXiv 2102.09844) with the vector features
of PaiNN (Schütt et al., arXiv 2102.03150). Three choices make it quick for a few dozen atoms:

* the geometry of the input is computed once and shared by all layers; nothing is differentiated
  through it;
* the first linear layer of the pair network acts on node i, node j and the pair separately, and its
  second one on the sum over j, where it commutes with the sum: pair work is one small linear layer,
  two additions and one SiLU, and every sum over neighbours is a batched matrix product;
* directions enter as vector channels of the nodes, so layers exchange them without new pair
  tensors.

Reflections: sums of vectors and their inner products are O(3)-equivariant. ``chiral=True`` adds
cross products a×b to the vectors and triple products (a×b)·c to the scalars, which only rotations
preserve; without them a sampler started from an isotropic Gaussian draws either hand with equal
probability.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from orbitwise.networks.embedding import (
    GraphFeatures,
    IdenticalParticles,
    Labels,
    RadialBasis,
    TimeFeatures,
    remove_mean,
)

SOFTENING = 1e-2  # directions are r / sqrt(r² + SOFTENING): smooth where two atoms coincide


class EquivariantLayer(nn.Module):
    """One round of messages between scalars ``h (B, N, hidden)`` and vectors ``v (B, N, 3,
    vectors)``."""

    def __init__(
        self,
        hidden: int,
        pair: int,
        pair_inputs: int,
        vectors: int,
        heads: int,
        times: int,
        chiral: bool,
    ) -> None:
        super().__init__()
        self.heads, self.chiral = heads, chiral
        products = 2 if chiral else 1
        self.norm = nn.LayerNorm(hidden)
        self.time = nn.Linear(times, hidden)
        self.pair = nn.Linear(pair_inputs, pair + heads, bias=False)
        self.ends = nn.Linear(hidden, 2 * (pair + heads))
        self.value = nn.Linear(hidden, hidden)
        self.mix = nn.Linear(2 * pair + 2 * vectors, (2 + products) * vectors, bias=False)
        self.update = nn.Sequential(
            nn.Linear(2 * hidden + 2 * pair + products * vectors, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden + products * vectors),
        )

    def forward(
        self, h: Tensor, v: Tensor, pairs: Tensor, directions: Tensor, time: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``pairs (B, N, N, pair_inputs)``; ``directions (B, N, 8, N)``: rows 0 and 1 are two
        weights of j in sums over j, the other three pairs of rows these weights times the direction
        from i to j."""
        n = self.norm(h) + self.time(time)[:, None]
        u = v * torch.rsqrt(1 + v.square().sum(-2, keepdim=True).mean(-1, keepdim=True))
        to, of = self.ends(n).chunk(2, -1)
        message = silu(self.pair(pairs).add_(to[:, :, None]).add_(of[:, None]))  # (B, N, N, pair)
        # most channels of a message are summed with the directions, the others carry the
        # neighbour's features
        message, gate = message.split([message.shape[-1] - self.heads, self.heads], -1)
        gathered = (
            (directions @ message).unflatten(2, (4, 2)).flatten(3)
        )  # (B, N, 4, 2 pair): sums over j
        gate = gate.permute(0, 3, 1, 2) * directions[:, None, :, 0]
        moved_h, moved_u = self._carry(gate, self.value(n), u)
        mixed = self.mix(torch.cat([gathered[:, :, 1:], moved_u, u], -1))
        a, b, c, *rest = mixed.chunk(4 if self.chiral else 3, -1)  # (B, N, 3, vectors) each
        scalars, vectors = [(a * b).sum(-2)], [c]
        for d in rest:
            cross = torch.linalg.cross(a, b, dim=-2)
            scalars.append((cross * d).sum(-2))
            vectors.append(cross)
        new = self.update(torch.cat([n, gathered[:, :, 0], moved_h, *scalars], -1))
        change, *gates = new.split([h.shape[-1]] + [u.shape[-1]] * len(vectors), -1)
        return h + change, v + sum(g[:, :, None] * w for g, w in zip(gates, vectors, strict=True))

    def _carry(self, gate: Tensor, h: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """``sum_j gate_ij (h_j, u_j)``, every head moving its own slice of the channels, in one
        product."""
        batch, atoms = h.shape[:2]
        parts = torch.cat(
            [
                h.view(batch, atoms, self.heads, -1),
                u.reshape(batch, atoms, 3, self.heads, -1).transpose(2, 3).flatten(3),
            ],
            -1,
        )
        moved = (gate @ parts.transpose(1, 2)).transpose(1, 2)  # (B, N, heads, channels)
        width = h.shape[-1] // self.heads
        moved_u = moved[..., width:].unflatten(-1, (3, -1)).transpose(2, 3)
        return moved[..., :width].flatten(2), moved_u.flatten(3)


class EGNN(nn.Module):
    """Equivariant network ``net(x, t, batch) -> (B, N, 3)``.

    ``x: (B, N, 3)`` in units where a bond is of order one, ``t: (B,)`` in [0, 1], ``batch`` with
    ``species``, ``bonds`` and ``mask``. The output is invariant under translation of ``x``, turns
    with it (SO(3); with ``chiral=False`` O(3)), permutes with the atoms, and is zero at padded
    atoms. ``zero_com=True`` also removes the mean over the real atoms.

    ``hidden`` and ``vectors`` (multiples of ``heads``): scalar and vector channels per atom;
    ``pair``: width of the pair network beside the heads; ``radial``: number of distance features.
    ``graph=False``: identical particles, of ``batch`` only the mask is read. A ``batch`` of one
    item stands for all of ``x``: what belongs to the molecule is then computed once. Points of a
    plane ``(B, N, 2)`` are seen as lying in space: without ``chiral`` the output stays in the plane
    and turns and reflects with it.
    """

    def __init__(
        self,
        hidden: int = 96,
        layers: int = 4,
        pair: int = 24,
        vectors: int = 24,
        heads: int = 8,
        radial: int = 32,
        times: int = 32,
        chiral: bool = True,
        zero_com: bool = True,
        graph: bool = True,
    ) -> None:
        super().__init__()
        if hidden % heads or vectors % heads:
            raise ValueError(
                f"hidden ({hidden}) and vectors ({vectors}) must be multiples of heads ({heads})"
            )
        self.zero_com = zero_com
        self.graph = GraphFeatures(hidden) if graph else IdenticalParticles(hidden)
        self.radial = RadialBasis(radial)
        self.time = TimeFeatures(times)
        self.start = nn.Parameter(torch.randn(vectors))
        inputs = radial + self.graph.pair_features
        self.layers = nn.ModuleList(
            EquivariantLayer(
                hidden=hidden,
                pair=pair,
                pair_inputs=inputs,
                vectors=vectors,
                heads=heads,
                times=times,
                chiral=chiral,
            )
            for _ in range(layers)
        )
        self.gate = nn.Linear(hidden, vectors)
        self.readout = nn.Linear(vectors, 1, bias=False)

    def forward(self, x: Tensor, t: Tensor, batch: Labels) -> Tensor:
        plane = x.shape[-1]
        x = pad(x.masked_fill(~batch.mask[..., None], 0), (0, 3 - plane))
        difference = x[:, None] - x[:, :, None]  # from i to j
        square = difference.square().sum(-1, keepdim=True)
        h, bonds = self.graph(batch)
        h = h.expand(len(x), -1, -1)
        pairs = [self.radial((square + 1e-6).sqrt()[..., 0]), bonds.expand(len(x), -1, -1, -1)]
        pairs = torch.cat(pairs, -1) if bonds.shape[-1] else pairs[0]
        eye = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        others = (batch.mask[:, None] & ~eye).to(x.dtype)[..., None]
        weight = others / batch.mask.sum(-1).clamp(min=1)[:, None, None, None].to(x.dtype).sqrt()
        # two ways to weigh the others: all alike, and the near ones
        weights = [
            w.expand(len(x), -1, -1, -1) for w in (weight, others * self.graph.near(bonds, square))
        ]
        weights = torch.cat(weights, -1)[..., None, :]
        unit = (difference * torch.rsqrt(square + SOFTENING))[..., None]
        directions = torch.cat([weights, unit * weights], -2).flatten(-2).transpose(-1, -2)
        time = self.time(t)
        v = remove_mean(x, batch.mask)[..., None] * self.start
        for layer in self.layers:
            h, v = layer(h, v, pairs, directions, time)
        out = self.readout(v * self.gate(h)[:, :, None])[..., :plane, 0]
        return remove_mean(out, batch.mask) if self.zero_com else out * batch.mask[..., None]
