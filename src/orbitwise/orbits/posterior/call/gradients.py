"""``log_evidence`` with its gradients, and results that say so where they have none.

The gradient of the log evidence in ``x_t`` is ``.score``. That in ``x1`` is the score with the
roles exchanged: ``⟨x_t, g·x1⟩ = ⟨g⁻¹·x_t, x1⟩`` where the group acts by orthogonal maps, and μ does
not change under ``g → g⁻¹``; on the torus ``x_t − g·x1`` likewise.

    ∇_{x1} log evidence = (alpha/sigma²) (E[g⁻¹·x_t] − alpha x1)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from orbitwise.errors import InputError

_functorch = torch._C._functorch


def plain(x: Tensor) -> Tensor:
    """The values alone, without ``torch.func``'s wrappings and without gradients.

    Raises ``InputError`` under ``torch.vmap`` and under forward-mode differentiation.
    """
    if torch.autograd.forward_ad.unpack_dual(x).tangent is not None:
        raise InputError(
            "ow.orbit_posterior has no forward-mode derivatives (torch.func.jvp, jacfwd): use grad,"
            " vjp or jacrev of .log_evidence"
        )
    while _functorch.is_functorch_wrapped_tensor(x):
        if _functorch.is_batchedtensor(x):
            raise InputError(
                "ow.orbit_posterior under torch.vmap: it takes batches as they are, points (*B, N,"
                " D) with t (*B); call it outside of vmap"
            )
        x = _functorch.get_unwrapped(x)
    return x.detach()


def tracked(x: Tensor) -> bool:
    """Whether ``torch.func`` differentiates with respect to ``x``, or something that ``x`` is made
    from."""
    return bool(_functorch.is_functorch_wrapped_tensor(x))


@dataclass(frozen=True)
class Slopes:
    """The gradients of a log evidence ``(*B)``, worked out when asked: ``of_xt()``, ``of_x1()``, in
    the shapes of those. ``beside``: ``(*B)`` -> a factor that stands beside such points."""

    of_xt: Callable[[], Tensor]
    of_x1: Callable[[], Tensor]
    beside: Callable[[Tensor], Tensor]


class _Evidence(torch.autograd.Function):
    """``value``, whose gradients are ``slopes``."""

    @staticmethod
    def forward(xt: Tensor, x1: Tensor, value: Tensor, slopes: Slopes) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        xt, x1, _, ctx.slopes = inputs
        ctx.save_for_backward(xt, x1)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (xt, x1) = upstream, ctx.saved_tensors
        factor, what = ctx.slopes.beside(grad), "second derivatives"
        wanted = ctx.needs_input_grad
        towards_xt = factor * only(ctx.slopes.of_xt(), (xt, x1), what) if wanted[0] else None
        towards_x1 = factor * only(ctx.slopes.of_x1(), (xt, x1), what) if wanted[1] else None
        return towards_xt, towards_x1, None, None


class _Only(torch.autograd.Function):
    """``value``, which depends on the points in a way that is not differentiated here."""

    @staticmethod
    def forward(xt: Tensor, x1: Tensor, value: Tensor, what: str) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.what = inputs[3]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[None, ...]:
        raise InputError(
            f"{ctx.what} of ow.orbit_posterior in x_t or x1 are not there: only the exact"
            " log_evidence has gradients; .detach() the points where they are meant as constants"
        )


def only(value: Tensor, points: tuple[Tensor, Tensor], what: str) -> Tensor:
    """``value``, refused where somebody differentiates it with respect to ``x_t`` or ``x1``."""
    result: Tensor = _Only.apply(*points, value, what)  # type: ignore[no-untyped-call]
    return result


def with_slopes(value: Tensor, points: tuple[Tensor, Tensor], slopes: Slopes) -> Tensor:
    """The log evidence ``value`` with its gradients in ``x_t`` and ``x1``."""
    result: Tensor = _Evidence.apply(*points, value, slopes)  # type: ignore[no-untyped-call]
    return result
