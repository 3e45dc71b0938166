"""What an energy is: U(x) in units of kT, batched, with its gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Energy(nn.Module):
    """``U: (*B, *event_shape) -> (*B)`` in units of kT (dimensionless): the target density is
    exp(-U).

    A subclass defines ``forward`` and ``event_shape``; it may override ``value_and_grad`` with an
    analytic gradient. Parameters are buffers, so ``.to(device, dtype)`` works.

    ``zero_com`` is True when U does not change under a common shift of all points, so that a
    density exists only in the 3(N-1)-dimensional subspace of zero centre of mass.
    """

    event_shape: tuple[int, ...]
    zero_com: bool = False
    log_z: float | None = None  # log of the normaliser where it is known

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define forward(x) -> (*B)")

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(U, ∇U)`` in one pass: shapes ``(*B)`` and that of ``x``; both detached."""
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            u = self(x)
            (grad,) = torch.autograd.grad(u.sum(), x)
        return u.detach(), grad
