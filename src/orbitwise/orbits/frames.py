"""Frames: an exactly equivariant model from any backbone at the cost of 4 or 8 calls (Puny et al.,
"Frame Averaging for Invariant and Equivariant Network Design", arXiv 2110.03336)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.base import Group
from orbitwise.groups.so3 import O3, SO3
from orbitwise.orbits.average import Output, Twirled

_SIGNS = torch.tensor(list(itertools.product((1.0, -1.0), repeat=3)), dtype=torch.float64)  # (8, 3)
_NOT_FINITE = "frames need finite points; some are NaN, infinite, or beyond the range of float64"


def framed(
    model: Callable[..., Tensor],
    group: Group,
    *,
    output: Output = "vector",
    min_gap: float = 1e-6,
    chunk: int | None = None,
) -> Twirled:
    """The model averaged over the principal axes of its input: ``x -> mean_F F·model(F⁻¹·x, …)``
    over the 4 rotations (``SO3``) or 8 orthogonal matrices (``O3``) ``F`` whose columns are
    principal axes of the points (eq. 3 there, with the frames of its section 3.1; about the
    centroid, but the points are not centred: the group turns about the origin).

    Exactly equivariant, to rounding divided by the gap, where the three principal moments are
    distinct; planar clouds are fine, and permutation equivariance of the model is kept. Two limits,
    of the method:

    * Where two moments are equal (linear molecules, symmetric and spherical tops, fewer than three
      points) the axes are arbitrary, and so is the result. Items whose smallest gap between moments
      is below ``min_gap`` times the largest moment raise ``InputError``; ``min_gap=0`` makes no
      check (inside ``vmap`` none is possible).
    * The result jumps where two moments cross, so it is not a continuous function of ``x``, however
      smooth the model; gradients (which pass through the axes) grow as 1/gap. ``twirl`` has neither
      limit.

    Arguments, call and shapes as for ``twirl``: ``(x, *args, mask=None)`` with ``x: (*B, N, 3)``.

    Raises ``NoClosedFormError`` for other groups, ``InputError`` for another ``output``, points
    that are not finite or not in 3 dimensions, and degenerate items.
    >>> import torch
    >>> import orbitwise as ow
    >>> group, generator = ow.SO3(), torch.Generator().manual_seed(0)
    >>> model = ow.framed(lambda x: torch.sin(x).cumsum(-1), group)
    >>> x, g = torch.randn(5, 3, generator=generator), group.sample((), generator=generator)
    >>> torch.allclose(model(group.act(g, x)), group.act(g, model(x)), atol=1e-4)
    True
    """
    if not 0 <= min_gap < 1:
        raise InputError(f"min_gap is a share of the largest moment, from 0 to 1, not {min_gap}")
    if not isinstance(group, SO3):
        raise NoClosedFormError(f"frames are known for SO3 and O3, not for {group}: use twirl")
    signs = _SIGNS if isinstance(group, O3) else _SIGNS[_SIGNS.prod(-1) > 0]

    def elements(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        axes = principal_axes(x, mask, min_gap)
        if not isinstance(group, O3):
            axes = axes * torch.linalg.det(axes).sign()[..., None, None]
        s = signs.to(axes).reshape(len(signs), *[1] * (x.ndim - 2), 1, 3)
        inverse_frames = (axes * s).mT
        return inverse_frames.to(x.dtype), x.new_full((len(signs),), 1 / len(signs))

    return Twirled(model, group, elements, output, chunk)


def principal_axes(x: Tensor, mask: Tensor | None = None, min_gap: float = 0.0) -> Tensor:
    """Principal axes of points ``x: (*B, N, 3)`` about their centroid, as the columns of ``(*B, 3,
    3)`` in the order of rising moment, each with an arbitrary sign; float64.

    Raises ``InputError`` as ``framed`` does.
    """
    if x.ndim < 2 or x.shape[-1] != 3:
        raise InputError(f"frames need points of shape (*B, N, 3), not {tuple(x.shape)}")
    real = torch.ones_like(x[..., :1]) if mask is None else mask[..., None].to(x)
    y = torch.where(real > 0, x, 0).double()
    real = real.double()
    count = real.sum(-2, keepdim=True).clamp(min=1)
    y = (y - y.sum(-2, keepdim=True) / count) * real
    covariance = y.mT @ y / count
    if min_gap > 0 and not torch.isfinite(covariance).all():
        raise InputError(_NOT_FINITE)
    moments: Tensor
    axes: Tensor
    try:
        moments, axes = torch.linalg.eigh(covariance)
    except RuntimeError:  # of LAPACK, which does not say why
        if torch.isfinite(covariance).all():
            raise
        raise InputError(_NOT_FINITE) from None
    if min_gap > 0:
        _refuse_equal_moments(moments.detach(), min_gap)
    return axes


def _refuse_equal_moments(moments: Tensor, min_gap: float) -> None:
    bad = (moments.diff(dim=-1).amin(-1) <= min_gap * moments[..., -1]).reshape(-1)
    if bad.any():
        which = bad.nonzero().flatten().tolist()
        shown = ", ".join(map(str, which[:5])) + (", …" if len(which) > 5 else "")
        raise InputError(
            f"{len(which)} of {len(bad)} items (number {shown}) have two equal principal moments (a"
            " linear molecule, a symmetric top, fewer than three points): their frame is arbitrary"
            " and the framed model not equivariant there. Use twirl for them, or pass min_gap=0 to"
            " accept an arbitrary frame"
        )
