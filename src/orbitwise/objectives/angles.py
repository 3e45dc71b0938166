"""Maximum likelihood of angles, whole laws on a grid or samples."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from orbitwise.processes.von_mises import VonMisesMixture


class OnGrid(Protocol):
    """``share: (B, G)``: of G even angles from -π on, 1 in sum for each item. Samples are such a
    histogram too."""

    share: Tensor


def angle_likelihood(
    model: torch.nn.Module, batch: OnGrid, generator: torch.Generator | None = None
) -> Tensor:
    """``-Σ_g p_g log(q(θ_g) 2π/G)``, ``(B,)`` in nats: the cross-entropy of the mixtures whose
    log weights, means and concentrations ``model(batch): (3, B, K)`` gives,
    which is the entropy of p at least where the grid resolves them. Nothing is drawn."""
    count = batch.share.shape[-1]
    log_q = VonMisesMixture(*model(batch)).on_grid(count) + math.log(2 * math.pi / count)
    return -(batch.share * log_q).sum(-1)
