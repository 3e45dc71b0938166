"""The one loop that runs a kernel and keeps samples."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.search.base import Info, Kernel, State


@dataclass(frozen=True)
class Trace:
    """What a run left.

    ``x: (S, *B, *event)`` and ``energy: (S, *B)`` [kT], every ``thin``-th state (rejections repeat
    the old one), with ``grad`` (shape of x) where it was asked for; ``state`` after the last step;
    ``steps`` made; ``seconds``; ``interrupted`` by Ctrl-C. ``rates`` is the kernel's ``Info``
    averaged over the steps: every boolean field turned into a rate of the same shape,
    ``log_accept`` into the log of the mean acceptance probability (None for a run of no steps).
    """

    x: Tensor
    energy: Tensor
    state: State
    rates: Info | None
    steps: int
    seconds: float
    interrupted: bool
    grad: Tensor | None = None

    @property
    def acceptance(self) -> Tensor:
        """Accepted share of the proposals, ``(*B)``."""
        return self.rates.accepted

    def count(self, name: str) -> int:
        """How often the event ``name`` (a boolean field of an ``Info``, nested ones included)
        happened in all chains, for example ``"left_class"``."""
        return round(sum(float(rate.sum()) for rate in _find(self.rates, name)) * self.steps)


def run(
    kernel: Kernel,
    state: State,
    energy: Energy,
    steps: int,
    *,
    generator: torch.Generator | None = None,
    thin: int = 1,
    row: int | None = None,
    gradients: bool = False,
    observe: Callable[[int, State, Info], object] | None = None,
    every: int = 1,
) -> Trace:
    """Make ``steps`` steps from ``state`` and keep every ``thin``-th.

    ``gradients`` keeps those of the states as well; they are cached, so it costs memory alone.
    ``row`` keeps only this index of the first batch dimension: 0 is the target temperature of a
    replica exchange. ``observe(n, state, info)`` is called after every ``every``-th step, for
    progress or diagnosis; a true answer ends the run. Ctrl-C ends it too and returns what there is,
    with ``interrupted`` set: a state is replaced as a whole, so it is never half a step. Raises
    ``InputError`` for thin or every below 1.
    """
    if thin < 1 or every < 1:
        raise InputError(f"thin and every must be at least 1, got {thin} and {every}")
    begin = time.perf_counter()
    kept, grads, energies, total, done, interrupted = [], [], [], None, 0, False
    try:
        for n in range(1, steps + 1):
            state, info = kernel.step(state, energy, generator)
            total, done = _add(total, info), n
            if n % thin == 0:
                kept.append(state.x if row is None else state.x[row].clone())
                if gradients:
                    grads.append(state.grad if row is None else state.grad[row].clone())
                energies.append(state.energy if row is None else state.energy[row].clone())
            if observe is not None and n % every == 0 and observe(n, state, info):
                break
    except KeyboardInterrupt:
        interrupted = True

    whole = len(energies)  # an interruption between the two appends leaves one position too many
    first = (state.x, state.energy) if row is None else (state.x[row], state.energy[row])
    x = torch.stack(kept[:whole]) if whole else first[0].new_empty(0, *first[0].shape)
    values = torch.stack(energies) if whole else first[1].new_empty(0, *first[1].shape)
    grad = (
        torch.stack(grads[:whole])
        if whole and gradients
        else torch.zeros_like(x)
        if gradients
        else None
    )
    rates = _scale(total, done) if done else None
    return Trace(x, values, state, rates, done, time.perf_counter() - begin, interrupted, grad)


def _add(total: Info | None, info: Info) -> Info:
    """Sum of reports, field by field; the first turns booleans into numbers."""
    return _map(
        lambda name, a, b: _number(name, b) if a is None else a + _number(name, b), total, info
    )


def _number(name: str, value: Tensor) -> Tensor:
    return value.double().exp() if name == "log_accept" else value.to(torch.float64)


def _scale(total: Info, steps: int) -> Info:
    return _map(
        lambda name, _, b: (b / steps).log() if name == "log_accept" else b / steps, None, total
    )


def _map(f: Callable, a, b):
    """Apply ``f(field name, from a, from b)`` to every tensor of two equally nested reports (``a``
    may be None)."""
    changed = {}
    for field in fields(b):
        old, new = getattr(a, field.name, None), getattr(b, field.name)
        if isinstance(new, tuple):
            changed[field.name] = tuple(
                _map(f, old[i] if old else None, part) for i, part in enumerate(new)
            )
        elif is_dataclass(new):
            changed[field.name] = _map(f, old, new)
        else:
            changed[field.name] = f(field.name, old, new)
    return replace(b, **changed)


def _find(info, name: str) -> list[Tensor]:
    found = []
    for field in fields(info):
        value = getattr(info, field.name)
        if field.name == name:
            found.append(value)
        for part in value if isinstance(value, tuple) else (value,):
            if is_dataclass(part):
                found += _find(part, name)
    return found
