"""Averaged weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class AveragedModel(nn.Module):
    """An exponential moving average of ``model``, in ``module``, that forgets its start.

    After n updates the decay is ``min(decay, (1 + n) / (10 + n))``: a short run is not dragged back
    to its random initialisation. Buffers are copied, not averaged. The updates are counted by
    Python, so none of them waits for an accelerator (torch's own class reads its counter twice).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(model)
        self.decay = decay
        self.n_averaged = 0

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """With the weights of ``model`` as they are now; the first are taken over."""
        n = self.n_averaged
        keep = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        averaged, current = list(self.module.parameters()), list(model.parameters())
        if averaged and n:
            torch._foreach_mul_(averaged, keep)
            torch._foreach_add_(averaged, torch._foreach_mul(current, 1 - keep))
        else:
            for mine, its in zip(averaged, current, strict=True):
                mine.copy_(its)
        for mine, its in zip(self.module.buffers(), model.buffers(), strict=True):
            mine.copy_(its)
        self.n_averaged += 1
