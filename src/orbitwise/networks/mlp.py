"""A residual multilayer perceptron of a vector and a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import silu

from orbitwise.networks.embedding import TimeFeatures


class ResidualBlock(nn.Module):
    """``h + W₂ silu(W₁ norm(h) + time)``."""

    def __init__(self, hidden: int, times: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.inner = nn.Linear(hidden, hidden)
        self.time = nn.Linear(times, hidden)
        self.outer = nn.Linear(hidden, hidden)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        return h + self.outer(silu(self.inner(self.norm(h)) + self.time(time)))


class MLP(nn.Module):
    """``net(x, t) -> (B, *out_shape)`` for ``x: (B, *event_shape)`` of unit scale, ``t: (B,)`` in
    [0, 1].

    No symmetry at all; ``out_shape`` is ``event_shape`` by default, ``()`` gives one number. The
    last layer starts at zero, so that a fresh network changes nothing.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        hidden: int = 256,
        blocks: int = 3,
        times: int = 32,
        out_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.out_shape = tuple(event_shape if out_shape is None else out_shape)
        self.time = TimeFeatures(times)
        self.read = nn.Linear(math.prod(event_shape), hidden)
        self.blocks = nn.ModuleList(ResidualBlock(hidden, times) for _ in range(blocks))
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, math.prod(self.out_shape))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.time(t)
        h = self.read(x.flatten(1))
        for block in self.blocks:
            h = block(h, time)
        return self.out(silu(self.norm(h))).view(len(x), *self.out_shape)


class ElementwiseMLP(nn.Module):
    """``net(x, t) -> (B, *event_shape)`` that treats ``x`` as a set of equal blocks of ``width``
    coordinates.

    Every block goes through the same residual network together with the mean of the blocks'
    features (Deep Sets, Zaheer et al. 1703.06114), so the output is equivariant under permutations
    of the blocks.
    """

    def __init__(self, width: int, hidden: int = 64, blocks: int = 3, times: int = 32) -> None:
        super().__init__()
        self.width = width
        self.time = TimeFeatures(times)
        self.read = nn.Linear(width, hidden)
        self.blocks = nn.ModuleList(ResidualBlock(hidden, times) for _ in range(blocks))
        self.context = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(blocks))
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        for layer in self.context:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.time(t)[:, None]
        h = self.read(x.reshape(len(x), -1, self.width))
        for block, context in zip(self.blocks, self.context, strict=True):
            h = block(h + context(h.mean(1, keepdim=True)), time)
        return self.out(silu(self.norm(h))).view(x.shape)
