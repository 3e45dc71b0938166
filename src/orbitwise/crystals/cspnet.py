"""A periodic network for crystals, of the class of CSPNet (Jiao 2309.04475, eq. 6 to 8)."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from orbitwise.crystals.elements import ElementFeatures
from orbitwise.networks.embedding import TimeFeatures
from orbitwise.networks.former import Former

WAVES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # whole numbers: the features are periodic


class CrystalLabels(Protocol):
    """The part of a batch that crystal networks read: everything but the structure."""

    species: Tensor  # (B, N) long, atomic numbers
    mask: Tensor  # (B, N) bool, True = real atom
    prompt: (
        Tensor | None
    )  # (B, 1 + N, P), of a text and of what it says about each atom, zeros for nothing


class CrystalOutput(NamedTuple):
    """``frac: (B, N, 3)`` of the atoms, zero at padded ones; ``cell: (B, 6)`` of the cell."""

    frac: Tensor
    cell: Tensor


def fourier(displacement: Tensor) -> Tensor:
    """Sines and cosines of fractional displacements, ``(..., 3) -> (..., 6 len(WAVES))``;
    1-periodic."""
    phase = 2 * math.pi * displacement[..., None] * displacement.new_tensor(WAVES)
    return torch.cat([phase.sin(), phase.cos()], -1).flatten(-2)


def _reader(size: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, hidden), nn.SiLU(), nn.Linear(hidden, hidden))


class CrystalConditions(nn.Module):
    """What atoms and cell know before they talk: element, time, noisy cell and prompt; ``(B, N,
    hidden)`` and ``(B, hidden)``."""

    def __init__(self, hidden: int, times: int, prompt: int) -> None:
        super().__init__()
        self.element = ElementFeatures(hidden)
        self.time = TimeFeatures(times)
        self.cell = _reader(7 + times, hidden)
        self.prompt = _reader(prompt, hidden) if prompt else None
        self.detail = _reader(prompt, hidden) if prompt else None

    def forward(self, cell: Tensor, t: Tensor, batch: CrystalLabels) -> tuple[Tensor, Tensor]:
        atoms = batch.mask.sum(-1, keepdim=True).to(cell.dtype).log() - 2.0
        graph = self.cell(torch.cat([cell, atoms, self.time(t)], -1))
        atom = self.element(batch.species)
        if self.prompt is not None and batch.prompt is not None:
            text = batch.prompt.to(graph.dtype)
            given = (text != 0).any(-1, keepdim=True)
            graph = graph + given[:, 0] * self.prompt(text[:, 0])
            if text.shape[1] > 1:
                atom = atom + given[:, 1:] * self.detail(text[:, 1:])
        return atom, graph


class PeriodicLayer(nn.Module):
    """Messages between all pairs of atoms of a cell, through the Fourier features of their
    displacement."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.ends = nn.Linear(hidden, 2 * hidden)
        self.pair = nn.Linear(6 * len(WAVES), hidden, bias=False)
        self.message = nn.Linear(hidden, hidden)
        self.update = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
        )

    def forward(self, h: Tensor, waves: Tensor, graph: Tensor, weight: Tensor) -> Tensor:
        """``h (B, N, hidden)``, ``waves (B, N, N, 6 W)``, ``graph (B, hidden)``, ``weight (B, N, N,
        1)`` mean."""
        n = self.norm(h) + graph[:, None]
        to, of = self.ends(n).chunk(2, -1)
        message = silu(self.pair(waves) + to[:, :, None] + of[:, None])
        gathered = (silu(self.message(message)) * weight).sum(2)
        return h + self.update(torch.cat([n, gathered], -1))


class CSPNet(Former):
    """``net(frac, cell, t, batch) -> CrystalOutput`` for crystals: ``frac (B, N, 3)`` fractional
    coordinates, ``cell (B, 6)`` the noisy cell vector in units of order one, ``t (B,)`` in [0, 1].

    The output does not change when all atoms of a crystal are shifted together or by whole cells,
    permutes with the atoms, and is zero at padded ones. ``centred``: the mean of ``frac`` over the
    atoms is removed, which is exact when the noise of translations is. ``prompt``: size of the text
    embedding, 0 for none.
    """

    def __init__(
        self,
        hidden: int = 128,
        layers: int = 4,
        times: int = 32,
        prompt: int = 0,
        centred: bool = True,
    ) -> None:
        super().__init__()
        self.centred = centred
        self.conditions = CrystalConditions(hidden, times, prompt)
        self.layers = nn.ModuleList(PeriodicLayer(hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.frac = nn.Linear(
            hidden, 3, bias=not centred
        )  # the same for all atoms: removed with their mean
        self.gone = ("frac.bias",) if centred else ()
        self.cell = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, 6))

    def forward(self, frac: Tensor, cell: Tensor, t: Tensor, batch: CrystalLabels) -> CrystalOutput:
        h, graph = self.conditions(cell, t, batch)
        waves = fourier(frac[:, None] - frac[:, :, None])
        real = batch.mask[..., None].to(h.dtype)
        others = real[:, None] * real[:, :, None]  # an atom is its own neighbour too: of its images
        weight = others / real.sum(1).clamp(min=1)[:, None, None]
        for layer in self.layers:
            h = layer(h, waves, graph, weight)
        h = self.norm(h)
        pooled = (h * real).sum(1) / real.sum(1).clamp(min=1)
        return CrystalOutput(
            place(self.frac(h), real, self.centred), self.cell(torch.cat([pooled, graph], -1))
        )


def place(out: Tensor, real: Tensor, centred: bool) -> Tensor:
    """Zero at padded atoms; with ``centred`` of zero mean over the real ones. ``out (B, N, 3)``,
    ``real (B, N, 1)``."""
    out = out * real
    return (
        out - real * (out.sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1))
        if centred
        else out
    )
