"""Chemical elements as features: related elements share what is learned about their row and
column."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orbitwise.networks.embedding import SPECIES

_NOBLE = (0, 2, 10, 18, 36, 54, 86, 118)  # last element of each row


def _place(number: int) -> tuple[int, int]:
    """Row 1 to 7 and column 1 to 18 of the periodic table; lanthanides and actinides have columns
    19 to 33."""
    row = next(r for r in range(1, 8) if number <= _NOBLE[r])
    before, length = number - _NOBLE[row - 1], _NOBLE[row] - _NOBLE[row - 1]
    if length == 32:  # f block
        if 3 <= before <= 17:
            return row, 16 + before
        return row, before if before <= 2 else before - 14
    if before <= 2 and number > 2:
        return row, before
    return row, 18 - (length - before) if number != 1 else 1


class ElementFeatures(nn.Module):
    """``species: (B, N)`` atomic numbers -> ``(B, N, features)``, the sum of embeddings of the
    element, its row and its column; 0 (padding) has one of its own."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.element = nn.Embedding(SPECIES, features)
        self.row = nn.Embedding(8, features)
        self.column = nn.Embedding(34, features)
        # the element itself starts small: what is not learned about it comes from its neighbours in
        # the table
        nn.init.normal_(self.element.weight, std=0.3)
        places = [(0, 0)] + [_place(number) for number in range(1, SPECIES)]
        self.places = nn.Buffer(torch.tensor(places), persistent=False)

    def forward(self, species: Tensor) -> Tensor:
        row, column = self.places[species].unbind(-1)
        return self.element(species) + self.row(row) + self.column(column)
