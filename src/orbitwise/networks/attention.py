"""Queries, keys and values of one linear map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from orbitwise.networks.former import Former


class Projections(Former, nn.Linear):
    """``h: (..., inputs)`` -> queries, keys and, with ``values``, values, each ``(..., inputs)``,
    side by side.

    Keys have no bias: it would add the same to all logits of a query, and softmax forgets that.
    """

    def __init__(self, inputs: int, values: bool = True) -> None:
        super().__init__(inputs, (3 if values else 2) * inputs)
        self.bias = nn.Parameter(self._without_keys(self.bias.detach()))

    def _without_keys(self, bias: Tensor) -> Tensor:
        return torch.cat([bias[: self.in_features], bias[2 * self.in_features :]])

    def upgrade(self, state: dict[str, Any], prefix: str) -> None:
        """Drop the bias of the keys."""
        bias = state.get(f"{prefix}bias")
        if bias is not None and bias.shape == (self.out_features,):
            state[f"{prefix}bias"] = self._without_keys(bias)

    def forward(self, h: Tensor) -> Tensor:
        queries, values = self.bias[: self.in_features], self.bias[self.in_features :]
        keys = torch.zeros_like(queries)
        return linear(h, self.weight, torch.cat([queries, keys, values]))
