"""A plain transformer over the atoms of a cell: no translation symmetry built in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orbitwise.crystals.cspnet import (
    WAVES,
    CrystalConditions,
    CrystalLabels,
    CrystalOutput,
    fourier,
    place,
)
from orbitwise.networks.former import Former
from orbitwise.networks.points.transformer import TransformerLayer


class CrystalTransformer(Former):
    """Same call as ``CSPNet``. One token per atom, from its element and the Fourier features of its
    own coordinates: periodic and permuting with the atoms, but it has to learn that a shift of all
    atoms changes nothing.

    ``hidden`` is a multiple of ``heads``.
    """

    def __init__(
        self,
        hidden: int = 128,
        layers: int = 4,
        times: int = 32,
        prompt: int = 0,
        centred: bool = False,
        heads: int = 8,
        expand: int = 2,
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden ({hidden}) must be a multiple of heads ({heads})")
        self.centred, self.heads = centred, heads
        self.conditions = CrystalConditions(hidden, times, prompt)
        self.lift = nn.Linear(6 * len(WAVES), hidden)
        self.layers = nn.ModuleList(
            TransformerLayer(hidden, heads, hidden, expand) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(hidden)
        self.frac = nn.Linear(
            hidden, 3, bias=not centred
        )  # the same for all atoms: removed with their mean
        self.gone = ("frac.bias",) if centred else ()
        self.cell = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, 6))

    def forward(self, frac: Tensor, cell: Tensor, t: Tensor, batch: CrystalLabels) -> CrystalOutput:
        h, graph = self.conditions(cell, t, batch)
        h = h + self.lift(fourier(frac)) + graph[:, None]
        unseen = (~batch.mask)[:, None, None]
        bias = h.new_zeros(()).masked_fill(unseen, -1e9).expand(-1, self.heads, h.shape[1], -1)
        for layer in self.layers:
            h = layer(h, bias, graph)
        h = self.norm(h)
        real = batch.mask[..., None].to(h.dtype)
        pooled = (h * real).sum(1) / real.sum(1).clamp(min=1)
        return CrystalOutput(
            place(self.frac(h), real, self.centred), self.cell(torch.cat([pooled, graph], -1))
        )
