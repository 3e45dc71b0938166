"""What an orbit needs of a process: the density of ``x_t`` around one point of the orbit, and its
score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.torus import wrapped_normal

# smallest variance, relative to |x_t|²: keeps sigma = 0 finite, below what float64 resolves
FLOOR = 1e-20
TINY = 1e-200


@runtime_checkable
class Process(Protocol):
    """What ``orbit_posterior`` asks of Gaussian noise: ``x_t = alpha(t) x_1 + sigma(t) ε``.

    Any object with these two methods will do; ``GaussianProcess`` is one. An attribute ``zero_com =
    True`` says that the noise has zero centre of mass. For noise on the torus see
    ``WrappedProcess``.
    >>> import torch
    >>> import orbitwise as ow
    >>> class Linear:
    ...     def alpha(self, t):
    ...         return t
    ...
    ...     def sigma(self, t):
    ...         return 1 - t
    >>> isinstance(Linear(), ow.Process)
    True
    >>> x = torch.eye(3)
    >>> mean = ow.orbit_posterior(ow.SO3(), Linear(), x, x, 0.5).mean
    >>> round(mean[0, 0].item(), 4)
    0.7212
    """

    def alpha(self, t: Tensor) -> Tensor:
        """Signal coefficient, ``(*B) -> (*B)``."""

    def sigma(self, t: Tensor) -> Tensor:
        """Noise standard deviation per coordinate, in the units of the data, ``(*B) -> (*B)``."""


@runtime_checkable
class WrappedProcess(Protocol):
    """What ``orbit_posterior`` asks of noise on the torus: ``x_t = x_1 + sigma ε`` modulo 1.

    Any object with this method will do; ``WrappedNormalProcess`` is one.
    >>> import torch
    >>> import orbitwise as ow
    >>> class Constant:
    ...     def wrapped_sigma(self, t):
    ...         return torch.full_like(t, 0.1)
    >>> isinstance(Constant(), ow.WrappedProcess)
    True
    >>> x = torch.tensor([[0.2], [0.9]])
    >>> post = ow.orbit_posterior(ow.PeriodicTranslation(1), Constant(), x, x + 0.4, 0.0)
    >>> round(post.score.abs().max().item(), 3)  # a common shift is no news
    0.0
    """

    def wrapped_sigma(self, t: Tensor) -> Tensor:
        """Standard deviation before wrapping, in fractions of the cell, ``(*B) -> (*B)``."""


@runtime_checkable
class WhitenedProcess(Process, Protocol):
    """Correlated Gaussian noise that is isotropic in other coordinates (processes.harmonic)."""

    @property
    def isotropic(self) -> Process:
        """The process of the whitened points."""

    def whiten(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """To the coordinates in which the noise is isotropic, shape of ``x``."""

    def colour(self, y: Tensor) -> Tensor:
        """Back from them."""

    def log_volume(self, space: int = 3) -> Tensor:
        """log of how much ``whiten`` stretches volumes, ``(*B)``."""


def per_item(process: object, name: str, t: Tensor) -> Tensor:
    """``process.alpha``, ``.sigma`` or ``.wrapped_sigma`` at ``t: (*B)``: one number per item.

    Raises ``InputError`` for any other shape, such as one number per point.
    """
    value = torch.as_tensor(getattr(process, name)(t)).to(t)
    if value.ndim and value.shape != t.shape:
        raise InputError(
            f"{type(process).__name__}.{name}(t) has shape {tuple(value.shape)} for t of shape"
            f" {tuple(t.shape)}: it must be one number per item. For noise that differs from point"
            " to point give ow.orbit_posterior weights=, (*B, N): sigma_i = sigma/√w_i"
        )
    return value.expand(t.shape)


def zero_com(process: Process | WrappedProcess) -> bool:
    """Whether the noise of a process has zero centre of mass."""
    return bool(getattr(process, "zero_com", False))


def centred(x: Tensor, mask: Tensor | None) -> Tensor:
    """Less the mean of the real points; padded rows 0."""
    if mask is None:
        return x - x.mean(-2, keepdim=True)
    x = torch.where(mask[..., None], x, 0.0)
    return x - mask[..., None] * (x.sum(-2, keepdim=True) / mask.sum(-1)[..., None, None])


def square_of(x: Tensor) -> Tensor:
    """``Σ x²`` of each item, in one pass; ``x: (*B, N, D)``."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=(-2, -1))
    return norm.square()


@dataclass(frozen=True)
class Gaussian:
    """``N(x_t; alpha x1, variance)`` in ``dof`` dimensions; all ``(*B)``, float64."""

    alpha: Tensor
    variance: Tensor
    dof: Tensor

    @classmethod
    def of(
        cls, process: Process | WrappedProcess, xt: Tensor, t: Tensor, mask: Tensor | None
    ) -> Gaussian:
        """Read off any process with ``alpha(t)``, ``sigma(t)`` and optionally ``zero_com``.

        Raises ``NoClosedFormError`` for another process.
        """
        if not isinstance(process, Process):
            raise NoClosedFormError(
                "this group needs isotropic Gaussian noise (a process with alpha(t) and sigma(t)),"
                f" not {type(process).__name__}; wrapped noise goes with PeriodicTranslation and"
                " permutations"
            )
        points = xt.shape[-2] if mask is None else mask.sum(-1).to(xt)
        dof = xt.shape[-1] * (points - int(zero_com(process)))

        alpha, sigma = (per_item(process, name, t) for name in ("alpha", "sigma"))
        variance = sigma.square().clamp_min(TINY).maximum(FLOOR * square_of(xt))
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
    """Wrapped-normal noise on the torus, ``sigma: (*B)``; the mean is that of the lifted points,
    ``x_t + sigma² score``."""

    sigma: Tensor
    mask: Tensor | None

    def log_density(self, xt: Tensor, x1: Tensor) -> Tensor:
        """Sum of log wrapped normals over points and axes."""
        return self.at(xt, x1)[0]

    def at(self, xt: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
        """Log density ``(*L, *B)`` and mean ``(*L, *B, N, D)`` for one point of the orbit, from one
        kernel."""
        sigma = self.sigma[..., None, None]
        kernel = wrapped_normal(xt - x1, sigma)
        log_density, pull = kernel.log_density.sum(-1), kernel.score

        if self.mask is not None:
            log_density = torch.where(self.mask, log_density, 0.0)
            pull = torch.where(self.mask.unsqueeze(-1), pull, 0.0)
        return log_density.sum(-1), xt + sigma.square() * pull

    def score(self, mean: Tensor, xt: Tensor) -> Tensor:
        """∇ log evidence, from the posterior mean."""
        return (mean - xt) / self.sigma.square()[..., None, None]


def noise_of(
    process: Process | WrappedProcess, xt: Tensor, t: Tensor, mask: Tensor | None
) -> Gaussian | Wrapped:
    """The noise model of a process, by the methods it has."""
    if isinstance(process, WrappedProcess):
        return Wrapped(per_item(process, "wrapped_sigma", t), mask)
    return Gaussian.of(process, xt, t, mask)
