"""Denoising of densities on a voxel grid at one noise level (VoxMol, arXiv 2306.07473, eq. 6)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orbitwise.data.batch import PointBatch
from orbitwise.data.voxels import VoxelGrid
from orbitwise.errors import InputError
from orbitwise.groups.base import Group
from orbitwise.objectives.denoiser import Preconditioning
from orbitwise.processes.gaussian import GaussianProcess


class GridDenoiser(nn.Module):
    """``forward(y) -> E[x | y = x + σ ε]`` for grids ``(B, C, n, n, n)``, from a network
    ``network(y, t)``.

    ``data_scale``: root mean square of the densities, saved with the weights. Raises ``InputError``
    unless both numbers are positive.
    """

    data_scale: Tensor

    def __init__(self, network: nn.Module, sigma: float, data_scale: float) -> None:
        super().__init__()
        if not (sigma > 0 and data_scale > 0):
            raise InputError(f"sigma and data_scale must be positive, got {sigma} and {data_scale}")
        self.network, self.sigma = network, float(sigma)
        self.process = GaussianProcess.ve(
            self.sigma, self.sigma
        )  # α = 1 and this one σ at all times
        self.register_buffer("data_scale", torch.tensor(float(data_scale)))

    def forward(self, y: Tensor) -> Tensor:
        t = torch.zeros(len(y), device=y.device, dtype=y.dtype)
        c = Preconditioning.of(self.process, t, self.data_scale.to(y.dtype))
        into, out, skip = (v[:, None, None, None, None] for v in (c.into, c.out, c.skip))
        return skip * y + out * self.network(into * y, c.fraction)


@dataclass(frozen=True)
class GridDenoising:
    """``(denoiser, batch, generator) -> losses (B,)``: mean over voxels of ``|D(x + σ ε) −
    x|²/scale²``.

    The densities x are made anew in every step from the positions of ``batch``, placed at random
    and turned by random elements of ``group`` (None: left in the orientation of the data), so
    augmentation never interpolates. The loss of the answer 0 is one.
    """

    grid: VoxelGrid
    group: Group | None = None

    def __call__(
        self, denoiser: GridDenoiser, batch: PointBatch, generator: torch.Generator | None = None
    ) -> Tensor:
        with torch.no_grad():
            clean = self.grid.voxelise(self.grid.place(batch, self.group, generator))
            noisy = clean + denoiser.sigma * torch.randn(
                clean.shape, generator=generator, device=clean.device, dtype=clean.dtype
            )
        return (denoiser(noisy) - clean).square().flatten(1).mean(1) / denoiser.data_scale**2
