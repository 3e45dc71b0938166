"""The one public entrance: the posterior over a symmetry group given a noised sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

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
    renamed_rotations,
    rotations,
    snis,
    sums,
    translation,
)
from orbitwise.orbits.posterior.call.asked import Asked
from orbitwise.orbits.posterior.call.compiler import outside_the_compiler
from orbitwise.orbits.posterior.call.coupling import (
    Coupling,
    coupling_of,
    must_be_orthogonal,
    on_the_slice,
)
from orbitwise.orbits.posterior.call.order_classes import shared_out_by_order
from orbitwise.orbits.posterior.call.size_classes import shared_out, together
from orbitwise.orbits.posterior.call.weights import weighted
from orbitwise.orbits.posterior.checked import checked
from orbitwise.orbits.posterior.noise import Process, WhitenedProcess, WrappedProcess
from orbitwise.orbits.posterior.question import Question, Sampling
from orbitwise.orbits.posterior.result import Method, OrbitPosterior, map_element
from orbitwise.orbits.posterior.torus import exact, gibbs, near  # noqa: F401
from orbitwise.orbits.posterior.torus import permutations as torus_permutations  # noqa: F401


def orbit_posterior(
    group: Group,
    process: Process | WrappedProcess,
    x1: Tensor,
    xt: Tensor,
    t: Tensor | float,
    mask: Tensor | None = None,
    method: Method = "exact",
    *,
    batch: Tensor | None = None,
    sizes: tuple[int, int] | None = None,
    weights: Tensor | None = None,
    coupling: Coupling | None = None,
    x0: Tensor | None = None,
    check: bool = True,
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
            densities counted in D(N-1) dimensions), or correlated noise with ``whiten``,
            ``colour``, ``isotropic`` and ``log_volume`` (``HarmonicProcess``; permutations must
            keep its bonds), or ``wrapped_sigma(t)`` (the torus).
        x1: clean points ``(*B, N, D)``, in the units of ``xt``; or ``(C, *B, N, D)``: a finite set
            of C reference conformers, with prior ``log_weights: (C)`` (unnormalised; default
            uniform).
        xt: noised points ``(*B, N, D)``, which must be independent noise around ``g·x1`` unless
            ``coupling`` says otherwise.
        t: times ``(*B)`` or one number, also ``(*B, 1)`` or ``(*B, 1, 1)``; ``t = 0`` noise, ``t =
            1`` data; for a step index k of T (k = T: noise) ``1 - k/T``.
        mask: ``(*B, N)`` bool, True for real points; what stands in padded rows does not matter.
        batch: for items of different sizes behind one another (PyTorch Geometric): the item of each
            point, ``(M)`` long in any order, with ``xt: (M, D)``, ``x1: (M, D)`` or ``(C, M, D)``
            and ``t`` per item ``(B)`` (also where M = B) or per point ``(M)``. ``.mean`` and
            ``.score`` are then ``(M, D)``; groups and processes see the items padded, in the order
            of their points.
        sizes: ``(B, N)`` of ``batch``, items and most points of one: spares two waits for an
            accelerator, and is believed.
        weights: ``(*B, N)`` or ``(M)``, of noise that differs from point to point as with masses:
            ``sigma_i = sigma/√w_i``. Permutations must keep them; not with ``zero_com``.
        coupling: ``"aligned"`` where the noise x0 of ``x_t = alpha g·x1 + sigma g·x0`` was first
            turned or permuted onto ``x1`` by the same group (Kabsch, Hungarian): ``x_t`` then tells
            which g made it, and the mode is the exact posterior. ``"independent"`` targets would be
            biased. Noise that was matched to the data within a batch (minibatch optimal transport)
            has no posterior here: match after the group is averaged out, or draw independently.
            Default: ``process.coupling`` if there is one, else ``"independent"``.
        x0: the noise that made ``x_t``, shape of ``xt``: only looked at, with a warning where it
            was aligned to ``x1`` although ``coupling`` is ``"independent"``.
        check: False looks at no values, for which an accelerator would have to wait: NaN in, NaN
            out.
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

    Returns an ``OrbitPosterior`` with ``.mean``, ``.score``, ``.velocity`` and ``.noise`` ``(*B, N,
    D)`` (0 on padded rows), ``.target("v" | "eps" | "x1" | "score")``, ``.log_evidence: (*B)`` and
    ``.sample(K)``, in the dtype of ``xt``; the work is done in float64, also under autocast. At
    sigma = 0 mean and draws are those of the limit (the mode), while ``log_evidence`` and ``score``
    belong to a variance of 1e-20 |x_t|²: finite, and comparable only with others at the same
    ``x_t``. On the torus ``.mean`` is ``x_t + sigma² score``, the mean of the lifted points.

    To autograd all are constants but ``.log_evidence``, which has its gradients in ``xt`` (the
    score) and, for ``"exact"`` and ``"mode"``, in ``x1``. ``torch.func.grad`` of anything else
    raises, as ``torch.vmap`` does; ``torch.compile`` goes around the call.

    Raises ``NoClosedFormError`` (naming what to use) where ``method`` has no solution for the group
    and process, ``InputError`` for wrong shapes, devices and dtypes (float32 and float64 only),
    empty masks, times outside a shipped process, and values that are not finite.
    >>> import torch
    >>> import orbitwise as ow
    >>> generator = torch.Generator().manual_seed(0)
    >>> x1, t = torch.randn(1000, 4, 3, generator=generator), torch.full((1000,), 0.5)
    >>> process = ow.GaussianProcess.flow()
    >>> xt = process.perturb(x1, t, generator=generator)
    >>> post = ow.orbit_posterior(ow.SO3(), process, x1, xt, t)
    >>> post.mean.shape, post.exact
    (torch.Size([1000, 4, 3]), True)
    >>> bool((post.mean.norm(dim=-1) < x1.norm(dim=-1)).all())  # an average of rotated points
    True
    """
    if not isinstance(group, Group):
        raise InputError(f"group must be a group such as SO3(), not {group!r}")
    solver = _Solver(method, Sampling(proposals, include_identity, proposal_width, generator))
    given = (x1, xt, t, mask, batch, sizes, weights, x0, check)
    return outside_the_compiler(_of_all_sizes)(group, process, given, solver, coupling, log_weights)


