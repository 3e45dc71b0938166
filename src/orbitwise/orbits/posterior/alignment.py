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
from orbitwise.orbits.posterior.rotations import parameter, turn


@mode.register(SO3)
def mode_so3(group: SO3, question: Question) -> OrbitPosterior:
    """The rotation that brings ``x1`` closest to ``x_t``."""
    F, base = parameter(question)
    law = MatrixFisher.of(F)
    return _aligned(question, law.mode, base + law.mode_value)


@mode.register(O3)
def mode_o3(group: O3, question: Question) -> OrbitPosterior:
    """The orthogonal matrix that brings ``x1`` closest to ``x_t``."""
    F, base = parameter(question)
    proper = MatrixFisher.of(F)
    improper = proper.opposite()
    better = proper.mode_value >= improper.mode_value
    best = torch.where(better[..., None, None], proper.mode, -improper.mode)
    return _aligned(question, best, base + proper.mode_value.maximum(improper.mode_value))


def _aligned(question: Question, best: Tensor, log_density: Tensor) -> OrbitPosterior:
    mean = turn(best, question.x1)
    score = question.gaussian.score(mean, question.xt)

    def draw(K: int, generator: torch.Generator | None) -> Tensor:
        return best.expand(K, *best.shape).clone()

    return OrbitPosterior(
        mean=mean, log_evidence=log_density, score=score, method="mode", exact=False, draw=draw
    )
