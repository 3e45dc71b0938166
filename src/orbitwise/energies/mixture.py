"""Gaussian mixtures: every density, score and sample in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError


class GaussianMixture(Energy):
    """``U(x) = -log Σ_k w_k N(x; means_k, scales_k²)``, normalised: ``log_z = 0``.

    ``means: (K, *event)``; ``scales``: standard deviations, a number, ``(K,)`` or the shape of
    ``means``; ``weights: (K,)`` (default equal; normalised here). ``x: (*B, *event)``.
    """

    def __init__(self, means: Tensor, scales: Tensor | float = 1.0, weights: Tensor | None = None):
        super().__init__()
        means = torch.as_tensor(means)
        count = means.shape[0]
        scales = torch.as_tensor(scales, dtype=means.dtype, device=means.device)
        if scales.shape == (count,):
            scales = scales.view(-1, *[1] * (means.ndim - 1))
        weights = means.new_ones(count) if weights is None else torch.as_tensor(weights).to(means)
        if (
            means.ndim < 2
            or weights.shape != (count,)
            or (scales.ndim and scales.shape[0] != count)
        ):
            raise InputError(
                "a mixture needs means (K, *event), scales () or (K,) or (K, *event) and weights"
                f" (K,); got {tuple(means.shape)}, {tuple(scales.shape)}, {tuple(weights.shape)}"
            )

        if not (scales > 0).all() or not (weights > 0).all():
            raise InputError("the scales and weights of a mixture must be positive")
        self.event_shape = tuple(means.shape[1:])
        self.log_z = 0.0
        self.register_buffer("means", means)
        self.register_buffer("scales", scales.expand_as(means).contiguous())
        self.register_buffer("weights", weights / weights.sum())
        constants = (
            self.weights.log()
            - self.scales.log().flatten(1).sum(1)
            - 0.5 * math.log(2 * math.pi) * math.prod(self.event_shape)
        )
        self.register_buffer("constants", constants)

    @classmethod
    def forty(cls) -> GaussianMixture:
        """The 40-component mixture in the plane of FAB (Midgley et al. 2023, arXiv 2208.01893).

        Means uniform in [-40, 40]² from seed 0, standard deviation softplus(1) = 1.3133, equal
        weights.
        """
        draw = torch.rand(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
        return cls((draw - 0.5) * 80.0, math.log1p(math.e))

    def _log_terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised residuals ``(*B, K, *event)`` and log joint densities ``(*B, K)``."""
        event = len(self.event_shape)
        means, scales = self.means.to(x.dtype), self.scales.to(x.dtype)
        residual = (x.unsqueeze(-1 - event) - means) / scales
        square = residual.square().flatten(-event).sum(-1)
        return residual, self.constants.to(x.dtype) - 0.5 * square

    def forward(self, x: Tensor) -> Tensor:
        return -self._log_terms(x)[1].logsumexp(-1)

    @torch.no_grad()
    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        residual, terms = self._log_terms(x)
        # ∇U = Σ_k p(k | x) (x - m_k) / s_k²
        share = terms.softmax(-1).view(*terms.shape, *[1] * len(self.event_shape))
        grad = (share * residual / self.scales.to(x.dtype)).sum(-1 - len(self.event_shape))
        return -terms.logsumexp(-1), grad

    @torch.no_grad()
    def sample(self, shape: Sequence[int], *, generator: torch.Generator | None = None) -> Tensor:
        """Exact samples ``(*shape, *event)``."""
        device = generator.device if generator is not None else self.means.device
        which = torch.multinomial(
            self.weights.to(device), math.prod(shape), replacement=True, generator=generator
        )
        noise = torch.randn(
            (len(which), *self.event_shape),
            generator=generator,
            device=device,
            dtype=self.means.dtype,
        )
        which, noise = which.to(self.means.device), noise.to(self.means.device)
        return (self.means[which] + self.scales[which] * noise).view(*shape, *self.event_shape)
