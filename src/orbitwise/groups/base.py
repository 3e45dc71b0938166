"""What a symmetry group is: a few operations; everything done along an orbit derives from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor

Element = Any  # a Tensor (*S, *E); for a Product a tuple of Tensors
Kind = Literal["point", "vector"]
Ndim = int | tuple["Ndim", ...]  # of elements: one for each factor of a product
Axis = Literal["space", "points", "both"]  # "both": a product of a group of each
Device = torch.device | str | None


def unrounded(x: Tensor) -> AbstractContextManager[object]:
    """Where autocast leaves matrix products of coordinates alone: a rotation to the 8 bits of
    bfloat16 is none."""
    return torch.autocast(x.device.type, enabled=False)


def turned(x: Tensor, matrix: Tensor) -> Tensor:
    """Rows ``x -> x @ matrix.mT``, in float32 at least whatever autocast says; the dtype of ``x``.

    ``x: (*B, N, D)``, ``matrix: (*S, D, D)``, broadcast.
    """
    precise = torch.promote_types(x.dtype, torch.float32)
    with unrounded(x):
        return (x.to(precise) @ matrix.to(precise).mT).to(x.dtype)


class Group(ABC):
    """A symmetry group acting on batches of points.

    Shapes: an element batch is ``(*S, *E)`` with ``len(E) == element_ndim``; points are ``(*B, N,
    D)``; ``act`` broadcasts ``S`` against ``B`` from the right, so ``g: (K, *B, *E)`` gives ``(K,
    *B, N, D)``.

    ``axis`` says what the group moves: the coordinates of every point alike (``"space"``) or which
    point is which (``"points"``). Two factors of a ``Product`` commute when they act on different
    axes. ``element_ndim``: the number of axes ``E`` of an element, of a ``Product`` one for each
    factor; ``event_ndim``: trailing axes of one item, (N, D) for points.
    """

    element_ndim: Ndim
    axis: Axis
    event_ndim: int = 2

    @abstractmethod
    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> Element:
        """Haar-distributed elements, shape ``(*shape, *E)``."""

    @abstractmethod
    def identity(
        self, shape: Sequence[int] = (), *, device: Device = None, dtype: torch.dtype | None = None
    ) -> Element:
        """The neutral element, shape ``(*shape, *E)``."""

    @abstractmethod
    def compose(self, g: Element, h: Element) -> Element:
        """``g h``: first ``h``, then ``g``, so that ``act(compose(g, h), x) == act(g, act(h,
        x))``."""

    @abstractmethod
    def inverse(self, g: Element) -> Element:
        """``g⁻¹``."""

    @abstractmethod
    def act(
        self, g: Element, x: Tensor, mask: Tensor | None = None, kind: Kind = "point"
    ) -> Tensor:
        """``g·x``. ``x: (*B, N, D)``, ``mask: (*B, N)`` (True = real point; padded rows stay as
        they are).

        ``kind="vector"`` is for velocities, forces and scores: a translation leaves them alone and
        an O(3) or permutation element moves them as it moves points.
        """

    def enumerate(
        self, *, device: Device = None, dtype: torch.dtype | None = None
    ) -> tuple[Element, Tensor]:
        """All elements ``(M, *E)`` and their log Haar weights ``(M,)`` (sum of exp = 1).

        Raises ``NoClosedFormError`` for a group that is not finite or too large to enumerate.
        """
        from orbitwise.errors import NoClosedFormError

        raise NoClosedFormError(
            f"{type(self).__name__} cannot be enumerated; draw elements with .sample"
        )

    @property
    def finite(self) -> bool:
        """Whether ``enumerate`` works."""
        return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
