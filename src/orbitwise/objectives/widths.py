"""A batch in parts of different widths: the objective of each, put together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.objectives.denoising import Denoising


@dataclass(frozen=True)
class OverParts:
    """``objective`` over the ``parts`` of a batch (``data.molecule_batch.Buckets``): losses
    ``(B,)`` of all items.

    The parts are few and each is padded to its own width only; the mean loss is that of one wide
    batch.
    """

    objective: Denoising

    def __call__(self, denoiser, batch, generator: torch.Generator | None = None) -> Tensor:
        return torch.cat([self.objective(denoiser, part, generator) for part in batch.parts])
