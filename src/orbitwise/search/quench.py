"""Quench a batch of structures to their local minima: limited-memory BFGS, every structure for
itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.search.base import start


@dataclass(frozen=True)
class Minimum:
    """``x`` (shape of the input), ``energy: (*B)`` kT, ``force: (*B)`` the largest force on a point
    (kT per unit length), ``converged: (*B)`` bool, ``steps: (*B)`` energy calls spent on each
    structure."""

    x: Tensor
    energy: Tensor
    force: Tensor
    converged: Tensor
    steps: Tensor


def minimise(
    x: Tensor,
    energy: Energy,
    *,
    tolerance: float = 0.1,
    max_steps: int = 300,
    max_move: float = 0.1,
    history: int = 10,
) -> Minimum:
    """Minimise ``energy`` from each of ``x: (*B, N, D)`` until no force is above ``tolerance``
    (kT/Å).

    L-BFGS (Nocedal, Math. Comp. 35, 773, 1980) with the two-loop recursion batched over structures.
    No point moves further than ``max_move`` in a step, so a structure stays in its basin; a step
    that does not lower the energy is taken back and tried again half as long. One
    energy-and-gradient call per structure and step; converged structures leave the batch. What has
    not converged after ``max_steps`` is returned as it is, with ``converged`` False. At 300 K,
    tolerance 1 leaves about 0.05 kT above the minimum after 30 to 60 calls per structure (enough to
    tell basins apart), 0.01 takes about 190. Raises ``EnergyError`` when a start is not finite.
    """
    lead = x.shape[: x.ndim - 2]
    x = x.detach().reshape(-1, *x.shape[-2:]).clone()
    value, grad = start(x, energy)
    steps = torch.ones_like(value, dtype=torch.long)
    out_x, out_value, out_grad = x.clone(), value.clone(), grad.clone()

    live = (_force(grad) > tolerance).nonzero().squeeze(-1)
    x, value, grad = x[live], value[live], grad[live]
    memory = _Memory.empty(grad, history)
    trust = torch.full_like(value, max_move)
    for _ in range(max_steps):
        if not len(live):
            break
        move = memory.direction(grad)
        downhill = (move * grad).flatten(1).sum(-1) < 0
        move = torch.where(downhill[:, None, None], move, -grad)
        longest = move.norm(dim=-1).amax(-1)
        move = move * (trust / longest.clamp_min(1e-30)).clamp_max(1.0)[:, None, None]
        slope = (move * grad).flatten(1).sum(-1)
        new_value, new_grad = energy.value_and_grad(x + move)
        steps[live] += 1
        finite = torch.isfinite(new_value) & torch.isfinite(new_grad).flatten(1).all(-1)
        new_grad = torch.where(finite[:, None, None], new_grad, grad)  # y = 0: not stored
        # sufficient decrease, with room for round-off close to the minimum
        room = 1e-4 * slope + 8 * torch.finfo(value.dtype).eps * value.abs()
        good = finite & (new_value <= value + room)
        memory.store(move, new_grad - grad)
        length = move.norm(dim=-1).amax(-1)
        trust = torch.where(good, (2 * trust).clamp_max(max_move), 0.5 * length)
        x = torch.where(good[:, None, None], x + move, x)
        value = torch.where(good, new_value, value)
        grad = torch.where(good[:, None, None], new_grad, grad)
        stuck = trust < 1e-9
        done = (_force(grad) <= tolerance) | stuck
        if bool(done.any()):
            out_x[live], out_value[live], out_grad[live] = x, value, grad
            stay = (~done).nonzero().squeeze(-1)
            live, x, value, grad, trust = live[stay], x[stay], value[stay], grad[stay], trust[stay]
            memory = memory.select(stay)
    out_x[live], out_value[live], out_grad[live] = x, value, grad
    force = _force(out_grad)
    shape = out_x.shape[-2:]
    return Minimum(
        out_x.reshape(*lead, *shape),
        out_value.reshape(lead),
        force.reshape(lead),
        (force <= tolerance).reshape(lead),
        steps.reshape(lead),
    )


def _force(grad: Tensor) -> Tensor:
    return grad.norm(dim=-1).amax(-1)


@dataclass
class _Memory:
    """A ring of steps ``s`` and gradient changes ``y``, ``(history, B, N, D)``; ``rho = 1/(s·y)``,
    zero for a pair without positive curvature (then it has no effect); ``scale: (B,)`` the guess of
    the inverse Hessian; ``next`` the slot to be overwritten, the oldest."""

    s: Tensor
    y: Tensor
    rho: Tensor
    scale: Tensor
    next: int = 0

    @classmethod
    def empty(cls, like: Tensor, history: int) -> _Memory:
        zero = torch.zeros((history, *like.shape), dtype=like.dtype, device=like.device)
        rho = torch.zeros((history, len(like)), dtype=like.dtype, device=like.device)
        return cls(zero, zero.clone(), rho, torch.full_like(rho[0], 1e-3))

    def store(self, s: Tensor, y: Tensor) -> None:
        sy, yy = (s * y).flatten(1).sum(-1), y.square().flatten(1).sum(-1).clamp_min(1e-30)
        ok = sy > 1e-10 * yy
        k = self.next
        self.s[k], self.y[k] = s, y
        self.rho[k] = torch.where(ok, 1 / sy.where(ok, torch.ones_like(sy)), 0.0)
        self.scale = torch.where(ok, sy / yy, self.scale)
        self.next = (k + 1) % len(self.s)

    def direction(self, grad: Tensor) -> Tensor:
        order = [(self.next + k) % len(self.s) for k in range(len(self.s))]  # oldest first
        r, alphas = grad, {}
        for k in reversed(order):
            alphas[k] = self.rho[k] * (self.s[k] * r).flatten(1).sum(-1)
            r = r - alphas[k][:, None, None] * self.y[k]
        r = self.scale[:, None, None] * r
        for k in order:
            beta = self.rho[k] * (self.y[k] * r).flatten(1).sum(-1)
            r = r + (alphas[k] - beta)[:, None, None] * self.s[k]
        return -r

    def select(self, rows: Tensor) -> _Memory:
        return _Memory(
            self.s[:, rows], self.y[:, rows], self.rho[:, rows], self.scale[rows], self.next
        )