# a graph break at the call, and no other: what torch.compiler.disable sets, without its second of
# importing the compiler
orbit_posterior._torchdynamo_disable = True  # type: ignore[attr-defined]


def _of_all_sizes(
    group: Group,
    process: Process | WrappedProcess,
    given: tuple[Any, ...],
    solver: _Solver,
    coupling: Coupling | None,
    log_weights: Tensor | None,
) -> OrbitPosterior:
    """Items of very different sizes or groups class by class, all others at once."""
    classes, shares = shared_out(given, group, process)
    groups = [group] * len(classes)
    if len(classes) < 2 and solver.method in ("exact", "mode"):
        classes, shares, groups = shared_out_by_order(given, group, process)
    if len(classes) < 2:
        return _posterior(group, process, given, solver, coupling, log_weights)
    parts = [
        _posterior(part, process, share, solver, coupling, log_weights)
        for part, share in zip(groups, shares, strict=True)
    ]
    return together(classes, parts)


def _posterior(
    group: Group,
    process: Process | WrappedProcess,
    given: tuple[Any, ...],
    solver: _Solver,
    coupling: Coupling | None,
    log_weights: Tensor | None,
) -> OrbitPosterior:
    asked = Asked.of(*given)
    aligned = coupling_of(process, coupling) == "aligned"
    if aligned:
        must_be_orthogonal(group)
        solver = solver.at_the_mode()
    elif asked.check:
        asked.warn_if_aligned()
    if asked.weights is not None:
        process = weighted(process, group, asked.weights, asked.xt, asked.mask, asked.check)

    with torch.no_grad():
        post = _solved(group, process, asked.question(process), solver, log_weights)
        if aligned:
            post = on_the_slice(group, post, asked.question(process))
    return asked.hand_out(
        group, process, post, aligned, lambda other: _solved(group, process, other, solver, None)
    )


def _solved(
    group: Group,
    process: Process | WrappedProcess,
    question: Question,
    solver: _Solver,
    log_weights: Tensor | None,
) -> OrbitPosterior:
    if isinstance(process, WhitenedProcess):
        return _whitened(group, process, question, solver, log_weights)
    if hasattr(process, "whiten"):
        raise InputError(
            f"{type(process).__name__} has whiten, so it needs colour, isotropic and log_volume too"
        )
    return _answer(group, question, solver, log_weights)


