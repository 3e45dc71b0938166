"""What an orbit needs of a process: the density of ``x_t`` around one point of the orbit, and its
score."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.errors import NoClosedFormError
from orbitwise.groups.torus import wrapped_normal

# smallest variance, relative to |x_t|²: keeps sigma = 0 finite, below what float64 resolves
FLOOR = 1e-20
TINY = 1e-200


@dataclass(frozen=True)
class Gaussian:
    """``N(x_t; alpha x1, variance)`` in ``dof`` dimensions; all ``(*B)``, float64."""

    alpha: Tensor
    variance: Tensor
    dof: Tensor

    @classmethod
    def of(cls, process, xt: Tensor, t: Tensor, mask: Tensor | None) -> Gaussian:
        """Read off any process with ``alpha(t)``, ``sigma(t)`` and optionally ``zero_com``.

        Raises ``NoClosedFormError`` for another process.
        """
        if not (hasattr(process, "alpha") and hasattr(process, "sigma")):
            raise NoClosedFormError(
                "this group needs isotropic Gaussian noise (a process with alpha(t) and sigma(t)),"
                f" not {type(process).__name__}; wrapped noise goes with PeriodicTranslation and"
                " permutations"
            )
        points = xt.shape[-2] if mask is None else mask.sum(-1).to(xt)
        dof = xt.shape[-1] * (points - int(getattr(process, "zero_com", False)))
        alpha, sigma = process.alpha(t).expand(t.shape), process.sigma(t).expand(t.shape)
        variance = sigma.square().clamp_min(TINY).maximum(FLOOR * xt.square().sum((-2, -1)))
        return cls(alpha, variance, torch.as_tensor(dof).to(xt))

    @property
    def log_norm(self) -> Tensor:
        """log of the density's prefactor."""
        return -0.5 * self.dof * torch.log(2 * math.pi * self.variance)

    def log_density(self, xt: Tensor, x1: Tensor) -> Tensor:
        """``log N(x_t; alpha x1, variance)``; ``x1`` may have extra leading axes."""
        residual = xt - self.alpha[..., None, None] * x1
        return self.log_norm - 0.5 * residual.square().sum((-2, -1)) / self.variance

    def at(self, xt: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
        """Log density ``(*L, *B)`` and mean ``(*L, *B, N, D)`` for one point of the orbit."""
        return self.log_density(xt, x1), x1

    def score(self, mean: Tensor, xt: Tensor) -> Tensor:
        """∇ log evidence, from the posterior mean (of a log mixture: the mean of the gradients)."""
        return (self.alpha[..., None, None] * mean - xt) / self.variance[..., None, None]


@dataclass(frozen=True)
class Wrapped:
    """Wrapped-normal noise on the torus of width ``process.wrapped_sigma(t)``; the mean is that of
    the lifted points, ``x_t + sigma² score``."""

    process: object
    t: Tensor
    mask: Tensor | None

    @property
    def _variance(self) -> Tensor:
        return self.process.wrapped_sigma(self.t).square()[..., None, None]

    def log_density(self, xt: Tensor, x1: Tensor) -> Tensor:
        """Sum of log wrapped normals over points and axes."""
        return self.process.log_density(xt, x1, self.t, self.mask)

    def at(self, xt: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
        """Log density ``(*L, *B)`` and mean ``(*L, *B, N, D)`` for one point of the orbit, from one
        kernel."""
        kernel = wrapped_normal(xt - x1, self._variance.sqrt())
        log_density, pull = kernel.log_density.sum(-1), kernel.score
        if self.mask is not None:
            log_density = torch.where(self.mask, log_density, 0.0)
            pull = torch.where(self.mask.unsqueeze(-1), pull, 0.0)
        return log_density.sum(-1), xt + self._variance * pull

    def score(self, mean: Tensor, xt: Tensor) -> Tensor:
        """∇ log evidence, from the posterior mean."""
        return (mean - xt) / self._variance


def noise_of(process, xt: Tensor, t: Tensor, mask: Tensor | None) -> Gaussian | Wrapped:
    """The noise model of a process, by the attributes it has."""
    if hasattr(process, "wrapped_sigma"):
        return Wrapped(process, t, mask)
    return Gaussian.of(process, xt, t, mask)
