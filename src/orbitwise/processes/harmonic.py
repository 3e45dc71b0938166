"""Noise that keeps bonded points together: Gaussian with the inverse of a graph Laplacian as
covariance.

The harmonic prior of conformer models (EigenFold 2304.02198, section 3; ETFlow 2410.22388, section
3.2). With K = 3 L, L the Laplacian of the bonds, one coordinate of all points has the law N(0, σ²
K⁺): independent springs along the bonds, the centre of mass fixed; a bond of a tree has an rms
length of σ. In the *whitened* coordinates y = K^{1/2} x (the symmetric root) this is isotropic
noise at zero centre of mass. Rotations act on the other axis and commute with K^{1/2}; a renaming
of the points commutes with it where it keeps the bonds, as an automorphism does. So an orbit
posterior under this noise is that of the whitened points: ``orbit_posterior`` does it, and for
rotations the parameter is F = (α/σ²) x_tᵀ K x_1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.base import unrounded
from orbitwise.processes.base import Process
from orbitwise.processes.gaussian import Flow, GaussianProcess, beside, centre, standard_normal
from orbitwise.processes.times import refuse_other_than_tensors, refuse_outside

STIFFNESS = 3.0  # the mean squared length of a bond is 3/STIFFNESS · σ²
_ZERO = (
    1e-4  # eigenvalues below are zero; the smallest others of a chain of n points are about 10/n²
)


class Bonded(Protocol):
    """A batch of points with bonds; it may hold their ``springs`` too."""

    @property
    def bonds(self) -> Tensor:
        """``(*B, N, N)``, anything but 0 is a bond."""

    @property
    def mask(self) -> Tensor:
        """``(*B, N)``, True = real point."""


@dataclass(frozen=True)
class Springs:
    """``K = V diag(λ) Vᵀ`` of each item: ``vectors: (*B, N, N)``, ``values: (*B, N)`` (0: no
    spring)."""

    vectors: Tensor
    values: Tensor

    @classmethod
    def of(cls, bonds: Tensor, mask: Tensor) -> Springs:
        """From ``bonds: (*B, N, N)`` (anything but 0 is a bond) and ``mask: (*B, N)``; worked out
        in float64.

        Raises ``InputError`` for an item whose points are not all joined by bonds.
        """
        real = mask[..., None] & mask[..., None, :]
        joined = ((bonds != 0) & real).double()
        joined = joined - torch.diag_embed(joined.diagonal(dim1=-2, dim2=-1))
        values, vectors = torch.linalg.eigh(STIFFNESS * (torch.diag_embed(joined.sum(-1)) - joined))
        values = torch.where(values > _ZERO, values, 0.0)
        loose = ((values == 0).sum(-1) - (~mask).sum(-1)) != 1
        if loose.any():
            item = loose.nonzero()[0].tolist()
            raise InputError(
                f"item {item[0] if len(item) == 1 else tuple(item)}: its points are not all joined"
                " by bonds; the harmonic prior needs one connected molecule (use the gaussian"
                " prior otherwise)"
            )
        return cls(vectors, values)

    def whiten(self, x: Tensor) -> Tensor:
        """``K^{1/2} x``; ``x: (*L, *B, N, D)``."""
        return self._scaled(x, self.values.sqrt())

    def colour(self, y: Tensor) -> Tensor:
        """``K^{-1/2} y``, at zero centre of mass."""
        return self._scaled(y, torch.where(self.values > 0, self.values, torch.inf).rsqrt())

    def _scaled(self, x: Tensor, root: Tensor) -> Tensor:
        vectors = self.vectors.to(x)
        with unrounded(x):
            return vectors @ (root.to(x)[..., None] * (vectors.mT @ x))

    def __getitem__(self, index: Tensor | slice | int) -> Springs:
        return Springs(self.vectors[index], self.values[index])

    def to(self, device: torch.device | str) -> Springs:
        return Springs(self.vectors.to(device), self.values.to(device))


@dataclass(frozen=True)
class HarmonicProcess(Process):
    """``p_t(x_t | x_1) = N(α(t) x_1, σ(t)² K⁺)`` at zero centre of mass, α and σ those of
    ``schedule``.

    ``springs`` are those of one batch: ``process.on(batch)`` reads ``batch.springs``, or finds them
    from ``batch.bonds`` and ``batch.mask``. Without any (None) all points are joined alike, which
    is the isotropic noise of zero centre of mass.
    >>> import torch
    >>> import orbitwise as ow
    >>> from orbitwise.processes import Springs
    >>> chain = torch.diag(torch.ones(3), 1) + torch.diag(torch.ones(3), -1)  # four points in a row
    >>> springs = Springs.of(chain[None], torch.ones(1, 4, dtype=torch.bool))
    >>> noise = ow.HarmonicProcess(springs=springs).noise(torch.zeros(50_000, 4, 3))
    >>> bond = (noise[:, 1] - noise[:, 0]).square().sum(-1).mean().sqrt()
    >>> round(bond.item(), 1)  # the rms length of a bond, in units of sigma
    1.0
    """

    schedule: GaussianProcess = field(default_factory=Flow)
    springs: Springs | None = None
    zero_com = True

    def on(self, batch: Bonded) -> HarmonicProcess:
        """The process on the points of a batch."""
        springs = getattr(batch, "springs", None)
        return replace(
            self, springs=Springs.of(batch.bonds, batch.mask) if springs is None else springs
        )

    def alpha(self, t: Tensor) -> Tensor:
        return self.schedule.alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.schedule.sigma(t)

    def time_at_ratio(self, ratio: Tensor) -> Tensor:
        """As in ``GaussianProcess``."""
        return self.schedule.time_at_ratio(ratio)

    def whiten(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Coordinates in which the noise is isotropic: ``K^{1/2} x``, shape of ``x``."""
        x = self.project(x, mask)
        return x if self.springs is None else self.springs.whiten(x)

    def colour(self, y: Tensor) -> Tensor:
        """The inverse of ``whiten`` on points of zero centre of mass."""
        return y if self.springs is None else self.springs.colour(y)

    @property
    def isotropic(self) -> GaussianProcess:
        """The process of the whitened points."""
        return replace(self.schedule, zero_com=True)  # type: ignore[type-var]  # all are dataclasses

    def log_volume(self, space: int = 3) -> Tensor:
        """log of how much ``whiten`` stretches volumes, ``(*B)``: adds to a log density of whitened
        points."""
        if self.springs is None:
            return torch.zeros(())
        values = self.springs.values
        return 0.5 * space * torch.where(values > 0, values, 1.0).log().sum(-1)

    def project(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """To zero centre of mass, padded rows to 0."""
        return centre(x, mask) if mask is None else centre(x, mask) * mask.unsqueeze(-1)

    def noise(
        self,
        like: Tensor,
        *,
        generator: torch.Generator | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """N(0, K⁺), shape of ``like: (*B, N, D)``; 0 on padded rows."""
        eps = standard_normal(like.shape, generator, like.device, like.dtype)
        return self.colour(self.project(eps, mask))

    def prior(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        mask: Tensor | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """``x`` at t = 0, as in ``GaussianProcess``."""
        if device is None:
            device = (
                mask.device if mask is not None else None if generator is None else generator.device
            )
        like = torch.empty(tuple(shape), device=device, dtype=dtype)
        return self.sigma(like.new_zeros(())) * self.noise(like, generator=generator, mask=mask)

    def perturb(
        self,
        x1: Tensor,
        t: Tensor,
        *,
        generator: torch.Generator | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        refuse_other_than_tensors(x1=x1, t=t, mask=mask)
        refuse_outside(t)
        eps = self.noise(x1, generator=generator, mask=mask)
        return beside(self.alpha(t)) * self.project(x1, mask) + beside(self.sigma(t)) * eps

    def log_density(self, xt: Tensor, x1: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        refuse_other_than_tensors(xt=xt, x1=x1, t=t, mask=mask)
        refuse_outside(t)
        r = self.whiten(xt - beside(self.alpha(t)) * x1, mask)
        real = torch.ones(r.shape[:-1], dtype=torch.bool, device=r.device) if mask is None else mask
        variance = self.sigma(t) ** 2
        freedom = r.shape[-1] * (real.sum(-1) - 1).clamp_min(0)
        log_norm = freedom * torch.log(2 * math.pi * variance)
        return self.log_volume(r.shape[-1]).to(r) - 0.5 * (
            r.square().sum((-2, -1)) / variance + log_norm
        )

    def score(self, xt: Tensor, x1: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        refuse_other_than_tensors(xt=xt, x1=x1, t=t, mask=mask)
        refuse_outside(t)
        r = self.whiten(xt - beside(self.alpha(t)) * x1, mask)
        r = r if self.springs is None else self.springs.whiten(r)
        return -r / beside(self.sigma(t) ** 2)
