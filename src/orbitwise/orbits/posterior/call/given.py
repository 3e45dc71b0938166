"""What a caller gave, as tensors that the solvers can work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from orbitwise.errors import InputError

T = TypeVar("T")


def tensor_of(name: str, value: Any) -> Tensor:
    """A tensor, or a NumPy array as one. Raises ``InputError`` for anything else."""
    if isinstance(value, Tensor):
        return value
    if hasattr(value, "__array__"):
        return torch.as_tensor(value)
    raise InputError(f"{name} must be a tensor or a NumPy array, not {type(value).__name__}")


def points_of(name: str, value: Any) -> Tensor:
    """Points in float32 or float64.

    Raises ``InputError`` for other kinds, half precision among them: at 8 or 11 bits the rounding
    of ``x_t`` is no noise that the process knows of.
    """
    x = tensor_of(name, value)
    if not x.is_floating_point():
        raise InputError(f"x1 and xt must be floating point; {name} is {x.dtype}")
    if x.dtype in (torch.float16, torch.bfloat16):
        raise InputError(
            f"{name} is {x.dtype}: coordinates need float32 or float64. Hand over the points as"
            " they were before autocast or .half(); the result can be rounded to any dtype"
        )
    return x


def one_device(xt: Tensor, **others: Tensor | None) -> None:
    """Raises ``InputError`` for a tensor that lies elsewhere than ``xt``."""
    for name, value in others.items():
        if value is not None and value.device != xt.device:
            raise InputError(f"xt is on {xt.device}, {name} on {value.device}: move one of them")


def times_of(t: Any, xt: Tensor) -> Tensor:
    """``(*B)`` or one number, in float64 on the device of ``xt: (*B, N, D)``; also from ``(*B, 1)``
    and ``(*B, 1, 1)``, which stand beside points."""
    times = torch.as_tensor(t, dtype=torch.float64, device=xt.device)
    batch = xt.shape[:-2]
    if times.ndim <= 2 and times.numel() == 1 and batch != times.shape:
        return times.reshape(())
    for beside in (1, 2):
        if times.shape == (*batch, *[1] * beside):
            return times.reshape(batch)
    if times.ndim and times.shape != batch:
        raise InputError(
            f"t must be one number per item: shape {tuple(batch)}, or that with (1) or (1, 1)"
            f" behind, or a single number; not {tuple(times.shape)}"
        )
    return times


@dataclass(frozen=True)
class Unchanged:
    """Points of which something is worked out later, as they were when they were given."""

    points: tuple[Tensor, ...]
    versions: tuple[int, ...]

    @classmethod
    def of(cls, *points: Tensor) -> Unchanged:
        # of others the solvers have copies; tensors of inference mode have no version
        own = (x for x in points if x.dtype == torch.float64)
        watched = tuple(x for x in own if not x.is_inference())
        return cls(watched, tuple(x._version for x in watched))

    def still(self, value: T) -> T:
        """``value``. Raises ``InputError`` where points were changed in place in the meantime."""
        if self.versions != tuple(x._version for x in self.points):
            raise InputError(
                "xt or x1 was changed in place after ow.orbit_posterior: log_evidence, score and"
                " the targets made of it are worked out when they are first read. Read them before,"
                " or change a copy (x = x + dx, not x += dx)"
            )
        return value
