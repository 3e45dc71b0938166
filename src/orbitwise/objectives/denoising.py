"""Denoising with interchangeable targets: what of the symmetry's noise the regression still sees.

Theorem 1 (Rao-Blackwell; 2502.09890, theorem 1). Let ``g`` be Haar distributed and ``x_t ~ p_t(. |
g·x_1)``. A network that regresses ``g·x_1`` on ``x_t`` with a squared loss and one that regresses

    E[g·x_1 | x_t, orbit of x_1] = ∫ g·x_1 p(g | x_t, x_1)

have the same expected gradient, and the gradient of the second has the smaller covariance: what is
gone is the covariance given (x_t, orbit). Three things are needed for it. (1) ``x_t`` comes from a
*random* point of the orbit: with ``x_t ~ p_t(. | x_1)`` for the fixed ``x_1`` of the file, the
conditional mean given x_t would be ``x_1`` itself, and a network without the symmetry would learn
only the file's poses. (For an exactly equivariant network and loss, g drops out and changes
nothing.) (2) The loss is squared: only then does the minimiser depend on the target through its
conditional mean. (3) Nothing else of the draw of g enters the target: an endpoint prediction has
this property; a velocity written with the raw noise does not.

The exact posterior may be asked with ``x_1`` or with ``g·x_1``, Haar measure being invariant. The
importance sampler is asked with the point that made ``x_t`` and keeps it among its proposals. That
makes the points exchangeable: given x_t and the *unordered* set {g_0·x_1, ..., g_K·x_1} of
independent Haar points, the one that made ``x_t`` is the i-th with probability ∝ p_t(x_t |
g_i·x_1), so the weighted mean is E[g·x_1 | x_t, set]: a Rao-Blackwell target too, unbiased for
every K, which merely removes less. Without that point it is biased.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.base import Group
from orbitwise.groups.product import Product
from orbitwise.objectives.denoiser import Preconditioning
from orbitwise.orbits.posterior.entrance import orbit_posterior
from orbitwise.processes.gaussian import GaussianProcess, beside


def looks_at_values(x: Tensor) -> bool:
    """Whether the posterior looks for NaN: an accelerator would have to wait for it, and the
    training finds a loss that is not finite by its gradient. Products look at values anyway, for
    the images that cannot matter."""
    return x.device.type == "cpu"


TARGETS = {"augmentation": None, "aligned": "mode", "snis": "snis", "exact": "exact"}


def uniform_times(u: Tensor, process: GaussianProcess, scale: Tensor) -> Tensor:
    """Uniform on [0.001, 0.999]: the ends, where a process may have no signal or no noise, are left
    out."""
    return 1e-3 + (1 - 2e-3) * u


def lognormal_ratios(u: Tensor, process: GaussianProcess, scale: Tensor) -> Tensor:
    """ln(σ/(α s)) ~ N(−0.5, 1.2²), cut at 10^±3 (Karras 2206.00364, table 1: P_mean −1.2, s
    0.5)."""
    ratio = (1.2 * torch.special.ndtri(u) - 0.5).exp().clamp(1e-3, 1e3)
    return process.time_at_ratio(ratio * scale)


def late_times(u: Tensor, process: GaussianProcess, scale: Tensor) -> Tensor:
    """0.02 U(0, 1) + 0.98 Beta(1.9, 1), most draws near the data (Proteina, 2503.00710, section
    3.2), cut as above."""
    t = torch.where(u < 0.02, u / 0.02, ((u - 0.02).clamp_min(0) / 0.98) ** (1 / 1.9))
    return t.clamp(1e-3, 1 - 1e-3)


def fine_ratios(u: Tensor, process: GaussianProcess, scale: Tensor) -> Tensor:
    """ln(σ/(α s)) ~ N(−1.2, 1.5²), cut as above: more draws at the noise of bond lengths, for whole
    molecules."""
    ratio = (1.5 * torch.special.ndtri(u) - 1.2).exp().clamp(1e-3, 1e3)
    return process.time_at_ratio(ratio * scale)


TIMES: dict[str, Callable[[Tensor, GaussianProcess, Tensor], Tensor]] = {
    "uniform": uniform_times,
    "lognormal": lognormal_ratios,
    "fine": fine_ratios,
    "late": late_times,
}


@dataclass(frozen=True)
class Denoising:
    """``(denoiser, batch, generator) -> losses (B,)``: weighted squared error of the endpoint.

    ``target``: ``"augmentation"`` regresses on ``g·x_1`` itself, ``"aligned"`` on the most probable
    point of the orbit (biased at every σ > 0), ``"snis"`` on the mean over ``proposals`` Haar
    points of the orbit, the one that made ``x_t`` among them, weighted by p_t(x_t | g·x_1)
    (unbiased, removes less), ``"exact"`` on the posterior mean. In all four ``x_t`` comes from a
    Haar random point of the orbit. ``times``: ``"lognormal"`` and ``"fine"`` in the noise ratio,
    ``"uniform"`` or ``"late"`` in t; the draws are stratified over the batch (one random shift,
    each t on its own has the stated law).

    ``group`` may be a function of the batch, for items that differ in their symmetry, and a process
    with a method ``on`` (``HarmonicProcess``) is bound to the batch.

    The loss of an item is the mean over its real points and coordinates of ``|D −
    target|²/c_out²``. Raises ``InputError`` for an unknown name, ``NoClosedFormError`` for
    ``"exact"`` where there is none.
    """

    process: GaussianProcess
    group: Group | Callable[[Any], Group]
    target: str = "exact"
    proposals: int = 256
    times: str = "lognormal"

    def __post_init__(self):
        for value, known, what in ((self.target, TARGETS, "target"), (self.times, TIMES, "times")):
            if value not in known:
                raise InputError(f"unknown {what} {value!r}; use one of {', '.join(known)}")

    def __call__(self, denoiser, batch, generator: torch.Generator | None = None) -> Tensor:
        """``denoiser(x_t, t, batch)`` has ``data_scale``; ``batch`` has ``x (B, N, 3)``, ``mask (B,
        N)``."""
        # a rotation matrix or a posterior in half precision would undo what is gained here
        with torch.no_grad(), torch.autocast(batch.x.device.type, enabled=False):
            t = self.draw_times(len(batch.x), denoiser.data_scale, generator).to(batch.x)
            xt, target = self.on(batch).pair(batch.x, t, batch.mask, generator)
        weight = Preconditioning.of(self.process, t, denoiser.data_scale.to(t)).weight
        return self.loss(denoiser(xt, t, batch), target, weight, batch.mask)

    def on(self, batch) -> Denoising:
        """With the group and the process of this batch."""
        group = self.group if isinstance(self.group, Group) else self.group(batch)
        process = self.process.on(batch) if hasattr(self.process, "on") else self.process
        return replace(self, group=group, process=process)

    def draw_times(self, number: int, scale: Tensor, generator: torch.Generator | None) -> Tensor:
        """Stratified times ``(number,)``, float64, on the device of ``scale``."""
        where = scale.device if generator is None else generator.device
        shift = torch.rand((), generator=generator, device=where, dtype=torch.float64).to(
            scale.device
        )
        u = (shift + torch.arange(number, device=scale.device, dtype=torch.float64)) / number
        order = torch.randperm(number, generator=generator, device=where).to(scale.device)
        return TIMES[self.times](u[order], self.process, scale.double())

    def pair(
        self, x1: Tensor, t: Tensor, mask: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """``x_t`` from a random point of the orbit of ``x1: (B, N, 3)``, and the target for it."""
        x1 = self.process.project(x1, mask)
        g = self.group.sample(x1.shape[:1], generator=generator, device=x1.device, dtype=x1.dtype)
        moved = self.group.act(g, x1, mask=mask)
        xt = self.process.perturb(moved, t, generator=generator, mask=mask)
        method = TARGETS[self.target]
        if method is None:
            return xt, moved
        options = (
            {"proposals": self.proposals, "include_identity": True} if method == "snis" else {}
        )
        post = orbit_posterior(
            self.group,
            self.process,
            x1=moved,
            xt=xt,
            t=t,
            mask=mask,
            method=method,
            check=looks_at_values(xt) or isinstance(self.group, Product),
            generator=generator,
            **options,
        )
        return xt, post.mean.to(x1)

    @staticmethod
    def loss(estimate: Tensor, target: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """``weight · mean |estimate − target|²`` over real points and coordinates, ``(B,)``."""
        square = (estimate - target).square() * beside(weight)
        real = mask.unsqueeze(-1)
        return (square * real).sum((-2, -1)) / (real.sum((-2, -1)) * square.shape[-1]).clamp_min(1)
