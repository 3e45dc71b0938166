"""A network made into an estimate of E[x_1 | x_t], well scaled at every noise level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orbitwise.errors import InputError
from orbitwise.processes.gaussian import GaussianProcess, beside, centre
from orbitwise.processes.horizontal import Horizontal


def coordinate_scale(x: Tensor, mask: Tensor | None = None) -> float:
    """Root mean square of the centred coordinates, in the units of ``x: (B, N, D)``; ``mask: (B,
    N)``."""
    x = centre(x, mask)
    if mask is not None:
        x = x[mask]
    return float(x.square().mean().sqrt())


@dataclass(frozen=True)
class Preconditioning:
    """Karras 2206.00364 (eq. 7 and table 1) for any ``x_t = α x_1 + σ ε`` and data of scale s, all
    ``(*B)``.

    ``D = skip x_t + out F(into x_t, fraction)``: input and target of F have unit variance, and
    ``skip`` is the best linear estimate. ``fraction = α s/(α s + σ)`` in [0, 1] is what F sees of
    the time: 0 pure noise, 1 data, and it is t itself for the flow with ``scale = s``. ``weight =
    1/out²``.
    """

    skip: Tensor
    out: Tensor
    into: Tensor
    fraction: Tensor
    weight: Tensor

    @staticmethod
    def of(process: GaussianProcess, t: Tensor, scale: Tensor | float) -> Preconditioning:
        """At the times ``t: (*B)``."""
        signal, noise = process.alpha(t) * scale, process.sigma(t)
        noise = noise.clamp_min(torch.finfo(noise.dtype).tiny ** 0.5)  # for the limits at σ = 0
        variance = signal.square() + noise.square()
        into = variance.rsqrt()
        out = noise * scale * into
        return Preconditioning(
            skip=signal * scale / variance,
            out=out,
            into=into,
            fraction=signal / (signal + noise),
            weight=out.pow(-2),
        )


class Denoiser(nn.Module):
    """``forward(x_t, t, batch) -> E[x_1 | x_t]`` from a network ``network(x, fraction, batch)``.

    ``data_scale``: root mean square coordinate of the centred data (``coordinate_scale``), in the
    units of the data; it is saved with the weights. Where σ(t) = α(t) = 0 (start of a bridge)
    ``x_t`` is the origin and the network sees zeros and fraction 0. ``horizontal``: without what
    turns ``x_t``, in training and in use, as the mean itself is where the law of the data does not
    change under rotations. Raises ``InputError`` unless ``data_scale`` is positive.
    """

    data_scale: Tensor

    def __init__(
        self,
        network: nn.Module,
        process: GaussianProcess,
        data_scale: float,
        *,
        horizontal: bool = False,
    ):
        super().__init__()
        if not float(data_scale) > 0:
            raise InputError(
                f"data_scale must be positive, got {data_scale}; use coordinate_scale(x, mask)"
            )
        self.network = network
        self.process = process
        self.horizontal = horizontal
        self.register_buffer("data_scale", torch.tensor(float(data_scale)))

    def forward(self, xt: Tensor, t: Tensor, batch) -> Tensor:
        """``xt: (B, N, 3)``, ``t: (B,)``, ``batch`` with ``mask`` -> ``(B, N, 3)``, 0 on padded
        rows."""
        c = Preconditioning.of(self.process, t, self.data_scale.to(xt.dtype))
        raw = self.network(beside(c.into) * xt, c.fraction, batch)
        d = beside(c.skip) * xt + beside(c.out) * raw.to(xt.dtype)
        d = self.process.project(d, batch.mask) * batch.mask.unsqueeze(-1)
        if not self.horizontal:
            return d
        process = self.process.on(batch) if hasattr(self.process, "on") else self.process
        return Horizontal(process, batch.mask).part(xt, d)
