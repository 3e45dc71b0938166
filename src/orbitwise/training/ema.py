"""Averaged weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged_model(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of ``model`` that forgets its start.

    After n updates the decay is ``min(decay, (1 + n) / (10 + n))``: a short run is not dragged back
    to its random initialisation. Buffers are copied, not averaged.
    """

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        number = int(count)  # no wait: torch leaves this buffer on the CPU
        keep = min(decay, (1 + number) / (10 + number))
        torch._foreach_mul_(averaged, keep)
        torch._foreach_add_(averaged, torch._foreach_mul(current, 1 - keep))

    return AveragedModel(model, multi_avg_fn=update)
