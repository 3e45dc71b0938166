"""Novelty by random network distillation (Burda et al. 2018, arXiv 1810.12894) as part of an
energy: where the trained network fails, nobody has been."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.networks.distillation import Distillation, RandomWaves
from orbitwise.search.clean import Clean, Overlaid


class Coordinates(nn.Module):
    """The coordinates of ``x: (*B, *event)`` as they are, ``(*B, F)``: for vectors without a
    symmetry."""

    def __init__(self, event_shape: Sequence[int]):
        super().__init__()
        self.event_dims, self.size = len(event_shape), math.prod(event_shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(x.ndim - self.event_dims)


class PairHistogram(nn.Module):
    """Soft histograms of the pair distances of points ``(*B, N, D)``, invariant under rotation,
    reflection, translation and permutation of points of one species: ``(*B, F)``.

    ``bins`` Gaussian bins between 0 and ``r_max``, as wide as they are apart; distances beyond
    count in the last. ``species: (N,)`` integers give each pair of species a histogram of its own
    (default: all alike).
    """

    def __init__(self, n_points: int, r_max: float, bins: int = 32, species: Tensor | None = None):
        super().__init__()
        if n_points < 2 or bins < 2 or not r_max > 0:
            raise InputError("a histogram of pair distances needs 2 points, 2 bins and r_max > 0")
        species = (
            torch.zeros(n_points, dtype=torch.long) if species is None else torch.as_tensor(species)
        )
        first, second = torch.triu_indices(n_points, n_points, 1)
        kinds = torch.stack([species[first], species[second]], -1).sort(-1).values
        _, kind = kinds.unique(dim=0, return_inverse=True)
        one_hot = nn.functional.one_hot(kind)
        # Share of each kind's pairs: columns of a histogram add up to about a constant.
        self.register_buffer("share", one_hot / one_hot.sum(0).double().clamp_min(1))
        self.register_buffer("pairs", torch.stack([first, second]))
        self.register_buffer("centres", torch.linspace(0.0, float(r_max), bins))
        self.r_max, self.width = float(r_max), float(r_max) / (bins - 1)
        self.size = bins * one_hot.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        difference = x[..., self.pairs[0], :] - x[..., self.pairs[1], :]
        # The small number keeps the derivative of the root finite where two points coincide.
        r = (difference.square().sum(-1) + 1e-12).sqrt().clamp_max(self.r_max)
        soft = torch.exp(-0.5 * ((r.unsqueeze(-1) - self.centres.to(r)) / self.width).square())
        return torch.einsum("...pb,pk->...kb", soft, self.share.to(r)).flatten(-2)


class Novelty(Distillation):
    """How new a point is: ``bonus(x) = ‖f(x) - f_φ(x)‖² / c``, about 1 where nothing was visited.

    f and f_φ see ``features(x)`` (``Coordinates`` or ``PairHistogram``, or any invariant module
    with a ``size``), shifted and scaled to mean 0 and variance 1 of the points of the first
    ``fit``; both are fixed from then on. c is the mean squared error of the untrained f_φ at these
    points, so a weight in front of the bonus is the energy [kT] by which a point that was never
    visited is lowered. The bonus is bounded: exp(-U + weight·bonus) has a normaliser whenever
    exp(-U) has.

    ``length``: distance in scaled feature space over which novelty varies (default ``√size``, the
    spread of the points of the first fit; shorter where modes lie closer than that). So the first
    fit wants points as spread as a whole mode, not one point many times. ``generator`` draws both
    networks. One ``Novelty`` per search; a new one forgets. Move it to its device before the first
    ``fit``.
    """

    def __init__(
        self,
        features: nn.Module,
        *,
        hidden: int = 256,
        out: int = 32,
        length: float | None = None,
        learning_rate: float = 1e-3,
        generator: torch.Generator | None = None,
    ):
        length = math.sqrt(features.size) if length is None else length
        super().__init__(lambda: RandomWaves(features.size, hidden, out, length, generator))
        device = self.target.bias.device
        self.features = features.to(device)
        self.register_buffer("shift", torch.zeros(features.size, device=device))
        self.register_buffer("spread", torch.ones(features.size, device=device))
        self.register_buffer("unseen", torch.tensor(math.inf, device=device))
        self.optimiser = torch.optim.Adam(self.predictor.parameters(), lr=learning_rate)

    def _inputs(self, x: Tensor) -> Tensor:
        # Features in the precision of the points (differences of large coordinates), networks in
        # their own.
        return (self.features(x).to(self.shift.dtype) - self.shift) / self.spread

    def bonus(self, x: Tensor) -> Tensor:
        """``(*B)`` ≥ 0, differentiable in ``x``; 0 everywhere before the first ``fit``."""
        return (self.error(self._inputs(x)) / self.unseen).to(x.dtype)

    @torch.no_grad()
    def _calibrate(self, x: Tensor) -> None:
        features = self.features(x).to(self.shift.dtype)
        self.shift.copy_(features.mean(0))
        # Features that never vary (empty bins) get the overall scale, not a division by nothing.
        spread = features.std(0)
        self.spread.copy_(spread.clamp_min(0.1 * spread.max().clamp_min(1e-6)))
        self.unseen.copy_(self.error(self._inputs(x)).mean())

    def fit(
        self, x: Tensor, steps: int, *, generator: torch.Generator | None = None, batch: int = 256
    ) -> float:
        """Train f_φ for ``steps`` steps of Adam on batches drawn from ``x: (M, *event)``: points
        visited.

        No energy is evaluated. Returns the mean bonus at the points of the last step, before
        it (nan for no steps). Raises
        ``InputError`` for fewer than two points in the first call.
        """
        x = x.detach()
        if self.unseen.isinf():
            if len(x) < 2:
                raise InputError(
                    "novelty is scaled by the points of the first fit: give it at least two"
                )
            self._calibrate(x)
        loss = torch.full_like(self.unseen, math.nan)
        for _ in range(steps):
            device = x.device if generator is None else generator.device
            index = torch.randint(
                len(x), (min(batch, len(x)),), generator=generator, device=device
            ).to(x.device)
            with torch.enable_grad():
                loss = self.error(self._inputs(x[index])).mean() / self.unseen
                self.optimiser.zero_grad(set_to_none=True)
                loss.backward()
            self.optimiser.step()
        return loss.item()


class NoveltyEnergy(Overlaid):
    """``U(x) - weight·bonus(x)``: low energies that nobody has seen (weight in kT, see
    ``Novelty``).

    One value-and-gradient evaluation of the inner energy per point; ``last`` keeps it without the
    bonus.
    """

    def __init__(self, energy: Energy, novelty: Novelty, weight: float):
        super().__init__(energy)
        self.novelty, self.weight = novelty, float(weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) - self.weight * self.novelty.bonus(x)

    def overlay(self, x: Tensor, clean: Clean) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            bonus = self.novelty.bonus(x)
            (slope,) = torch.autograd.grad(
                bonus.sum(), x, allow_unused=True, materialize_grads=True
            )
        return clean.energy - self.weight * bonus.detach(), clean.grad - self.weight * slope
