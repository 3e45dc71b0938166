"""Weighted samples: all that the search paid for as one, and few structures that stand for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.search.weights import systematic


@dataclass(frozen=True)
class Pooled:
    """A weighted sample of the target: ``x: (n, N, 3)``, ``energy: (n,)``, ``log_weight: (n,)``
    that add up to one, and ``block: (n,)``, which of them belong together."""

    x: Tensor
    energy: Tensor
    log_weight: Tensor
    block: Tensor

    def mean_energy(self) -> tuple[float, float]:
        """kT, with the standard error from the scatter between blocks."""
        w, e = self.log_weight.exp().double(), self.energy.cpu().double()
        mean = (w * e).sum()
        blocks = int(self.block.max()) + 1
        parts = torch.zeros(blocks, dtype=torch.float64).index_add_(0, self.block, w * (e - mean))
        return float(mean), float((parts.square().sum() * blocks / max(1, blocks - 1)).sqrt())


@dataclass(frozen=True)
class Delivered:
    """The final ensemble, as few structures as stand for it: ``x: (m, N, 3)``, ``energy: (m,)``,
    ``weight: (m,)`` that add up to one, ``block: (m,)`` which of them belong together."""

    x: Tensor
    energy: Tensor
    weight: Tensor
    block: Tensor

    @property
    def log_weight(self) -> Tensor:
        return self.weight.log()


def of_search(pooled: Pooled, count: int) -> Delivered:
    """About ``count`` of all frames, as often as they weigh."""
    return combed(pooled.x, pooled.energy, pooled.log_weight, pooled.block, count)


def combed(x: Tensor, energy: Tensor, log_weight: Tensor, block: Tensor, count: int) -> Delivered:
    """A comb over the weights; block by block, lest its teeth and the columns fall in step."""
    order = block.argsort(stable=True)
    drawn = systematic(log_weight[order].exp(), count, torch.Generator().manual_seed(0))
    chosen, times = drawn.unique(return_counts=True)
    rows = order[chosen]
    there = rows.to(x.device)
    return Delivered(x[there], energy[there], times.double() / count, block[rows])


def fewer(whole: Delivered, count: int, seed: int) -> Tensor:
    """Of ``whole`` the rows of ``count`` samples, each as often as it is drawn, ``(count,)``."""
    return systematic(whole.weight, count, torch.Generator().manual_seed(seed))
