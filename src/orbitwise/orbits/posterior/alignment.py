"""The posterior's mode over rotations: Kabsch alignment, from the top eigenvector in
quaternions."""

from __future__ import annotations

import torch
from torch import Tensor

from orbitwise.groups.so3 import O3, SO3
from orbitwise.orbits.posterior.dispatch import mode
from orbitwise.orbits.posterior.matrix_fisher import MatrixFisher
from orbitwise.orbits.posterior.noise import Gaussian
from orbitwise.orbits.posterior.result import OrbitPosterior
from orbitwise.orbits.posterior.rotations import parameter, turn


@mode.register(SO3)
def mode_so3(
    group: SO3, process, x1: Tensor, xt: Tensor, t: Tensor, mask: Tensor | None = None
) -> OrbitPosterior:
    """The rotation that brings ``x1`` closest to ``x_t``."""
    noise = Gaussian.of(process, xt, t, mask)
    F, base = parameter(noise, x1, xt)
    law = MatrixFisher.of(F)
    return _aligned(noise, law.mode, base + law.mode_value, x1, xt)


@mode.register(O3)
def mode_o3(
    group: O3, process, x1: Tensor, xt: Tensor, t: Tensor, mask: Tensor | None = None
) -> OrbitPosterior:
    """The orthogonal matrix that brings ``x1`` closest to ``x_t``."""
    noise = Gaussian.of(process, xt, t, mask)
    F, base = parameter(noise, x1, xt)
    proper = MatrixFisher.of(F)
    improper = proper.opposite()
    better = proper.mode_value >= improper.mode_value
    best = torch.where(better[..., None, None], proper.mode, -improper.mode)
    return _aligned(noise, best, base + proper.mode_value.maximum(improper.mode_value), x1, xt)


def _aligned(
    noise: Gaussian, best: Tensor, log_density: Tensor, x1: Tensor, xt: Tensor
) -> OrbitPosterior:
    mean = turn(best, x1)

    def draw(K: int, generator: torch.Generator | None) -> Tensor:
        return best.expand(K, *best.shape).clone()

    return OrbitPosterior(mean, log_density, noise.score(mean, xt), "mode", False, draw)
