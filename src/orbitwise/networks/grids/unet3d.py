"""A 3-D U-Net of voxel grids and a time: convolutions only, no symmetry beyond translations by
whole voxels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from orbitwise.errors import InputError
from orbitwise.networks.embedding import TimeFeatures


class GridBlock(nn.Module):
    """``h + W₂ silu(norm(W₁ silu(norm(h)) + time))`` with convolutions of 3³ voxels; four channels
    to a group."""

    def __init__(self, channels: int, times: int) -> None:
        super().__init__()
        self.first = nn.GroupNorm(channels // 4, channels)
        self.inner = nn.Conv3d(channels, channels, 3, padding=1)
        self.time = nn.Linear(times, channels)
        self.second = nn.GroupNorm(channels // 4, channels)
        self.outer = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        inner = self.inner(silu(self.first(h))) + self.time(time)[..., None, None, None]
        return h + self.outer(silu(self.second(inner)))


class UNet3D(nn.Module):
    """``net(x, t) -> (B, channels, n, n, n)`` for grids ``x`` of that shape, of unit scale, ``t:
    (B,)`` in [0, 1].

    The U-Net of Ronneberger et al. (arXiv 1505.04597) in three dimensions (Çiçek et al., arXiv
    1606.06650), with residual blocks, sums instead of concatenations, and no attention: two levels
    of down-sampling by 2, of ``width``, 2·``width`` and 4·``width`` channels. It learns rotations
    of the grid, it does not know them. Raises ``InputError`` where ``n`` or ``width`` is not a
    multiple of 4.
    """

    def __init__(self, channels: int = 5, width: int = 8, times: int = 16) -> None:
        super().__init__()
        if width % 4:
            raise InputError(
                f"the width must be a multiple of 4, not {width}: normalisation takes four channels"
            )
        self.time = TimeFeatures(times)
        self.read = nn.Conv3d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(
            nn.ModuleList([nn.Conv3d(w, 2 * w, 2, stride=2), GridBlock(2 * w, times)])
            for w in (width, 2 * width)
        )
        self.up = nn.ModuleList(
            nn.ModuleList([nn.Conv3d(2 * w, w, 1), GridBlock(w, times)]) for w in (2 * width, width)
        )
        self.norm = nn.GroupNorm(width // 4, width)
        self.out = nn.Conv3d(width, channels, 3, padding=1)
        self.to(
            memory_format=torch.channels_last_3d
        )  # of the weights, convolutions follow: a third faster on CPUs

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        if x.shape[-1] % 4:
            raise InputError(
                f"the side of the grid must be a multiple of 4, not {x.shape[-1]}: it is halved"
                " twice"
            )
        time = silu(self.time(t))
        h = self.read(x)
        skips = []
        for halve, block in self.down:
            skips.append(h)
            h = block(halve(h), time)
        for narrow, block in self.up:
            h = interpolate(narrow(h), scale_factor=2.0, mode="nearest")
            h = block(h + skips.pop(), time)
        return self.out(silu(self.norm(h)))
