"""Mixtures of von Mises laws of angles: density, samples, divergence. Angles in radians.

Mardia and Jupp, Directional Statistics, 2000, section 3.5; mixtures of torsions after Swanson,
Williams, Jonas, arXiv 2306.07472.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.errors import InputError

LOG_TURN = math.log(2 * math.pi)
# Below, the law is uniform to float64; above, it is normal to 1e-6 of its width.
UNIFORM_BELOW, NORMAL_ABOVE = 1e-8, 1e6
ROUNDS = 5  # of rejection that are drawn together


def log_von_mises(angle: Tensor, mean: Tensor, concentration: Tensor) -> Tensor:
    """Log density ``κ cos(θ - μ) - log 2πI₀(κ)`` of angles, all three broadcast together.

    Written with the scaled Bessel function and ``cos d - 1 = -2 sin² d/2``, so that nothing
    overflows or cancels in float32 for κ from 0 to 1e4 and beyond.
    """
    away = ((angle - mean) / 2).sin().square()
    scale: Tensor = torch.special.i0e(concentration)
    return -2 * concentration * away - LOG_TURN - scale.log()


def sample_von_mises(
    mean: Tensor, concentration: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """One angle in [-π, π) for every ``mean`` and ``concentration`` (broadcast together), drawn in
    float64 and given in their dtype.

    Rejection from a wrapped Cauchy law (Best and Fisher, Applied Statistics 28, 152, 1979), at
    least two thirds accepted per round: all that are left are drawn again together.
    """
    mean, concentration = torch.broadcast_tensors(mean, concentration)
    kappa = concentration.detach().double().reshape(-1)
    where = mean.device if generator is None else generator.device

    def uniform(count: int, rows: int) -> Tensor:
        drawn = torch.rand(rows, count, generator=generator, device=where, dtype=torch.float64)
        return drawn.to(mean.device)

    start, side, first = uniform(kappa.numel(), 3)
    flat, narrow = kappa < UNIFORM_BELOW, kappa > NORMAL_ABOVE
    # Box and Muller for the narrow laws; any angle for the flat ones.
    normal = (-2 * (1 - first).log()).sqrt() * (math.pi * start).cos()
    away = torch.where(narrow, normal.abs() * kappa.clamp_min(1.0).rsqrt(), math.pi * start)

    left = (~(flat | narrow)).nonzero().squeeze(-1)
    tau = 1 + (1 + 4 * kappa.square()).sqrt()
    rho = (tau - (2 * tau).sqrt()) / (2 * kappa)
    # For small κ the difference cancels; there r = 1/κ + κ to third order.
    r = torch.where(kappa < 1e-4, 1 / kappa + kappa, (1 + rho.square()) / (2 * rho))
    rounds = ROUNDS  # at once, which are enough for nearly all; then one by one
    while len(left):
        u1, u2 = uniform(rounds * len(left), 2).view(2, rounds, -1)
        z, near, k = (math.pi * u1).cos(), r[left], kappa[left]
        cosine = (1 + near * z) / (near + z)
        c = k * (near - cosine)
        taken = (c / (1 - u2)).log() + 1 - c >= 0
        first = taken.to(torch.uint8).argmax(0, keepdim=True)
        cosine, taken = cosine.gather(0, first)[0], taken.any(0)
        away = away.index_put((left[taken],), cosine[taken].clamp(-1, 1).acos())
        left, rounds = left[~taken], 1

    turn = torch.where(side < 0.5, -away, away).view(mean.shape) + mean.detach().double()
    return wrap_angle(turn).to(mean.dtype)


def wrap_angle(angle: Tensor) -> Tensor:
    """The same angle in [-π, π)."""
    return (angle + math.pi).remainder(2 * math.pi) - math.pi


@dataclass(frozen=True, eq=False)
class VonMisesMixture:
    """``Σ_k w_k vM(θ; μ_k, κ_k)`` for a batch of angles.

    ``log_weight, mean, concentration: (*B, K)``; the weights are normalised here. κ = 0 is the
    uniform law. Raises ``InputError`` for shapes that differ.
    >>> import torch
    >>> from orbitwise.processes import VonMisesMixture
    >>> butane = VonMisesMixture(
    ...     torch.tensor([0.2, 0.6, 0.2]).log(),
    ...     torch.tensor([-1.1, 3.1416, 1.1]),
    ...     torch.tensor([15.0, 20.0, 15.0]),
    ... )
    >>> angles = butane.sample((1000,), generator=torch.Generator().manual_seed(0))
    >>> bool((angles.abs() > 2).double().mean().sub(0.6).abs() < 0.05)
    True
    """

    log_weight: Tensor
    mean: Tensor
    concentration: Tensor

    def __post_init__(self) -> None:
        if not self.log_weight.shape == self.mean.shape == self.concentration.shape:
            raise InputError(
                "a mixture of angles needs log_weight, mean, concentration of one shape (*B, K),"
                f" got {tuple(self.log_weight.shape)}, {tuple(self.mean.shape)},"
                f" {tuple(self.concentration.shape)}"
            )

    @property
    def products(self) -> ProductMixture:
        """The same law as products over one angle."""
        return ProductMixture(
            self.log_weight, self.mean.unsqueeze(-1), self.concentration.unsqueeze(-1)
        )

    @property
    def reflected(self) -> VonMisesMixture:
        """The law of -θ: that of the mirror image of a molecule."""
        return VonMisesMixture(self.log_weight, -self.mean, self.concentration)

    def log_density(self, angle: Tensor) -> Tensor:
        """``(*S, *B) -> (*S, *B)``, per radian."""
        return self.products.log_density(angle.unsqueeze(-1))

    def sample(
        self, shape: tuple[int, ...] = (), *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Independent angles in [-π, π), ``(*shape, *B)``."""
        return self.products.sample(shape, generator=generator).squeeze(-1)

    def on_grid(self, count: int) -> Tensor:
        """Log density at ``count`` even angles from -π on, ``(*B, count)``."""
        grid = even_angles(count, self.mean)
        return self.log_density(grid.view(-1, *[1] * (self.mean.ndim - 1))).movedim(0, -1)

    def kl_from(self, p: Tensor) -> Tensor:
        """``KL(p ‖ self)`` in nats, ``(*B)``: ``p: (*B, n)`` are the shares of n even angles from
        -π on, where alone p is known; the mixture has its shares of the same angles (1 in sum, so
        that a component narrower than the grid gains nothing)."""
        log_q = self.on_grid(p.shape[-1]).log_softmax(-1)
        return (torch.xlogy(p, p) - p * log_q).sum(-1)


