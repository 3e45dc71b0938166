"""The one public entrance: the posterior over a symmetry group given a noised sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.base import Group

# importing the solvers registers them
from orbitwise.orbits.posterior import (  # noqa: F401
    alignment,
    dispatch,
    finite,
    permutations,
    rotations,
    snis,
    sums,
    translation,
)
from orbitwise.orbits.posterior.noise import noise_of
from orbitwise.orbits.posterior.result import OrbitPosterior, map_element
from orbitwise.orbits.posterior.torus import exact, gibbs, near  # noqa: F401
from orbitwise.orbits.posterior.torus import permutations as torus_permutations  # noqa: F401

Method = Literal["exact", "snis", "mode", "gibbs"]


@torch.no_grad()
def orbit_posterior(
    group: Group,
    process,
    x1: Tensor,
    xt: Tensor,
    t: Tensor | float,
    mask: Tensor | None = None,
    method: Method = "exact",
    *,
    proposals: int = 256,
    include_identity: bool = False,
    proposal_width: float | None = None,
    generator: torch.Generator | None = None,
    log_weights: Tensor | None = None,
) -> OrbitPosterior:
    """The posterior ``p(g | x_t, x1) ∝ p_t(x_t | g·x1) dμ(g)`` over the group, given a noised
    sample.

    Its mean is the training target without the symmetry's noise: regress on ``.mean`` where you
    would have regressed on ``g·x1``, with a squared loss.

    Arguments
        group: ``SO3, O3, Translation, PeriodicTranslation, Permutation, Automorphism, Finite,
            Product``.
        process: what made ``xt``: any object with ``alpha(t)``, ``sigma(t)`` (Gaussian noise) and
            optionally ``zero_com=True`` (noise of zero centre of mass: both clouds are centred and
            densities counted in D(N-1) dimensions), or correlated noise with ``whiten``, ``colour``
            and ``isotropic`` (``HarmonicProcess``; permutations must keep its bonds), or
            ``wrapped_sigma(t)`` with ``log_density`` and ``score`` (the torus).
        x1: clean points ``(*B, N, D)``, in the units of ``xt``; or ``(C, *B, N, D)``: a finite set
            of C reference conformers, with prior ``log_weights: (C)`` (unnormalised; default
            uniform).
        xt: noised points ``(*B, N, D)``.
        t: times ``(*B)`` or one number; ``t = 0`` noise, ``t = 1`` data.
        mask: ``(*B, N)`` bool, True for real points; what stands in padded rows does not matter.
        method: ``"exact"`` where there is one (see below). ``"mode"``: everything at the most
            probable element (Kabsch, Hungarian), biased at every noise level. ``"snis"``:
            self-normalised importance sampling from ``proposals`` Haar elements per item, biased by
            O(1/proposals), badly so when the posterior is narrow; ``include_identity`` puts the
            identity among them, as published, which draws it towards the pose of ``x1`` (away again
            on average, if ``x_t`` was made from that pose: theory.md, section 7). ``"gibbs"``:
            Markov chains over permutations, or over periodic translations and permutations,
            ``proposals`` states in all, whose bias fades with that number; ``log_evidence`` is then
            a lower bound.
        proposal_width: for ``"snis"`` over ``PeriodicTranslation``: shifts are proposed from a
            wrapped normal of this many sigma around ``x1`` as it is, which must be what ``x_t`` was
            made from (2502.09890: 2, with ``include_identity``). Default: uniform shifts.
        generator: for ``"snis"`` and ``"gibbs"``.

    Exact: SO3, O3 (matrix Fisher, Lee 1710.03746), Translation (flat measure), PeriodicTranslation
    under wrapped noise, groups that can be enumerated, products of one of these with a finite
    group, conformer sets over all of them.

    Returns an ``OrbitPosterior`` with ``.mean`` and ``.score`` ``(*B, N, D)`` (0 on padded rows),
    ``.log_evidence: (*B)`` and ``.sample(K)``, in the dtype of ``xt``; the work is done in float64
    and without gradients. At sigma = 0 mean and draws are those of the limit (the mode), while
    ``log_evidence`` and ``score`` belong to a variance of 1e-20 |x_t|²: finite, and comparable only
    with others at the same ``x_t``. On the torus ``.mean`` is ``x_t + sigma² score``, the mean of
    the lifted points.

    Raises ``NoClosedFormError`` (naming what to use) where ``method`` has no solution for the group
    and process, ``InputError`` for wrong shapes, empty masks and values that are not finite.
    """
    if not isinstance(group, Group):
        raise InputError(f"group must be a group such as SO3(), not {group!r}")
    if hasattr(process, "whiten"):
        options = {
            "proposals": proposals,
            "include_identity": include_identity,
            "proposal_width": proposal_width,
            "generator": generator,
        }
        return _whitened(
            group, process, x1, xt, t, mask, method, log_weights=log_weights, **options
        )
    solve = _solver(method, proposals, include_identity, proposal_width, generator)
    cloud = xt.shape
    x1, xt, t, mask, log_prior, dtype = _checked(process, x1, xt, t, mask, log_weights)
    inner = lambda x: solve(group, process, x, xt, t, mask)  # noqa: E731
    if log_prior is None:
        post = inner(x1)
    elif method == "mode":
        post = sums.best_of(finite.conformers(x1, log_prior), inner)
    else:
        clouds = finite.conformers(x1, log_prior)
        post = sums.sum_over(clouds, inner, noise_of(process, xt, t, mask), xt, method)
    assert post.mean.shape == cloud, (post.mean.shape, cloud)
    return _as(dtype, post, mask)


def _whitened(
    group: Group, process, x1: Tensor, xt: Tensor, t, mask: Tensor | None, method, **options
):
    """Correlated noise: the posterior of the whitened points, in which it is isotropic
    (processes.harmonic)."""
    if xt.shape != x1.shape[-xt.ndim :]:
        raise InputError(f"x1 must have the shape of xt, {tuple(xt.shape)}, not {tuple(x1.shape)}")
    dtype = xt.dtype
    if mask is not None:
        x1, xt = (torch.where(mask[..., None], x, 0.0) for x in (x1, xt))
    white = (process.whiten(x.double(), mask) for x in (x1, xt))
    post = orbit_posterior(group, process.isotropic, *white, t, mask, method, **options)
    return replace(
        post,
        mean=process.colour(post.mean).to(dtype),
        score=process.whiten(post.score, mask).to(dtype),
        log_evidence=(
            post.log_evidence + process.log_volume(xt.shape[-1]).to(post.log_evidence)
        ).to(dtype),
    )


def _solver(
    method: str, proposals: int, include_identity: bool, proposal_width: float | None, generator
) -> Callable[..., OrbitPosterior]:
    if method not in ("exact", "snis", "mode", "gibbs"):
        raise InputError(f"method {method!r} is none of 'exact', 'snis', 'mode', 'gibbs'")
    if proposals < 1:
        raise InputError(f"proposals must be at least 1, not {proposals}")
    if include_identity and method != "snis":
        raise InputError(f"include_identity belongs to method='snis', not {method!r}")
    if proposal_width is not None and method != "snis":
        raise InputError(f"proposal_width belongs to method='snis', not {method!r}")
    importance = dispatch.snis
    if proposal_width is not None:
        importance = partial(near.snis_near, width=proposal_width)
    return {
        "exact": dispatch.exact,
        "mode": dispatch.mode,
        "gibbs": partial(dispatch.gibbs, proposals=proposals, generator=generator),
        "snis": partial(
            importance, proposals=proposals, include_identity=include_identity, generator=generator
        ),
    }[method]


def _checked(process, x1: Tensor, xt: Tensor, t: Tensor | float, mask: Tensor | None, log_weights):
    """Input in float64, padded rows 0, centred where the process is; or ``InputError``."""
    batch = xt.shape[:-2]
    if xt.ndim < 2 or x1.shape[-xt.ndim :] != xt.shape or x1.ndim > xt.ndim + 1:
        raise InputError(
            "x1 must have the shape of xt, or one more leading axis of conformers; x1 is"
            f" {tuple(x1.shape)}, xt {tuple(xt.shape)} (points are (*B, N, D))"
        )
    if not (x1.is_floating_point() and xt.is_floating_point()):
        raise InputError(f"x1 and xt must be floating point, not {x1.dtype} and {xt.dtype}")
    t = torch.as_tensor(t, dtype=torch.float64, device=xt.device)
    if t.ndim and t.shape != batch:
        raise InputError(
            f"t must be one number or have the batch shape of xt, {tuple(batch)}, not"
            f" {tuple(t.shape)}"
        )
    if mask is not None and (mask.dtype != torch.bool or mask.shape != xt.shape[:-1]):
        raise InputError(
            f"mask must be bool of shape {tuple(xt.shape[:-1])}, not {mask.dtype} of"
            f" {tuple(mask.shape)}"
        )
    if not xt.shape[-2] or (mask is not None and not mask.any(-1).all()):
        raise InputError(
            "every item needs at least one real point; the mask (or xt) is empty for some"
        )
    conformers = x1.ndim == xt.ndim + 1
    if log_weights is not None and (not conformers or log_weights.shape != x1.shape[:1]):
        raise InputError(
            "log_weights are prior weights of conformers, one per leading entry of x1; got shape "
            f"{tuple(log_weights.shape)} for x1 of shape {tuple(x1.shape)}"
        )
    if log_weights is None and conformers:
        log_weights = xt.new_zeros(len(x1))
    dtype = xt.dtype
    x1, xt, t = _prepare(process, x1, mask), _prepare(process, xt, mask), t.expand(batch)
    for name, value in (("x1", x1), ("xt", xt), ("t", t)):
        if not torch.isfinite(value.sum()):  # a sum is quicker, and as telling in float64
            raise InputError(f"{name} holds values that are not finite (NaN or infinite)")
    if log_weights is not None:
        log_weights = torch.log_softmax(log_weights.to(xt), 0)
        if log_weights.isnan().any():
            raise InputError("log_weights must not be NaN, +inf or all -inf")
    return x1, xt, t, mask, log_weights, dtype


def _prepare(process, x: Tensor, mask: Tensor | None) -> Tensor:
    x = x.double() if mask is None else torch.where(mask[..., None], x.double(), 0.0)
    if not getattr(process, "zero_com", False):
        return x
    if mask is None:
        return x - x.mean(-2, keepdim=True)
    return x - mask[..., None] * (x.sum(-2, keepdim=True) / mask.sum(-1)[..., None, None])


def _as(dtype: torch.dtype, post: OrbitPosterior, mask: Tensor | None) -> OrbitPosterior:
    def convert(value: Tensor | None) -> Tensor | None:
        return value.to(dtype) if value is not None and value.is_floating_point() else value

    def bounded(value: Tensor) -> Tensor:  # sigma = 0 may leave the range of float32
        return value.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max).to(dtype)

    mean, score = post.mean, bounded(post.score)
    if mask is not None:
        mean, score = (torch.where(mask[..., None], value, 0.0) for value in (mean, score))
    return replace(
        post,
        mean=mean.to(dtype),
        score=score,
        log_evidence=bounded(post.log_evidence),
        draw=lambda K, generator: map_element(convert, post.sample(K, generator)),
        ess=convert(post.ess),
    )
