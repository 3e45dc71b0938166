"""VonMisesNet: a law of the torsion of a rotatable bond from the molecular graph alone.

Swanson, Williams, Jonas, arXiv 2306.07472. Here every vertex is normalised by itself (the released
batch norm has parameters per padded slot and is not equivariant), and mirror images are treated
alike by construction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from orbitwise.molecules.torsion_graph import FEATURES, TorsionBatch
from orbitwise.processes.von_mises import VonMisesMixture

WIDEST, NARROWEST = 0.01, 100.0  # κ: nearly uniform; 6° wide
FLOOR = 0.02  # weight of the uniform law: a wrong law of another molecule costs log 1/FLOOR at most


class VonMisesNet(nn.Module):
    """``net.law(batch) -> VonMisesMixture`` of ``(B, 2 K + 1)`` for B rotors; ``net(batch)`` is its
    log weights, means and concentrations, ``(3, B, 2 K + 1)``.

    ``layers`` residual layers ``v + relu(L₂ relu(L₁ mean))`` over neighbours and self, of width
    ``hidden``; for each rotor K = ``components`` triples (μ, κ, log w) from its bond, its two ends
    (a sum and a product: the direction in which a torsion is read does not matter) and their arms
    in clockwise order. Renaming atoms changes nothing. The law is the half of that of the graph and
    the half of the reflected one of its mirror image, so that the law of ``mirrored`` is the law
    of -θ, and the law of an achiral graph is even. The last component is uniform, of weight
    ``FLOOR``.
    """

    reflection: Tensor

    def __init__(self, hidden: int = 64, layers: int = 6, components: int = 4) -> None:
        super().__init__()
        self.components = components
        self.register_buffer(
            "reflection", torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1), persistent=False
        )
        self.read = nn.Linear(FEATURES + 1, hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.first = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self.second = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self.last = nn.LayerNorm(hidden)
        self.end = nn.Sequential(nn.Linear(4 * hidden, 2 * hidden), nn.ReLU())
        self.head = nn.Sequential(
            nn.Linear(5 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, 4 * components)
        )
        with torch.no_grad():  # means spread over the circle, moderately narrow
            turn = 2 * math.pi * (torch.arange(components) + 0.5) / components
            self.head[-1].weight.mul_(0.3)
            self.head[-1].bias.copy_(
                torch.stack([turn.cos(), turn.sin(), torch.full_like(turn, 3), 0 * turn]).flatten()
            )

    def law(self, batch: TorsionBatch) -> VonMisesMixture:
        """``(B, 2 K + 1)``."""
        return VonMisesMixture(*self(batch))

    def forward(self, batch: TorsionBatch) -> Tensor:
        one, other = self.one_hand(batch), self.one_hand(batch.mirrored) * self.reflection
        both = torch.cat([one, other], -1)
        weights, rest = both[:1] + math.log((1 - FLOOR) / 2), both[1:]
        floor = torch.full_like(weights[..., :1], math.log(FLOOR))
        zero = torch.zeros_like(rest[..., :1])
        return torch.cat([torch.cat([weights, floor], -1), torch.cat([rest, zero], -1)])

    def one_hand(self, batch: TorsionBatch) -> Tensor:
        """``(3, B, K)``, without its mirror image."""
        h = self.read(torch.cat([batch.features, batch.hand.unsqueeze(-1)], -1))
        for norm, first, second in zip(self.norms, self.first, self.second, strict=True):
            h = h + second(first(batch.ties @ norm(h)).relu()).relu()
        h = self.last(h)

        def at(index: Tensor) -> Tensor:
            """Vertices ``(B, *I) -> (B, *I, hidden)``, 0 for -1."""
            flat = index.clamp_min(0).flatten(1).unsqueeze(-1)
            found = h.take_along_dim(flat, 1).unflatten(1, index.shape[1:])
            return found * (index >= 0).unsqueeze(-1)

        e, f = at(batch.others).unbind(2)  # (B, 2 ends, hidden)
        ahead = (1 + batch.side.to(h.dtype).unsqueeze(-1)) / 2
        around = [ahead * e + (1 - ahead) * f, (1 - ahead) * e + ahead * f]
        ends = self.end(torch.cat([*at(batch.ends).unbind(2), *around], -1))
        middle = at(batch.bond.unsqueeze(-1)).squeeze(1)
        out = self.head(torch.cat([ends.sum(1), ends.prod(1), middle], -1))

        cos, sin, kappa, log_weight = out.unflatten(-1, (4, self.components)).unbind(-2)
        narrow = WIDEST + softplus(kappa)
        narrow = narrow * NARROWEST / (narrow + NARROWEST)  # smooth up to the narrowest
        return torch.stack([log_weight.log_softmax(-1), torch.atan2(sin, cos), narrow])
