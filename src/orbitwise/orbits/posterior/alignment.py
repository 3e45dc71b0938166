"""The posterior's mode over rotations: Kabsch alignment, from the top eigenvector in
quaternions."""

from __future__ import annotations

import torch
from torch import Tensor

from orbitwise.groups.so3 import O3, SO3
from orbitwise.orbits.posterior.dispatch import mode
from orbitwise.orbits.posterior.matrix_fisher import MatrixFisher
from orbitwise.orbits.posterior.question import Question
from orbitwise.orbits.posterior.result import OrbitPosterior
from orbitwise.orbits.posterior.rotations import base_of, parameter, turn


@mode.register(SO3)
def mode_so3(group: SO3, question: Question) -> OrbitPosterior:
    """The rotation that brings ``x1`` closest to ``x_t``."""
    law = MatrixFisher.of(parameter(question))
    return _aligned(question, law.mode, law.mode_value)


@mode.register(O3)
def mode_o3(group: O3, question: Question) -> OrbitPosterior:
    """The orthogonal matrix that brings ``x1`` closest to ``x_t``."""
    proper = MatrixFisher.of(parameter(question))
    improper = proper.opposite()
    better = proper.mode_value >= improper.mode_value
    best = torch.where(better[..., None, None], proper.mode, -improper.mode)
    return _aligned(question, best, proper.mode_value.maximum(improper.mode_value))


def _aligned(question: Question, best: Tensor, value: Tensor) -> OrbitPosterior:
    """``value``: ``tr(Fᵀ best)``."""
    mean = turn(best, question.x1)

    def draw(K: int, generator: torch.Generator | None) -> Tensor:
        return best.expand(K, *best.shape).clone()

    return OrbitPosterior(
        mean=mean,
        log_evidence=lambda: base_of(question) + value,
        score=lambda: question.gaussian.score(mean, question.xt),
        method="mode",
        exact=False,
        draw=draw,
    )
