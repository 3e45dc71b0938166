"""Judge what a sampler of an energy drew."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class DrawnPaths:
    """What the sampler drew: ends ``x: (n, *E)`` with their ``energy: (n,)`` in kT and the log importance
    weights ``log_weight: (n,)`` of their paths, ``-U + log P_B - log P_F``; ``backward_log_weight: (m,)`` of
    paths drawn backwards from reference samples (None without any); ``log_z_parameter``: the learned log Z,
    None where the objective has none."""

    x: Tensor
    energy: Tensor
    log_weight: Tensor
    backward_log_weight: Tensor | None = None
    log_z_parameter: float | None = None


@dataclass(frozen=True)
class ReferenceSet:
    """Samples of the target: ``x: (m, *E)``, ``energy: (m,)`` in kT; ``independent``: how many independent
    samples they are worth (None: all of them)."""

    x: Tensor
    energy: Tensor
    independent: int | None = None
