"""What ``orbit_posterior`` was called with, made ready for the solvers, and what it hands back."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.base import Group
from orbitwise.groups.finite import Finite
from orbitwise.groups.translation import Translation
from orbitwise.orbits.posterior.call.coupling import factors, looks_aligned
from orbitwise.orbits.posterior.call.given import (
    Unchanged,
    one_device,
    points_of,
    tensor_of,
    times_of,
)
from orbitwise.orbits.posterior.call.gradients import Slopes, only, plain, tracked, with_slopes
from orbitwise.orbits.posterior.call.ragged import Packing
from orbitwise.orbits.posterior.call.targets import Context
from orbitwise.orbits.posterior.noise import (
    Process,
    WhitenedProcess,
    WrappedProcess,
    centred,
    per_item,
    zero_com,
)
from orbitwise.orbits.posterior.question import Question
from orbitwise.orbits.posterior.result import OrbitPosterior


@dataclass(frozen=True)
class Asked:
    """Points ``(*B, N, D)``, padded where they came flat, as plain values; ``points``: ``x_t`` and
    ``x1`` as the caller has them, with what autograd knows of them. ``lost: (*B)``: items that are
    not finite, found without a look at them (``check=False``): solved as zeros, handed out as NaN.
    """

    x1: Tensor
    xt: Tensor
    t: Tensor
    mask: Tensor | None
    weights: Tensor | None
    x0: Tensor | None
    packing: Packing | None
    check: bool
    points: tuple[Tensor, Tensor]
    lost: Tensor | None = None

    @classmethod
    def of(
        cls,
        x1: Any,
        xt: Any,
        t: Any,
        mask: Any,
        batch: Any,
        sizes: tuple[int, int] | None,
        weights: Any,
        x0: Any,
        check: bool,
    ) -> Asked:
        """Raises ``InputError`` for what does not fit."""
        points = points_of("xt", xt), points_of("x1", x1)
        xt, x1 = map(plain, points)
        others = {"x1": x1, "mask": mask, "batch": batch, "weights": weights, "x0": x0}
        mask, batch, weights, x0 = (
            None if value is None else plain(tensor_of(name, value))
            for name, value in list(others.items())[1:]
        )
        one_device(xt, x1=x1, mask=mask, batch=batch, weights=weights, x0=x0)
        t = plain(t) if isinstance(t, Tensor) else t
        packing = None
        if batch is None:
            if sizes is not None:
                raise InputError("sizes are those of batch, which is not given")
        else:
            if mask is not None:
                raise InputError("give batch (flat points) or mask (padded ones), not both")
            t = torch.as_tensor(t, dtype=torch.float64, device=xt.device)
            packing = Packing.of(batch, *(sizes or (None, None)))
            t = packing.times(t, check)
            xt, x1 = packing.pack("xt", xt), packing.pack("x1", x1)
            weights = None if weights is None else packing.pack("weights", weights, 0)
            x0 = None if x0 is None else packing.pack("x0", x0)
            mask = packing.mask
        if x0 is not None and x0.shape != xt.shape:
            raise InputError(f"x0 must have the shape of xt, not {tuple(x0.shape)}")
        t, lost = times_of(t, xt), None
        if not check and x1.shape[-xt.ndim :] == xt.shape:
            # a sum is quicker, and as telling in float64
            sums = (_real_sum(x, mask) for x in (x1, xt))
            clean, noised = (~total.isfinite() for total in sums)
            if more := clean.ndim - noised.ndim:  # conformers
                clean = clean.flatten(0, more - 1).any(0)
            lost = clean | noised | ~t.isfinite()
            x1, xt = (torch.where(lost[..., None, None], 0.0, x) for x in (x1, xt))
            t = torch.where(lost, 0.5, t)
        return cls(x1, xt, t, mask, weights, x0, packing, check, points, lost)

    def question(self, process: Process | WrappedProcess) -> Question:
        return Question(process, self.x1, self.xt, self.t, self.mask, self.check)

    def warn_if_aligned(self) -> None:
        """Where the noise tells that it was turned onto the data first."""
        if self.x0 is not None and looks_aligned(self.x0, self.x1, self.mask):
            warnings.warn(
                "x0 was aligned to x1 before they were mixed (their cross covariance is symmetric):"
                " the posterior for independent noise is biased then. Say coupling='aligned', or"
                " draw x0 without alignment",
                UserWarning,
                stacklevel=4,
            )

    def hand_out(
        self,
        group: Group,
        process: Process | WrappedProcess,
        post: OrbitPosterior,
        aligned: bool,
        solve: Callable[[Question], OrbitPosterior],
    ) -> OrbitPosterior:
        """``post`` in the caller's shapes, with its targets and gradients."""
        shape = (lambda x: x) if self.packing is None else self.packing.flat
        traced = self.points if any(map(tracked, self.points)) else None
        context = Context(
            process, self.xt, self.t, self.mask, self.packing, aligned, self.check, traced
        )
        lost = self.lost

        def of_points(x: Tensor) -> Tensor:
            return shape(x if lost is None else torch.where(lost[..., None, None], torch.nan, x))

        def of_items(x: Tensor) -> Tensor:
            return x if lost is None else torch.where(lost, torch.nan, x)

        differentiated = any(x.requires_grad for x in self.points) and torch.is_grad_enabled()
        mean = of_points(post.mean)
        if not differentiated and traced is None:
            as_given = Unchanged.of(*self.points)
            return post.but(
                mean=mean,
                score=lambda: of_points(as_given.still(post).score),
                log_evidence=lambda: of_items(as_given.still(post).log_evidence),
                context=context,
            )

        score, value = of_points(post.score), of_items(post.log_evidence)
        if differentiated:
            can = post.method in ("exact", "mode", "snis")
            slopes = Slopes(
                of_xt=lambda: score.detach(),
                of_x1=lambda: shape(self.slope_of_x1(group, process, post, aligned, solve)),
                beside=self.beside,
            )
            value = (
                with_slopes(value, self.points, slopes)
                if can
                else only(value, self.points, "gradients of this estimate")
            )
        if traced is not None:
            mean, score = (
                only(x, traced, f"gradients of {name}")
                for x, name in ((mean, "mean"), (score, "score"))
            )
        return post.but(mean=mean, score=score, log_evidence=value, context=context)

    def beside(self, v: Tensor) -> Tensor:
        """``(*B)`` to stand beside points as the caller has them."""
        return v[..., None, None] if self.packing is None else v[self.packing.item][..., None]

    def slope_of_x1(
        self,
        group: Group,
        process: Process | WrappedProcess,
        post: OrbitPosterior,
        aligned: bool,
        solve: Callable[[Question], OrbitPosterior],
    ) -> Tensor:
        """∇ log evidence in ``x1``, ``(*B, N, D)``: see ``gradients``."""
        skewed = any(isinstance(part, Finite) and not _orthogonal(part) for part in factors(group))
        if self.x1.ndim > self.xt.ndim or aligned or post.method == "snis" or skewed:
            raise InputError(
                "the gradient of log_evidence in x1 is there for one cloud per item, independent"
                " noise, groups of orthogonal maps and method 'exact' or 'mode'; .detach() x1"
            )
        x1, dtype = self.x1.double(), self.x1.dtype
        with torch.no_grad():
            swapped = solve(Question(process, self.xt.double(), x1, self.t, self.mask, False))
            if isinstance(process, WrappedProcess):
                return swapped.score.to(dtype)
            alpha, sigma = (
                per_item(process, name, self.t)[..., None, None] for name in ("alpha", "sigma")
            )
            pull = swapped.mean - alpha * x1
            if isinstance(process, WhitenedProcess):
                pull = process.whiten(process.whiten(pull, self.mask), self.mask)
            elif zero_com(process) or any(isinstance(part, Translation) for part in factors(group)):
                pull = centred(pull, self.mask)
            slope = alpha / sigma.square() * pull
            if self.mask is not None:
                slope = torch.where(self.mask[..., None], slope, 0.0)
            return slope.to(dtype)


def _real_sum(x: Tensor, mask: Tensor | None) -> Tensor:
    """Over the real points, ``(*L, *B)`` in float64."""
    if mask is not None:
        x = torch.where(mask[..., None], x, 0.0)
    return x.sum((-2, -1), dtype=torch.float64)


def _orthogonal(group: Finite) -> bool:
    A = group.matrices
    return torch.allclose(A @ A.mT, torch.eye(A.shape[-1]).to(A), atol=1e-9)
