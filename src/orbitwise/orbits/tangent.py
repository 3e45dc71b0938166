"""The part of a motion that does not move along the orbit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.tangent import horizontal_part
from orbitwise.orbits.posterior.call.given import one_device, points_of, tensor_of
from orbitwise.orbits.posterior.call.ragged import Packing


def horizontal(
    xt: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    batch: Tensor | None = None,
    sizes: tuple[int, int] | None = None,
    weights: Tensor | None = None,
    translations: bool = False,
) -> Tensor:
    """``v`` without its component along the orbit of the rotations at ``x_t``: the nearest motion
    without angular momentum.

    For velocities, scores, noise and predictions of the endpoint: what ``ow.orbit_posterior`` gives
    for rotations has no such component (docs/theory.md, section 10), so whatever a network says of
    it is error. ``horizontal(x_t, x1 - x_t) = horizontal(x_t, x1) - x_t``: an endpoint may be
    handed over as it is. The rotations turn about the origin.

    Arguments
        xt: points ``(*B, N, D)`` of any D (in one dimension nothing turns), float32 or float64.
        v: one vector per point, ``(*L, *B, N, D)``, in the units you like; half precision as it
            comes out of a network is welcome.
        mask: ``(*B, N)`` bool, True for real points; what stands in padded rows does not matter.
        batch: for items of different sizes behind one another: the item of each point, ``(M)``
            long in any order, with ``xt: (M, D)`` and ``v: (*L, M, D)``.
        sizes: ``(B, N)`` of ``batch``, items and most points of one: spares two waits for an
            accelerator, and is believed.
        weights: ``(*B, N)``, ``(N)`` or ``(M)``, positive: the masses of the angular momentum, and
            of the length in which ``v`` is projected; the weights of ``ow.orbit_posterior`` for
            endpoints.
        translations: also without the common translation, and about the (weighted) centre instead
            of the origin.

    Returns the shape of ``v``, 0 on padded rows, in the wider dtype of ``xt`` and ``v``; the work
    is done in float64, also under autocast, and waits for no accelerator (but with ``batch``
    without ``sizes``). Points on a line have two directions to turn in, points that coincide none:
    the missing ones fade out smoothly within 1e-6 of the points' size, so gradients are finite
    everywhere. NaN in, NaN out, for that item.

    Raises ``InputError`` for wrong shapes, devices and dtypes.
    >>> import torch
    >>> import orbitwise as ow
    >>> xt = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> v = torch.tensor([[0.5, 1.0, 0.0], [0.0, -1.0, 0.0]])  # it stretches, and it turns
    >>> ow.horizontal(xt, v)
    tensor([[0.5000, 0.0000, 0.0000],
            [0.0000, 0.0000, 0.0000]])
    """
    xt, v = points_of("xt", xt), tensor_of("v", v)
    if not v.is_floating_point():
        raise InputError(f"v must be floating point, not {v.dtype}")
    mask, batch, weights = (
        None if value is None else tensor_of(name, value)
        for name, value in (("mask", mask), ("batch", batch), ("weights", weights))
    )
    one_device(xt, v=v, mask=mask, batch=batch, weights=weights)
    if xt.ndim < 2:
        raise InputError(f"xt must be points (*B, N, D), not {tuple(xt.shape)}")
    if v.ndim < xt.ndim or v.shape[v.ndim - xt.ndim :] != xt.shape:
        raise InputError(
            f"v must have one vector per point: {tuple(xt.shape)}, or that with dimensions in"
            f" front, not {tuple(v.shape)}"
        )
    _per_point("mask", mask, xt, torch.bool)
    if weights is not None and not weights.is_floating_point():
        raise InputError(f"weights must be floating point, not {weights.dtype}")
    if batch is None:
        if sizes is not None:
            raise InputError("sizes are those of batch, which is not given")
        _per_point("weights", weights, xt, None)
        return horizontal_part(xt, v, mask, weights, translations=translations)

    if mask is not None:
        raise InputError("give batch (flat points) or mask (padded ones), not both")
    if xt.ndim != 2:
        raise InputError(f"with batch xt must be flat points (M, D), not {tuple(xt.shape)}")
    packing = Packing.of(batch, *(sizes or (None, None)))
    if weights is not None:
        weights = packing.pack("weights", weights, 0)
    found = horizontal_part(
        packing.pack("xt", xt),
        packing.pack("v", v),
        packing.mask,
        weights,
        translations=translations,
    )
    return packing.flat(found)


def _per_point(name: str, value: Any, xt: Tensor, dtype: torch.dtype | None) -> None:
    if value is None:
        return
    if value.shape not in (xt.shape[:-1], xt.shape[-2:-1]) or dtype not in (None, value.dtype):
        raise InputError(
            f"{name} must be {'' if dtype is None else 'bool '}of shape {tuple(xt.shape[:-1])}, one"
            f" per point, not {value.dtype} of {tuple(value.shape)}"
        )
