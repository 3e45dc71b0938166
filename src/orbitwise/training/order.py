"""Seeds, and which samples a step uses: both functions of the step alone, so there is nothing to
save."""

from __future__ import annotations

import torch
from torch import Tensor


def mix(*words: int) -> int:
    """A well-mixed 63-bit seed from integers (splitmix64, Steele et al. 2014, fig. 16)."""
    state = 0
    for word in words:
        z = (state + word + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        state = z ^ (z >> 31)
    return state >> 1


class EpochOrder:
    """Which samples a step uses: epochs in random order, without a break between them."""

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.epochs: dict[int, Tensor] = {}

    def indices(self, step: int) -> Tensor:
        """Indices ``(batch_size,)`` of the global batch of ``step``, the same on every process."""
        begin, end = step * self.batch_size, (step + 1) * self.batch_size
        needed = range(begin // self.size, (end - 1) // self.size + 1)
        self.epochs = {e: self.epochs[e] if e in self.epochs else self._shuffled(e) for e in needed}
        line = torch.cat([self.epochs[e] for e in needed])
        return line[begin - needed[0] * self.size :][: self.batch_size]

    def _shuffled(self, epoch: int) -> Tensor:
        return torch.randperm(
            self.size, generator=torch.Generator().manual_seed(mix(self.seed, 0, epoch))
        )
