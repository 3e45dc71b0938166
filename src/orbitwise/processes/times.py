"""The times at which a shipped process is defined, and what is said of others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.errors import InputError

ROUNDING = 1e-6  # how far beyond the ends a time may lie that was summed up in float32


@dataclass(frozen=True)
class Times:
    """Times from ``noise`` to ``data``; ``ow.orbit_posterior`` keeps to those of ``process.times``,
    if a process has them."""

    noise: float = 0.0
    data: float = 1.0

    def hold(self, t: Tensor) -> Tensor:
        """Whether each time is one of these, up to rounding, shape of ``t``; False for NaN."""
        return (t >= self.noise - ROUNDING) & (t <= self.data + ROUNDING)

    def refusal(self, t: Tensor) -> InputError:
        """What to say where one is not."""
        flat = t.detach().double().flatten().cpu()
        worst = flat[~self.hold(flat)][0].item()
        return InputError(
            f"t = {worst:g} is outside this process: t lies in [{self.noise:g}, {self.data:g}],"
            f" {self.noise:g} is noise and {self.data:g} data; a step index k of T (k = T: noise)"
            " is t = 1 - k/T"
        )


SPAN = Times()


def refuse_outside(t: Tensor) -> None:
    """Raises ``InputError`` for a time that is NaN or not in [0, 1].

    Only where looking costs nothing: not on an accelerator, which would have to wait, nor inside
    ``torch.compile`` and ``torch.func``, where values cannot be looked at.
    """
    if torch.compiler.is_compiling() or not isinstance(t, Tensor) or t.device.type != "cpu":
        return
    if torch._C._functorch.is_functorch_wrapped_tensor(t):
        return
    if not SPAN.hold(t).all():
        raise SPAN.refusal(t)


def refuse_other_than_tensors(**given: object) -> None:
    """Raises ``InputError`` for points or times that are no tensors."""
    for name, value in given.items():
        if value is not None and not isinstance(value, Tensor):
            raise InputError(
                f"{name} must be a torch.Tensor, not {type(value).__name__}; torch.as_tensor makes"
                " one of a NumPy array or a number"
            )