@dataclass(frozen=True, eq=False)
class ProductMixture:
    """``Σ_k w_k Π_d vM(θ_d; μ_kd, κ_kd)``: a law of D angles that keeps how they go together.

    ``log_weight: (*B, K)``; ``mean, concentration: (*B, K, D)``.
    """

    log_weight: Tensor
    mean: Tensor
    concentration: Tensor

    def __post_init__(self) -> None:
        if not self.log_weight.shape == self.mean.shape[:-1] == self.concentration.shape[:-1]:
            raise InputError(
                "a mixture of D angles needs log_weight (*B, K) and mean, concentration (*B, K, D),"
                f" got {tuple(self.log_weight.shape)}, {tuple(self.mean.shape)},"
                f" {tuple(self.concentration.shape)}"
            )

    def log_components(self, angle: Tensor) -> Tensor:
        """``log w_k + log p_k(θ)``: ``(*S, *B, D) -> (*S, *B, K)``."""
        each = log_von_mises(angle.unsqueeze(-2), self.mean, self.concentration).sum(-1)
        return self.log_weight.log_softmax(-1) + each

    def log_density(self, angle: Tensor) -> Tensor:
        """``(*S, *B, D) -> (*S, *B)``."""
        return self.log_components(angle).logsumexp(-1)

    def sample(
        self, shape: tuple[int, ...] = (), *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Independent draws in [-π, π), ``(*shape, *B, D)``."""
        lead = (*shape, *self.log_weight.shape[:-1])
        where = self.mean.device if generator is None else generator.device
        u = torch.rand((*lead, 1), generator=generator, device=where, dtype=torch.float64)
        edges = self.log_weight.detach().double().softmax(-1).cumsum(-1)[..., :-1].contiguous()
        pick = (u.to(edges.device) > edges).sum(-1, keepdim=True).unsqueeze(-1)

        def chosen(value: Tensor) -> Tensor:
            return value.expand(*lead, *value.shape[-2:]).take_along_dim(pick, -2).squeeze(-2)

        return sample_von_mises(chosen(self.mean), chosen(self.concentration), generator=generator)


def even_angles(count: int, like: Tensor) -> Tensor:
    """``count`` angles ``-π, -π + 2π/count, ...``, in the dtype and on the device of ``like``."""
    steps = torch.arange(count, dtype=like.dtype, device=like.device)
    return -math.pi + 2 * math.pi / count * steps
