"""Replica exchange (parallel tempering): all temperatures and chains in one batched energy call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.search.base import Info, Kernel, State
from orbitwise.search.metropolis import per_chain, uniform


class Tempered(Energy):
    """``β U``: ``beta`` broadcasts against the batch ``(*B)``, one inverse temperature per chain or
    replica."""

    def __init__(self, inner: Energy, beta: Tensor | float):
        super().__init__()
        self.inner = inner
        self.event_shape = inner.event_shape
        self.zero_com = inner.zero_com
        self.register_buffer("beta", torch.as_tensor(beta))

    def forward(self, x: Tensor) -> Tensor:
        return self.beta.to(x.dtype) * self.inner(x)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, grad = self.inner.value_and_grad(x)
        beta = self.beta.to(x.dtype)
        return beta * value, per_chain(beta.expand_as(value), grad) * grad


def geometric_ladder(low: float, high: float, count: int) -> Tensor:
    """Inverse temperatures ``(count,)`` relative to ``low``: 1 for ``low`` down to ``low/high``, in
    equal ratios.

    Equal ratios give equal swap rates where the heat capacity is constant. Any unit of temperature.
    """
    if not 0 < low <= high or count < 1 or (count == 1 and high != low):
        raise InputError(
            f"a ladder needs 0 < low <= high and enough rungs, got {low}, {high}, {count}"
        )
    return (low / high) ** torch.linspace(0.0, 1.0, count, dtype=torch.float64)


@dataclass(frozen=True)
class ReplicaState(State):
    """Row r of every tensor belongs to temperature r: ``x: (T, *C, *event)``, ``energy`` and
    ``grad`` those of U itself (not βU), ``step_size: (T, *C)``.

    ``inner``: what the inner kernel carries besides. ``replica: (T, *C)``: which replica sits here;
    ``leg``: where it is on its way (0 has not been coldest yet, 1 was coldest last, 2 was hottest
    since). ``round_trips: (*C)``: journeys cold-hot-cold completed. ``parity``: which pairs swap
    next; ``steps``: steps made.
    """

    inner: State
    replica: Tensor
    leg: Tensor
    round_trips: Tensor
    parity: int
    steps: int


@dataclass(frozen=True)
class ReplicaInfo(Info):
    """``accepted, log_accept: (T, *C)`` of the inner kernel, whose own report is ``inner``;
    ``swap_tried: (T-1,)`` and ``swap_accepted: (T-1, *C)`` for the neighbours (r, r+1)."""

    swap_tried: Tensor
    swap_accepted: Tensor
    inner: Info

    @property
    def swap_rate(self) -> Tensor:
        """Accepted share of the tried swaps per pair, ``(T-1,)``; use it on a trace's averages."""
        accepted = self.swap_accepted.float().flatten(1).mean(1)
        return accepted / self.swap_tried.float()


