"""A transformer over the residues of a chain: the recipe of Proteina (arXiv 2503.00710, section
3.3) in small.

No symmetry is built in. Tokens are residues, the attention is biased by pairs (place in the chain,
distance in the noised state), and time and length modulate every layer. What is added to the recipe
is for small training sets: a token also reads the shape of its surroundings in the chain, and
beside plain coordinates the output has steps to neighbours with learned coefficients, so that a
bond can be mended along itself in every orientation.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from orbitwise.networks.attention import Projections
from orbitwise.networks.embedding import RadialBasis, TimeFeatures, remove_mean
from orbitwise.networks.former import Former
from orbitwise.networks.points.transformer import TransformerLayer

FARTHEST = 32  # residues apart beyond which places in the chain look alike
REACH = 2.0  # inverse length of a Cα step in units of the data's scale, roughly
# points around a Cα, counted in atoms of the chain: four residues to each side
AROUND = {1: (1, 2, 3, 4), 3: (1, 2, 3, 4, 5, 6, 9, 12)}
FREQUENCIES = (3.0, 8.0, 16.0, 32.0)  # of the features of a distance, radians per unit


class Residues(Protocol):
    """The part of a batch of chains that the network reads."""

    mask: Tensor  # (B, L·A) bool, True = real atom; the atoms of a residue stand beside each other


class PlaceFeatures(Former):
    """Sine and cosine of the place from the start and from the end of the chain, ``lengths: (B,)``
    -> ``(B, L, features)``; wavelengths from 2 to 256 residues, of 2 the cosine alone: its sine is
    0 at every place."""

    def __init__(self, features: int, waves: int = 12) -> None:
        super().__init__()
        self.frequencies = nn.Buffer(
            math.pi * torch.logspace(0, -7, waves, base=2, dtype=torch.float64), persistent=False
        )
        self.embed = nn.Linear(4 * waves - 2, features)

    def upgrade(self, state: dict[str, Any], prefix: str) -> None:
        """Drop the columns of that sine."""
        name, waves = f"{prefix}embed.weight", len(self.frequencies)
        weight = state.get(name)
        if weight is not None and weight.shape[1:] == (4 * waves,):
            kept = [k for k in range(4 * waves) if k not in (0, waves)]
            state[name] = weight[:, kept]

    def forward(self, lengths: Tensor, width: int) -> Tensor:
        place = torch.arange(width, device=lengths.device)
        ends = torch.stack([place.expand(len(lengths), -1), lengths[:, None] - 1 - place], -1)
        phase = ends[..., None].double() * self.frequencies.double()
        features = torch.cat([phase[..., 1:].sin().flatten(2), phase.cos().flatten(2)], -1)
        return self.embed(features.to(self.embed.weight.dtype))


class Surroundings(nn.Module):
    """What stands around each Cα along the chain, ``(B, L·A, 3) -> `` features ``(B, L, size)`` and
    vectors ``(B, L, vectors, 3)``.

    Features: all distances among the points around, as waves, and the handedness of every three
    steps in a row. Vectors: the steps from point to point, long ones cut to unit length, and the
    cross products of two in a row. Beyond the ends of the chain the steps are 0.
    """

    def __init__(self, atoms: int) -> None:
        super().__init__()
        one_side = AROUND[atoms]
        offsets = torch.tensor([*(-k for k in reversed(one_side)), 0, *one_side])
        self.atoms = atoms
        self.offsets = nn.Buffer(offsets, persistent=False)
        self.first, self.second = (
            nn.Buffer(v, persistent=False)
            for v in torch.triu_indices(len(offsets), len(offsets), 1)
        )
        self.frequencies = nn.Buffer(torch.tensor(FREQUENCIES), persistent=False)
        self.size = len(self.first) * 2 * len(FREQUENCIES) + len(offsets) - 3
        self.vectors = 2 * len(offsets) - 3

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        width = x.shape[1]
        centre = torch.arange(min(1, self.atoms - 1), width, self.atoms, device=x.device)
        place = (centre[:, None] + self.offsets).clamp(0, width - 1)
        last = (mask.sum(-1) - 1).clamp(
            min=0
        )  # the ends of a chain stand for what would be beyond them
        place = torch.minimum(place.expand(len(x), -1, -1), last[:, None, None])
        points = x.gather(1, place.flatten(1)[..., None].expand(-1, -1, 3)).unflatten(
            1, place.shape[1:]
        )
        steps = REACH * points.diff(dim=2)
        steps = (
            steps / (1 + steps.square().sum(-1, keepdim=True)).sqrt()
        )  # of noise they would be too long
        crosses = torch.linalg.cross(steps[:, :, :-1], steps[:, :, 1:])
        square = (points[:, :, self.first] - points[:, :, self.second]).square().sum(-1)
        phase = ((square + 1e-8).sqrt()[..., None] * self.frequencies).flatten(2)
        lengths = (steps.square().sum(-1) + 1e-4).sqrt()
        volume = (crosses[:, :, :-1] * steps[:, :, 2:]).sum(-1)
        handed = volume / (lengths[:, :, :-2] * lengths[:, :, 1:-1] * lengths[:, :, 2:])
        return torch.cat([phase.sin(), phase.cos(), handed], -1), torch.cat([steps, crosses], 2)


class ResidueTransformer(Former):
    """Network without rotational symmetry, ``net(x, t, chain) -> (B, L·A, 3)``.

    One token per residue: the coordinates of its ``atoms`` A (1: Cα; 3: N, Cα, C), plain and as
    random Fourier features, the shape of its surroundings and its place from both ends. Relative
    place and Cα distance bias the attention. Time and log length modulate the layers. Padded
    residues are not seen and their output is zero. ``x`` in units of the data's scale, as
    ``objectives.Denoiser`` gives it.
    """

    def __init__(
        self,
        atoms: int = 1,
        hidden: int = 128,
        layers: int = 4,
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
        self.atoms, self.heads, self.zero_com = atoms, heads, zero_com
        self.time = TimeFeatures(times)
        self.length = nn.Linear(1, times)
        self.place = PlaceFeatures(hidden)
        self.waves = nn.Buffer(torch.randn(3, waves) * torch.logspace(-0.5, 0.7, waves))
        self.around = Surroundings(atoms)
        self.lift = nn.Linear(3 * atoms + 2 * waves, hidden)
        self.shape = nn.Sequential(
            nn.Linear(self.around.size, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
        )
        self.radial = RadialBasis(radial)
        self.near = nn.Parameter(torch.randn((layers + 1) * heads, radial) / math.sqrt(radial))
        self.apart = nn.Parameter(torch.randn((layers + 1) * heads, 2 * FARTHEST + 1))
        self.layers = nn.ModuleList(
            TransformerLayer(hidden, heads, times, expand) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(hidden)
        self.look = Projections(hidden, values=False)
        alike = zero_com and atoms == 1  # for all atoms: removed with their mean
        self.plain = nn.Linear(hidden, 3 * atoms, bias=not alike)
        self.gone = ("plain.bias",) if alike else ()
        self.along = nn.Linear(hidden, atoms * (self.around.vectors + heads))

        for readout in (self.plain, self.along):  # near the linear estimate at the start
            nn.init.normal_(readout.weight, std=0.01)
            if readout.bias is not None:
                nn.init.zeros_(readout.bias)

    def forward(self, x: Tensor, t: Tensor, chain: Residues) -> Tensor:
        mask = chain.mask
        real = mask[:, :: self.atoms]
        x = x.masked_fill(~mask[..., None], 0)
        middle = x[:, min(1, self.atoms - 1) :: self.atoms]  # Cα
        lengths = real.sum(-1)
        features, vectors = self.around(x, mask)
        phase = middle @ self.waves
        plain = torch.cat(
            [
                x.unflatten(1, (-1, self.atoms)).flatten(2),
                _SQRT2 * phase.sin(),
                _SQRT2 * phase.cos(),
            ],
            -1,
        )
        h = self.place(lengths, real.shape[1]) + self.lift(plain) + self.shape(features)
        *biases, last = self._pairs(middle, real).chunk(len(self.layers) + 1, 1)
        size = torch.log(lengths.clamp(min=1) / 64.0).to(h.dtype)
        condition = self.time(t) + self.length(size[:, None])

        for layer, bias in zip(self.layers, biases, strict=True):
            h = layer(h, bias, condition)
        h = self.norm(h)
        vectors = torch.cat([vectors, self._means(h, middle, last)], 2)
        along = self.along(h).unflatten(-1, (self.atoms, -1)) @ vectors
        out = (self.plain(h).unflatten(-1, (self.atoms, 3)) + along).flatten(1, 2)
        return remove_mean(out, mask) if self.zero_com else out * mask[..., None]

    def _means(self, h: Tensor, middle: Tensor, bias: Tensor) -> Tensor:
        """Steps to the mean places that each head looks at, ``(B, L, heads, 3)``."""
        q, k = self.look(h).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(
            q, k, middle[:, None].expand(-1, self.heads, -1, -1), attn_mask=bias
        )
        return (seen - middle[:, None]).transpose(1, 2)

    def _pairs(self, middle: Tensor, real: Tensor) -> Tensor:
        """Bias of the attention ``(B, (layers + 1)·heads, L, L)``."""
        width = real.shape[1]
        place = torch.arange(width, device=real.device)
        apart = (place[:, None] - place).clamp(-FARTHEST, FARTHEST) + FARTHEST
        square = (middle[:, :, None] - middle[:, None]).square().sum(-1)
        distance = REACH * (square + 1e-8).sqrt()  # finite slope where two residues coincide
        near = (
            self.near @ self.radial(distance).flatten(1, 2).mT
        )  # heads first, as attention reads it
        bias = near.unflatten(-1, (width, width)) + self.apart[:, apart]
        # finite, so that a chain without residues gives no NaN
        return bias.masked_fill(~real[:, None, None], -1e9)


_SQRT2 = math.sqrt(2)