@dataclass(frozen=True)
class _Solver:
    """A method with what it was told about sampling."""

    method: Method
    sampling: Sampling

    def __post_init__(self) -> None:
        method, sampling = self.method, self.sampling
        if method not in get_args(Method):
            raise InputError(f"method {method!r} is none of 'exact', 'snis', 'mode', 'gibbs'")
        if sampling.proposals < 1:
            raise InputError(f"proposals must be at least 1, not {sampling.proposals}")
        if sampling.include_identity and method != "snis":
            raise InputError(f"include_identity belongs to method='snis', not {method!r}")
        if sampling.proposal_width is not None and method != "snis":
            raise InputError(f"proposal_width belongs to method='snis', not {method!r}")

    def at_the_mode(self) -> _Solver:
        """For a posterior that holds one element."""
        if self.method not in ("exact", "mode"):
            raise InputError("coupling='aligned' has an exact posterior; leave method out")
        return _Solver("mode", self.sampling)

    def one(self, group: Group, question: Question) -> OrbitPosterior:
        """For one cloud ``x1`` per item."""
        if self.method == "exact":
            return dispatch.exact(group, question)
        if self.method == "mode":
            return dispatch.mode(group, question)
        if self.method == "gibbs":
            return dispatch.gibbs(group, question, self.sampling)
        if self.sampling.proposal_width is not None:
            return near.snis_near(group, question, self.sampling)
        return dispatch.snis(group, question, self.sampling)

    def any_of(self, group: Group, question: Question, log_prior: Tensor) -> OrbitPosterior:
        """For conformers ``x1: (C, *B, N, D)``."""
        clouds = finite.conformers(question.x1, log_prior)
        inner = lambda x: self.one(group, question.about(x))  # noqa: E731
        if self.method == "mode":
            return sums.best_of(clouds, inner)
        return sums.sum_over(clouds, inner, question, self.method)


def _whitened(
    group: Group,
    process: WhitenedProcess,
    question: Question,
    solver: _Solver,
    log_weights: Tensor | None,
) -> OrbitPosterior:
    """Correlated noise: the posterior of the whitened points, in which it is isotropic
    (processes.harmonic)."""
    x1, xt, mask = question.x1, question.xt, question.mask
    if xt.shape != x1.shape[-xt.ndim :]:
        raise InputError(f"x1 must have the shape of xt, {tuple(xt.shape)}, not {tuple(x1.shape)}")
    if mask is not None:
        x1, xt = (torch.where(mask[..., None], x, 0.0) for x in (x1, xt))

    x1, xt = (process.whiten(x.double(), mask) for x in (x1, xt))
    white = Question(process.isotropic, x1, xt, question.t, mask, question.check)
    post = _answer(group, white, solver, log_weights)

    dtype = question.xt.dtype

    def log_evidence() -> Tensor:
        volume = process.log_volume(xt.shape[-1]).to(post.log_evidence)
        return (post.log_evidence + volume).to(dtype)

    return post.but(
        mean=process.colour(post.mean).to(dtype),
        score=lambda: process.whiten(post.score, mask).to(dtype),
        log_evidence=log_evidence,
    )


def _answer(
    group: Group, question: Question, solver: _Solver, log_weights: Tensor | None
) -> OrbitPosterior:
    """For noise that is isotropic; ``x1`` may be a set of conformers."""
    cloud, dtype = question.xt.shape, question.xt.dtype
    question, log_prior = checked(question, log_weights)
    if log_prior is None:
        post = solver.one(group, question)
    else:
        post = solver.any_of(group, question, log_prior)
    assert post.mean.shape == cloud, (post.mean.shape, cloud)
    return _as(dtype, post, question.mask)


def _as(dtype: torch.dtype, post: OrbitPosterior, mask: Tensor | None) -> OrbitPosterior:
    def convert(value: Tensor) -> Tensor:
        return value.to(dtype) if value.is_floating_point() else value

    def bounded(value: Tensor) -> Tensor:  # sigma = 0 may leave the range of float32
        return value.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max).to(dtype)

    def real(value: Tensor) -> Tensor:
        return value if mask is None else torch.where(mask[..., None], value, 0.0)

    return post.but(
        mean=real(post.mean).to(dtype),
        score=lambda: real(bounded(post.score)),
        log_evidence=lambda: bounded(post.log_evidence),
        draw=lambda K, generator: map_element(convert, post.sample(K, generator)),
        ess=None if post.ess is None else convert(post.ess),
    )