@dataclass(frozen=True, eq=False)
class ReplicaExchange:
    """``kernel`` on ``β_r U`` for every row r, then swaps of neighbouring rows, even and odd pairs
    in turn.

    Deterministic even-odd swaps (Okabe et al. 2001; Syed et al. 2022, arXiv 1905.02939) accepted
    with ``min(1, exp((β_r - β_{r+1})(U_r - U_{r+1})))``; they cost no evaluation, since U and ∇U
    are cached.

    ``betas: (T,)`` descending, the target first (``geometric_ladder``); states have ``x: (T, *C,
    *event)``. Momenta and step sizes stay with their row. ``swap_every``: steps of ``kernel``
    between swaps. Raises ``InputError`` for betas that do not descend and starting points without T
    rows.
    """

    kernel: Kernel
    betas: Tensor
    swap_every: int = 1
    step_dims: ClassVar[int] = 1

    def __post_init__(self):
        if self.betas.ndim != 1 or not (self.betas > 0).all() or (self.betas.diff() >= 0).any():
            raise InputError(
                "replica exchange needs inverse temperatures (T,) > 0 in descending order"
            )
        if self.swap_every < 1:
            raise InputError(f"swap_every must be at least 1, got {self.swap_every}")

    @property
    def target_acceptance(self) -> float | None:
        return self.kernel.target_acceptance

    def init(self, x: Tensor, energy: Energy) -> ReplicaState:
        """``x: (T, *C, *event)``. Step sizes start at the inner kernel's times ``β^-½``."""
        rows = len(self.betas)
        lead = x.shape[: x.ndim - len(energy.event_shape)]
        if len(lead) < 2 or lead[0] != rows:
            raise InputError(
                f"{rows} temperatures need starts of shape ({rows}, chains, *event), got"
                f" {tuple(x.shape)}"
            )
        beta = self._beta(x, lead)
        inner = self.kernel.init(x, Tempered(energy, beta))
        replica = torch.arange(rows, device=x.device).view(-1, *[1] * (len(lead) - 1)).expand(lead)
        return ReplicaState(
            x=x,
            energy=inner.energy / beta,
            grad=inner.grad / per_chain(beta.expand(lead), x),
            step_size=inner.step_size * beta.rsqrt(),
            inner=inner,
            replica=replica,
            leg=torch.zeros(lead, dtype=torch.long, device=x.device),
            round_trips=torch.zeros(lead[1:], dtype=torch.long, device=x.device),
            parity=0,
            steps=0,
        )

    def _beta(self, x: Tensor, lead: torch.Size) -> Tensor:
        return self.betas.to(x).view(-1, *[1] * (len(lead) - 1))

    def step(
        self, state: ReplicaState, energy: Energy, generator: torch.Generator | None
    ) -> tuple[ReplicaState, ReplicaInfo]:
        lead = state.energy.shape
        beta = self._beta(state.x, lead)
        beta_x = per_chain(beta.expand(lead), state.x)
        inner = replace(
            state.inner,
            x=state.x,
            energy=beta * state.energy,
            grad=beta_x * state.grad,
            step_size=state.step_size,
        )
        inner, info = self.kernel.step(inner, Tempered(energy, beta), generator)
        state = replace(
            state,
            x=inner.x,
            energy=inner.energy / beta,
            grad=inner.grad / beta_x,
            inner=inner,
            steps=state.steps + 1,
        )
        tried = torch.zeros(len(self.betas) - 1, dtype=torch.bool, device=state.x.device)
        swapped = torch.zeros(
            (len(self.betas) - 1, *lead[1:]), dtype=torch.bool, device=state.x.device
        )
        if state.steps % self.swap_every == 0:
            pairs = slice(state.parity, None, 2)
            state, accepted = self._swap(state, beta, generator)
            tried[pairs], swapped[pairs] = True, accepted
        return state, ReplicaInfo(info.accepted, info.log_accept, tried, swapped, info)

    def _swap(
        self, state: ReplicaState, beta: Tensor, generator: torch.Generator | None
    ) -> tuple[ReplicaState, Tensor]:
        rows = len(self.betas)
        low, high = slice(state.parity, rows - 1, 2), slice(state.parity + 1, rows, 2)
        log_ratio = (beta[low] - beta[high]) * (state.energy[low] - state.energy[high])
        accepted = uniform(log_ratio.shape, log_ratio, generator).log() < log_ratio
        shift = torch.zeros_like(state.replica)
        shift[low] = accepted.long()
        shift[high] = -accepted.long()
        chains = shift[0].numel()
        place = torch.arange(shift.numel(), device=shift.device)
        source = place + chains * shift.flatten()

        def exchanged(t: Tensor) -> Tensor:
            flat = t.reshape(rows * chains, *t.shape[shift.ndim :])
            return flat.index_select(0, source).view(t.shape)

        leg = exchanged(state.leg)
        home = leg[0] == 2
        leg[0] = 1
        if rows > 1:  # a single row is no journey
            leg[-1] = leg[-1].masked_fill(leg[-1] == 1, 2)
        state = replace(
            state,
            x=exchanged(state.x),
            energy=exchanged(state.energy),
            grad=exchanged(state.grad),
            replica=exchanged(state.replica),
            leg=leg,
            round_trips=state.round_trips + home,
            parity=1 - state.parity,
        )
        return state, accepted
