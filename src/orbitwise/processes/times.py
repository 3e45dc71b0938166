"""The times at which a shipped process is defined, and what is said of others."""

from __future__ import annotations

import torch
from torch import Tensor

from orbitwise.errors import InputError

SPAN = (0.0, 1.0)  # noise, data
ROUNDING = 1e-6  # how far beyond the ends a time may lie that was summed up in float32


def inside(t: Tensor, span: tuple[float, float] = SPAN) -> Tensor:
    """Whether each time lies in ``span``, up to rounding, shape of ``t``; False for NaN."""
    return (t >= span[0] - ROUNDING) & (t <= span[1] + ROUNDING)


def outside(t: Tensor, span: tuple[float, float] = SPAN) -> InputError:
    """What to say where a time does not."""
    flat = t.detach().double().flatten().cpu()
    worst = flat[~inside(flat, span)][0].item()
    low, high = span
    return InputError(
        f"t = {worst:g} is outside this process: t lies in [{low:g}, {high:g}], {low:g} is noise"
        f" and {high:g} data; a step index k of T (k = T: noise) is t = 1 - k/T"
    )


def refuse_outside(t: Tensor) -> None:
    """Raises ``InputError`` for a time that is NaN or not in [0, 1].

    Only where looking costs nothing: not on an accelerator, which would have to wait, nor inside
    ``torch.compile`` and ``torch.func``, where values cannot be looked at.
    """
    if torch.compiler.is_compiling() or not isinstance(t, Tensor) or t.device.type != "cpu":
        return
    if torch._C._functorch.is_functorch_wrapped_tensor(t):
        return
    if not inside(t).all():
        raise outside(t)


def refuse_other_than_tensors(**given: object) -> None:
    """Raises ``InputError`` for points or times that are no tensors."""
    for name, value in given.items():
        if value is not None and not isinstance(value, Tensor):
            raise InputError(
                f"{name} must be a torch.Tensor, not {type(value).__name__}; torch.as_tensor makes"
                " one of a NumPy array or a number"
            )
