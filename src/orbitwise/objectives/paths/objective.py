"""What all objectives on paths share: where the paths come from and how evaluations are counted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orbitwise.data.buffer import ReplayBuffer
from orbitwise.energies.base import Energy
from orbitwise.energies.counted import Counted
from orbitwise.errors import InputError
from orbitwise.objectives.paths.path import (
    Paths,
    bridges,
    chosen_steps,
    join,
    roll_out,
    with_log_ratio,
)
from orbitwise.objectives.paths.sampler import DiffusionSampler


class PathObjective(nn.Module):
    """``(sampler, batch, generator) -> losses (B,)`` on ``len(batch)`` paths.

    A share ``on_policy`` of them is rolled out by the learner; the others are bridges back from
    points of ``buffer``. ``time_steps``: how many of a path's steps get a gradient (None: all). A
    subclass defines ``losses``.

    ``spent``: energies and gradients evaluated so far; with the buffers of the module it is part of
    a checkpoint. Raises ``InputError`` for a share outside [0, 1] or bridges without a buffer.
    """

    spent: Tensor

    def __init__(
        self,
        energy: Energy,
        buffer: ReplayBuffer | None = None,
        *,
        on_policy: float = 0.5,
        time_steps: int | None = None,
    ):
        super().__init__()
        if not 0 <= on_policy <= 1:
            raise InputError(f"the on-policy share must lie between 0 and 1, got {on_policy}")
        if on_policy < 1 and buffer is None:
            raise InputError(
                "paths back from samples need a replay buffer; or train with on_policy=1"
            )
        if time_steps is not None and time_steps < 1:
            raise InputError(f"time_steps must be at least 1, got {time_steps}")
        self.energy, self.replay = Counted(energy), buffer
        self.on_policy, self.time_steps = on_policy, time_steps
        self.register_buffer("spent", torch.zeros(2, dtype=torch.long))

    def __call__(
        self, sampler: DiffusionSampler, batch, generator: torch.Generator | None = None
    ) -> Tensor:
        inner = getattr(sampler, "module", sampler)  # Fabric's wrapper
        losses = self.losses(inner, len(batch), generator)
        count = self.energy.counts.pop("other", None)
        if count is not None:
            self.spent += torch.tensor([count.energy, count.gradient], device=self.spent.device)
        return losses

    def losses(
        self, sampler: DiffusionSampler, count: int, generator: torch.Generator | None
    ) -> Tensor:
        """Losses ``(count,)`` whose mean has the objective's gradient."""
        raise NotImplementedError

    def paths(
        self, sampler: DiffusionSampler, count: int, generator: torch.Generator | None
    ) -> Paths:
        """Paths of both kinds on the same times, without a graph; energies that are not finite are
        left out."""
        own = round(self.on_policy * count)
        times = sampler.times(generator)
        drawn = roll_out(sampler, self.energy, own, generator, times)
        if own == count:
            return drawn
        index = self.replay.draw(count - own, generator)
        back = bridges(
            sampler, self.energy, self.replay.x[index], self.replay.energy[index], generator, times
        )
        return join(drawn, with_log_ratio(sampler, back) if self.time_steps else back)

    def steps(
        self, sampler: DiffusionSampler, total: int, generator
    ) -> tuple[Tensor | None, float]:
        """Steps that get a gradient (None: all) and the factor that makes it unbiased."""
        chosen = chosen_steps(total, self.time_steps, generator, sampler.data_scale.device)
        return chosen, 1.0 if chosen is None else total / len(chosen)


def with_gradient_of(value: Tensor, surrogate: Tensor) -> Tensor:
    """``value`` as a number, ``surrogate`` as a gradient."""
    return value.detach() + surrogate - surrogate.detach()
