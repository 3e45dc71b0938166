"""Noise that was aligned to the data before the two were mixed.

Let ``x_t = alpha·g·x1 + sigma·g·x0`` with ``g ~ μ`` and ``x0`` *aligned* to ``x1``: of all elements
h of the group the neutral one gives the largest ``⟨x0, h·x1⟩`` (Kabsch, Hungarian, or both). It
gives the largest ``⟨x1, h·x1⟩`` as well, the group acting by orthogonal maps, hence the largest
``⟨g⁻¹·x_t, h·x1⟩``: **g is the mode of the alignment of x_t to x1**, and the posterior holds this
element alone. Proofs, and the evidence, in docs/theory.md, section 9.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.base import Group
from orbitwise.groups.finite import Finite
from orbitwise.groups.permutation import PointPermutation
from orbitwise.groups.product import Product
from orbitwise.groups.so3 import O3, SO3
from orbitwise.orbits.posterior.noise import (
    Gaussian,
    Process,
    WhitenedProcess,
    centred,
    zero_com,
)
from orbitwise.orbits.posterior.question import Question
from orbitwise.orbits.posterior.result import OrbitPosterior

Coupling = Literal["independent", "aligned"]
ALIGNED_TO = 1e-4  # cosine of the torque of x0 on x1 below which it was removed, not met by chance


def coupling_of(process: object, told: Coupling | None) -> Coupling:
    """What the caller says, else what the process says of itself (``process.coupling``)."""
    coupling = getattr(process, "coupling", "independent") if told is None else told
    if coupling not in ("independent", "aligned"):
        raise InputError(f"coupling {coupling!r} is none of 'independent', 'aligned'")
    return "aligned" if coupling == "aligned" else "independent"


def factors(group: Group) -> tuple[Group, ...]:
    return group.factors if isinstance(group, Product) else (group,)


def must_be_orthogonal(group: Group) -> None:
    """Raises ``NoClosedFormError`` for a group whose alignment says nothing of the posterior."""
    for factor in factors(group):
        if not isinstance(factor, SO3 | PointPermutation | Finite):
            raise NoClosedFormError(
                "coupling='aligned' is for groups of rotations, reflections and permutations, not"
                f" {factor!r}; draw independent noise"
            )


def looks_aligned(x0: Tensor, x1: Tensor, mask: Tensor | None) -> Tensor:
    """Whether the noise of *every* item was turned onto its data: ``x0ᵀ x1`` is then symmetric with
    no two eigenvalues of negative sum. A flag, on the device.

    By chance that has probability 0 for two points or more.
    """
    if x1.shape[-1] != 3 or x1.ndim != x0.ndim:
        return torch.zeros((), dtype=torch.bool, device=x0.device)
    if mask is not None:
        x0 = torch.where(mask[..., None], x0, 0.0)
    cross = x0.double().mT @ x1.double()
    size = cross.square().sum((-2, -1)).sqrt().clamp_min(1e-300)
    symmetric = (cross - cross.mT).square().sum((-2, -1)).sqrt() < ALIGNED_TO * size
    values = torch.linalg.eigvalsh(0.5 * (cross + cross.mT).nan_to_num())
    aligned: Tensor = symmetric & (values[..., 0] + values[..., 1] > -ALIGNED_TO * size)
    return aligned.all()


def on_the_slice(group: Group, mode: OrbitPosterior, question: Question) -> OrbitPosterior:
    """The posterior of aligned noise, from the ``mode`` of independent noise.

    The score is that inside of where ``x_t`` can lie; with reflections the density ends there with
    a step, which no score shows.

    Raises ``InputError`` for conformer sets and for correlated noise.
    """
    process, mask = question.process, question.mask
    if question.x1.ndim > question.xt.ndim or not isinstance(process, Process):
        raise InputError("coupling='aligned' needs one cloud x1 per item and Gaussian noise")
    if isinstance(process, WhitenedProcess):
        raise InputError(
            "coupling='aligned' is for noise alike in all points; these points are correlated or"
            " have weights, whose alignment is another than that of the points"
        )
    xt, clean = question.xt.double(), mode.mean.double()
    if zero_com(process):
        xt = centred(xt, mask)
    elif mask is not None:
        xt = torch.where(mask[..., None], xt, 0.0)
    t = question.t.expand(xt.shape[:-2])
    noise = Gaussian.of(process, xt, t, mask)
    log_evidence, score = noise.log_density(xt, clean), noise.score(clean, xt)
    for factor in factors(group):
        if isinstance(factor, SO3):
            added, pull = slice_density(xt, clean, noise, isinstance(factor, O3))
            log_evidence, score = log_evidence + added, score + pull
    dtype = mode.mean.dtype
    return mode.but(
        log_evidence=log_evidence.to(dtype),
        score=score.to(dtype),
        method="exact",
        exact=True,
    )


def slice_density(
    xt: Tensor, clean: Tensor, noise: Gaussian, reflections: bool
) -> tuple[Tensor, Tensor]:
    """What aligned rotations add to the log density at the mode, ``(*B)``, and its gradient in
    ``x_t``; all in float64. ``clean``: ``x1`` at the mode, whose alignment to ``x_t`` is neutral.

        log |M(x0)| − log |M(x_t)| + 3 log sigma,    M(y) = tr(yᵀ x1)·1 − yᵀ x1,

    −inf where ``x0 = (x_t − alpha x1)/sigma`` is not aligned to ``x1``, so was not made this way.
    """
    alpha, sigma = noise.alpha[..., None, None], noise.variance.sqrt()[..., None, None]
    eye = torch.eye(3, dtype=xt.dtype, device=xt.device)

    def torque_matrix(y: Tensor) -> Tensor:
        H = y.mT @ clean
        H = 0.5 * (H + H.mT)
        return H.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] * eye - H

    with torch.enable_grad():
        x = xt.detach().requires_grad_()
        # turn x back by how far its own alignment moves, to first order: no SVD to differentiate
        torque = torch.linalg.cross(clean, x, dim=-1).sum(-2)
        turn = torch.linalg.lstsq(torque_matrix(x.detach()), torque[..., None]).solution[..., 0]
        y = x - torch.linalg.cross(turn[..., None, :].expand_as(x), x, dim=-1)
        eps = (y - alpha * clean) / sigma
        inside, outside = torque_matrix(eps), torque_matrix(y)
        ratio = torch.logdet(inside) - torch.logdet(outside)
        (gradient,) = torch.autograd.grad(ratio.sum(), x)
    moments = torch.linalg.eigvalsh(inside.detach())  # sums of two eigenvalues of x0ᵀ x1
    least = 0.5 * (moments.sum(-1)) - moments[..., -1] if reflections else moments[..., 0]
    possible = least > 0
    added = torch.where(possible, ratio.detach() + 3 * sigma[..., 0, 0].log(), -torch.inf)
    return added, torch.where(possible[..., None, None], gradient, 0.0)
