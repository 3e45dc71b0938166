"""A plain transformer over the residues of a chain: the recipe of Proteina (arXiv 2503.00710, section 3.3) in small.

No symmetry is built in. Tokens are residues, the attention is biased by pairs (place in the chain, distance in the
noised state), and time and length modulate every layer.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from orbitwise.networks.embedding import RadialBasis, TimeFeatures, remove_mean
from orbitwise.networks.transformer import TransformerLayer

FARTHEST = 32  # residues apart beyond which places in the chain look alike
REACH = 2.0  # distances enter the radial basis in units of 1/REACH data scales


class Residues(Protocol):
    """The part of a batch of chains that the network reads."""

    mask: Tensor  # (B, L·A) bool, True = real atom; the atoms of a residue stand beside each other


class PlaceFeatures(nn.Module):
    """Sine and cosine of the place from the start and from the end of the chain, ``lengths: (B,)`` ->
    ``(B, L, features)``; wavelengths from 2 to 256 residues."""

    def __init__(self, features: int, waves: int = 12) -> None:
        super().__init__()
        self.frequencies = nn.Buffer(
            math.pi * torch.logspace(0, -7, waves, base=2, dtype=torch.float64), persistent=False
        )
        self.embed = nn.Linear(4 * waves, features)

    def forward(self, lengths: Tensor, width: int) -> Tensor:
        place = torch.arange(width, device=lengths.device)
        ends = torch.stack([place.expand(len(lengths), -1), lengths[:, None] - 1 - place], -1)
        phase = (ends[..., None].double() * self.frequencies.double()).flatten(2)
        return self.embed(torch.cat([phase.sin(), phase.cos()], -1).to(self.embed.weight.dtype))


class ResidueTransformer(nn.Module):
    """Network without rotational symmetry, ``net(x, t, chain) -> (B, L·A, 3)``.

    One token per residue: the coordinates of its ``atoms`` A, the steps to its neighbours in the chain as random
    Fourier features (bonds are short beside a chain: they need fine features), and its place from both ends. Relative
    place and Cα distance bias the attention. Time and log length modulate the layers. Padded residues are not seen and
    their output is zero. ``x`` in units of the data's scale, as ``objectives.Denoiser`` gives it.
    """

    def __init__(
        self,
        atoms: int = 1,
        hidden: int = 128,
        layers: int = 5,
        heads: int = 8,
        expand: int = 2,
        waves: int = 32,
        radial: int = 16,
        times: int = 64,
        zero_com: bool = True,
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden ({hidden}) must be a multiple of heads ({heads})")
        self.atoms, self.zero_com = atoms, zero_com
        self.time = TimeFeatures(times)
        self.length = nn.Linear(1, times)
        self.place = PlaceFeatures(hidden)
        # per residue: its points from the origin, and all steps along the chain that begin in it
        self.coarse = nn.Buffer(torch.randn(3, waves) * torch.logspace(-0.5, 0.7, waves))
        self.fine = nn.Buffer(torch.randn(3, waves) * torch.logspace(0.0, 1.5, waves))
        self.lift = nn.Linear(3 * atoms + 2 * waves + (atoms + 1) * (3 + 2 * waves), hidden)
        self.radial = RadialBasis(radial)
        self.near = nn.Parameter(torch.randn(layers * heads, radial) / math.sqrt(radial))
        self.apart = nn.Parameter(torch.randn(layers * heads, 2 * FARTHEST + 1))
        self.layers = nn.ModuleList(TransformerLayer(hidden, heads, times, expand) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.readout = nn.Linear(hidden, 3 * atoms)

    def forward(self, x: Tensor, t: Tensor, chain: Residues) -> Tensor:
        mask = chain.mask
        real = mask[:, :: self.atoms]
        x = x.masked_fill(~mask[..., None], 0)
        middle = x[:, min(1, self.atoms - 1) :: self.atoms]  # Cα
        lengths = real.sum(-1)
        h = self.place(lengths, real.shape[1]) + self.lift(self._local(x, mask, middle))
        biases = self._pairs(middle, real).chunk(len(self.layers), 1)
        size = torch.log(lengths.clamp(min=1) / 64.0).to(h.dtype)
        condition = self.time(t) + self.length(size[:, None])
        for layer, bias in zip(self.layers, biases, strict=True):
            h = layer(h, bias, condition)
        out = self.readout(self.norm(h)).reshape(x.shape)
        return remove_mean(out, mask) if self.zero_com else out * mask[..., None]

    def _local(self, x: Tensor, mask: Tensor, middle: Tensor) -> Tensor:
        """Coordinates and steps ``(B, L, features)``: from atom to atom, and from Cα to the next but one."""
        size = (*middle.shape[:2], -1)
        real = mask[..., None]
        step = _ahead(x, real, 1).reshape(*size, 3)  # each atom to the next one of the chain
        two = _ahead(middle, real[:, :: self.atoms], 2)[:, :, None]
        steps = torch.cat([step, two], 2)
        far, close = _waves(middle @ self.coarse), _waves((steps @ self.fine).flatten(2))
        return torch.cat([x.reshape(size), far, steps.flatten(2), close], -1)

    def _pairs(self, middle: Tensor, real: Tensor) -> Tensor:
        """Bias of the attention ``(B, layers·heads, L, L)``."""
        width = real.shape[1]
        place = torch.arange(width, device=real.device)
        apart = (place[:, None] - place).clamp(-FARTHEST, FARTHEST) + FARTHEST
        square = (middle[:, :, None] - middle[:, None]).square().sum(-1)
        distance = REACH * (square + 1e-8).sqrt()  # finite slope where two residues coincide
        near = self.near @ self.radial(distance).flatten(1, 2).mT  # heads first, as attention reads it
        bias = near.unflatten(-1, (width, width)) + self.apart[:, apart]
        # finite, so that a chain without residues gives no NaN
        return bias.masked_fill(~real[:, None, None], -1e9)


def _ahead(x: Tensor, real: Tensor, steps: int) -> Tensor:
    """``x_{i + steps} − x_i``, 0 where there is no such point. ``x: (B, N, 3)``, ``real: (B, N, 1)``."""
    inside = real[:, steps:] & real[:, :-steps]
    return nn.functional.pad((x[:, steps:] - x[:, :-steps]) * inside, (0, 0, 0, min(steps, x.shape[1])))


def _waves(phase: Tensor) -> Tensor:
    return math.sqrt(2) * torch.cat([phase.sin(), phase.cos()], -1)
