"""The one place where energy and gradient evaluations are counted."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from orbitwise.energies.base import Energy


@dataclass
class Count:
    """Evaluations of one stage. A value-and-gradient pass counts one in each."""

    energy: int = 0
    gradient: int = 0


class Counted(Energy):
    """Wrap an energy and count every configuration it is asked for, per stage.

    >>> u = Counted(energy)
    >>> with u.stage("search"):
    ...     u.value_and_grad(x)          # adds x.shape[:-len(event_shape)].numel() to both counts
    of "search"
    """

    def __init__(self, energy: Energy, counts: dict[str, Count] | None = None, label: str = ""):
        """``counts``: those of another energy, to count in one place; ``label`` is added to the
        names of the stages then."""
        super().__init__()
        self.inner = energy
        self.event_shape = energy.event_shape
        self.zero_com = energy.zero_com
        self.log_z = energy.log_z
        self.counts: dict[str, Count] = defaultdict(Count) if counts is None else counts
        self.label = label
        self._stage = f"other{label}"

    @contextmanager
    def stage(self, name: str):
        """Count what happens inside under ``name``."""
        before, self._stage = self._stage, name + self.label
        try:
            yield self
        finally:
            self._stage = before

    def add(self, spent: Count) -> None:
        """Count what another process has evaluated under the stage of the moment."""
        count = self.counts[self._stage]
        count.energy += spent.energy
        count.gradient += spent.gradient

    def _size(self, x: Tensor) -> int:
        return x.shape[: x.ndim - len(self.event_shape)].numel()

    def forward(self, x: Tensor) -> Tensor:
        self.counts[self._stage].energy += self._size(x)
        return self.inner(x)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        count, size = self.counts[self._stage], self._size(x)
        count.energy += size
        count.gradient += size
        return self.inner.value_and_grad(x)
