"""A replay buffer in preallocated tensors: points with their energies, drawn by priority."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from orbitwise.errors import InputError

PRIORITIES = ("uniform", "rank", "reward")


class ReplayBuffer(nn.Module):
    """The last ``capacity`` points ``x: (n, *event)`` with ``energy: (n,)`` [kT] and, if given,
    ``grad``.

    First in, first out. ``draw`` samples with replacement: ``"uniform"``; ``"rank"`` with
    probability ∝ 1/(0.01 n + rank), the lowest energy having rank 0 (SGDS 2505.19552, after Tripp
    et al. 2006.09191); ``"reward"`` ∝ exp(-U). ``log_weight`` (importance weights of annealed
    samples) multiplies any of them. Everything is a tensor in the ``state_dict``, so a checkpoint
    keeps the buffer. Raises ``InputError`` for an unknown priority, for energies that are not
    finite, and when drawing from an empty buffer.
    """

    x: Tensor
    energy: Tensor
    grad: Tensor
    log_weight: Tensor
    added: Tensor

    def __init__(
        self,
        capacity: int,
        event_shape: Sequence[int],
        *,
        priority: str = "uniform",
        dtype=torch.float32,
    ):
        super().__init__()
        if priority not in PRIORITIES:
            raise InputError(f"unknown priority {priority!r}; use one of {', '.join(PRIORITIES)}")
        if capacity < 1:
            raise InputError(f"a buffer needs a capacity of at least 1, got {capacity}")
        self.priority = priority
        event = tuple(event_shape)
        self.register_buffer("x", torch.zeros(capacity, *event, dtype=dtype))
        self.register_buffer("grad", torch.zeros(capacity, *event, dtype=dtype))
        self.register_buffer("energy", torch.zeros(capacity, dtype=dtype))
        self.register_buffer("log_weight", torch.zeros(capacity, dtype=dtype))
        self.register_buffer("added", torch.zeros((), dtype=torch.long))

    def __len__(self) -> int:
        return min(int(self.added), len(self.energy))

    @torch.no_grad()
    def add(
        self,
        x: Tensor,
        energy: Tensor,
        grad: Tensor | None = None,
        log_weight: Tensor | None = None,
    ) -> None:
        """Append ``x: (n, *event)``; of more points than fit the last are kept."""
        if x.shape != (len(energy), *self.x.shape[1:]):
            raise InputError(
                f"expected points (n, {tuple(self.x.shape[1:])}), got {tuple(x.shape)}"
            )
        if not (torch.isfinite(energy).all() and torch.isfinite(x).all()):
            raise InputError("points and energies in a buffer must be finite; leave the others out")
        keep = slice(max(0, len(energy) - len(self.energy)), None)
        slots = torch.arange(len(energy), device=self.x.device)[keep] + self.added
        slots = slots % len(self.energy)
        self.x[slots] = x[keep].to(self.x)
        self.energy[slots] = energy[keep].to(self.energy)
        self.grad[slots] = 0.0 if grad is None else grad[keep].to(self.grad)
        self.log_weight[slots] = 0.0 if log_weight is None else log_weight[keep].to(self.log_weight)
        self.added += len(energy)

    def log_priority(self) -> Tensor:
        """Unnormalised log-probabilities of the points that are there, ``(n,)``."""
        n = len(self)
        energy, weight = self.energy[:n], self.log_weight[:n]
        if self.priority == "rank":
            rank = energy.argsort().argsort().to(weight.dtype)
            return weight - (0.01 * n + rank).log()
        return weight - energy if self.priority == "reward" else weight

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Indices ``(count,)`` of points, with replacement."""
        if len(self) == 0:
            raise InputError("the replay buffer is empty; search first, or train on-policy only")
        # by inversion of the distribution function: multinomial has a limit of 2^24 categories
        mass = torch.softmax(self.log_priority().double(), 0).cumsum(0)
        where = mass.device if generator is None else generator.device
        u = torch.rand(count, generator=generator, device=where, dtype=torch.float64).to(
            mass.device
        )
        return torch.searchsorted(mass, u * mass[-1], right=True).clamp_max(len(self) - 1)
