"""What networks regress on, from one posterior: endpoint, noise, score or velocity.

All are affine in ``E[g·x1 | x_t]`` and ``x_t`` (docs/theory.md, section 1), so the mean of each is
exact where that is. With ``x_t = alpha g·x1 + sigma ε``:

    noise     E[ε | x_t]         = (x_t − alpha mean)/sigma = −sigma score    (isotropic noise)
    velocity  E[dx_t/dt | x_t]   = alpha' mean + sigma' noise

and on the torus, where alpha = 1 and the points are lifted, the same with alpha' = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.orbits.posterior.call.gradients import only, plain
from orbitwise.orbits.posterior.call.ragged import Packing
from orbitwise.orbits.posterior.noise import (
    WhitenedProcess,
    WrappedProcess,
    centred,
    per_item,
    zero_com,
)

Prediction = Literal[
    "x1", "v", "eps", "score", "endpoint", "velocity", "noise"
]  # names of papers, and those of orbitwise.processes
_NAMES = {"x1": "mean", "endpoint": "mean", "v": "velocity", "eps": "noise"}


@dataclass(frozen=True)
class Context:
    """What a posterior was asked about, for the targets that follow from it.

    ``xt: (*B, N, D)`` and ``t: (*B)`` as they went in; ``packing``: of flat points. ``aligned``:
    noise that is no Gaussian given ``x1``, so that the score is not the noise's. ``traced``: the
    points that ``torch.func`` differentiates by.
    """

    process: Any
    xt: Tensor
    t: Tensor
    mask: Tensor | None
    packing: Packing | None = None
    aligned: bool = False
    check: bool = True
    traced: tuple[Tensor, Tensor] | None = None

    def points(self, x: Tensor) -> Tensor:
        """As the solvers have them: float64, ``(*B, N, D)``."""
        x = x.detach().double()
        return x if self.packing is None else self.packing.pack("result", x)

    def noise(self, mean: Tensor, score: Tensor) -> Tensor:
        """E[ε | x_t] in float64, ``(*B, N, D)``, from ``mean`` and ``score`` as handed out."""
        process, sigma = self.process, self.sigma()[..., None, None]
        if self.aligned:
            alpha = per_item(process, "alpha", self.t)[..., None, None]
            x = self.xt.double()
            if zero_com(process):
                x = centred(x, self.mask)
            eps = (x - alpha * self.points(mean)) / sigma
            return eps if self.mask is None else torch.where(self.mask[..., None], eps, 0.0)
        pull = self.points(score)
        if isinstance(process, WhitenedProcess):  # the score is −K (x_t − alpha x1)/sigma²
            pull = process.colour(process.colour(pull))
        return -sigma * pull

    def sigma(self) -> Tensor:
        process = self.process
        name = "wrapped_sigma" if isinstance(process, WrappedProcess) else "sigma"
        sigma = per_item(process, name, self.t)
        if self.check and not (sigma > 0).all():
            raise InputError(
                "noise and velocity are not defined where sigma(t) = 0 (x_t is the data, or the"
                " start of a bridge): keep t away from there, or regress on mean"
            )
        return sigma

    def velocity(self, mean: Tensor, score: Tensor) -> Tensor:
        """E[dx_t/dt | x_t], as ``noise``."""
        process, noise = self.process, self.noise(mean, score)
        if isinstance(process, WrappedProcess):
            rate = slope(process, "wrapped_sigma", self.t)
            return rate[..., None, None] * noise
        da, ds = (slope(process, name, self.t)[..., None, None] for name in ("alpha", "sigma"))
        return da * self.points(mean) + ds * noise

    def handed_out(self, x: Tensor, like: Tensor) -> Tensor:
        """Back in the shape and dtype of the caller's points."""
        x = (x if self.packing is None else self.packing.flat(x)).to(like.dtype)
        return x if self.traced is None else only(x, self.traced, "gradients of a target")


class Assembled(Protocol):
    """The context of a posterior put together from others."""

    def derived(self, name: str) -> Tensor:
        """``noise`` or ``velocity``, from theirs."""


class Targets:
    """The targets of an ``OrbitPosterior``, which gives ``mean``, ``score`` and ``context``."""

    mean: Any
    score: Any
    context: Any

    @property
    def noise(self) -> Tensor:
        """E[ε | x_t], shape of ``x_t``, 0 on padded rows: the target of an ε-prediction.

        On the torus ε is that of the lifted points. Raises ``InputError`` where ``sigma(t) = 0``.
        """
        return self._derived("noise", Context.noise)

    @property
    def velocity(self) -> Tensor:
        """E[dx_t/dt | x_t] = alpha' mean + sigma' noise, shape of ``x_t``: the target of flow
        matching, and the probability flow of the symmetrised data.

        Raises ``InputError`` where ``sigma(t) = 0``, and for a process whose ``alpha`` or ``sigma``
        cannot be differentiated and that has no ``alpha_dot`` and ``sigma_dot``.
        """
        return self._derived("velocity", Context.velocity)

    def target(self, prediction: Prediction) -> Tensor:
        """What a network regresses on: ``"x1"`` (``.mean``), ``"v"`` (``.velocity``), ``"eps"``
        (``.noise``) or ``"score"``, also under the names of ``GaussianProcess.convert``. On the
        torus ``"x1"`` is the mean of the lifted points.
        """
        if prediction not in get_args(Prediction):
            raise InputError(f"prediction {prediction!r} is none of 'x1', 'v', 'eps', 'score'")
        target: Tensor = getattr(self, _NAMES.get(prediction, prediction))
        return target

    def _derived(self, name: str, of: Callable[[Context, Tensor, Tensor], Tensor]) -> Tensor:
        context: Context | Assembled | None = self.context
        if context is None:
            raise InputError("only what ow.orbit_posterior returns has targets: it knows x_t and t")
        if not isinstance(context, Context):
            return context.derived(name)
        with torch.no_grad():
            target = of(context, plain(self.mean), plain(self.score))
        return context.handed_out(target, self.mean)


def slope(process: Any, name: str, t: Tensor) -> Tensor:
    """d/dt of ``process.alpha``, ``.sigma`` or ``.wrapped_sigma`` at ``t: (*B)``: the process's own
    ``alpha_dot`` or ``sigma_dot`` (also of its ``schedule`` or ``isotropic`` part), else by
    differentiating the method.

    Raises ``InputError`` where the method does not let a derivative through.
    """
    dot = {"alpha": "alpha_dot", "sigma": "sigma_dot", "wrapped_sigma": "wrapped_sigma_dot"}[name]
    for owner in (process, getattr(process, "schedule", None), getattr(process, "isotropic", None)):
        if hasattr(owner, dot):
            return torch.as_tensor(getattr(owner, dot)(t)).to(t).expand(t.shape)
    method = getattr(process, name)
    with torch.enable_grad():
        time = t.detach().clone().requires_grad_()
        value = torch.as_tensor(method(time))
        if value.requires_grad:
            (rate,) = torch.autograd.grad(value.sum(), time, allow_unused=True)
            return torch.zeros_like(t) if rate is None else rate.detach()
    early, late = (torch.as_tensor(method(torch.full_like(t, at))).to(t) for at in (0.25, 0.75))
    if not torch.equal(early, late):  # it depends on t, but not by way of torch
        raise InputError(
            f"{type(process).__name__}.{name}(t) cannot be differentiated (it leaves torch): give"
            f" the process a method {dot}(t) for .velocity"
        )
    return torch.zeros_like(t)
