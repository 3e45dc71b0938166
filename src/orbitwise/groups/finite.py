"""Finite groups of matrices: point groups, sign flips."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.base import Device, Group, Kind, turned


class Finite(Group):
    """The finite group of the given matrices ``(M, D, D)``, acting on coordinates as ``x -> x @
    A.mT``.

    An element is the index of its matrix in the table: a ``long`` tensor ``(*S)``. ``±1`` on the
    line is ``Finite(torch.tensor([[[1.0]], [[-1.0]]]))``. The matrices need not be orthogonal.

    Raises ``InputError`` when the matrices are not a group (closed, distinct, with the identity).
    >>> import torch
    >>> import orbitwise as ow
    >>> signs = ow.Finite(torch.tensor([[[1.0]], [[-1.0]]]))
    >>> g, log_haar = signs.enumerate()
    >>> signs.act(g, torch.tensor([[2.0]])).flatten().tolist()
    [2.0, -2.0]
    >>> signs.compose(torch.tensor(1), torch.tensor(1)).item()
    0
    """

    element_ndim = 0
    axis = "space"

    def __init__(self, matrices: Tensor):
        if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or not len(matrices):
            raise InputError(
                f"Finite takes matrices of shape (M, D, D), not {tuple(matrices.shape)}"
            )
        table = matrices.detach().to("cpu", torch.float64)
        flat = table.flatten(1)
        products = (table[:, None] @ table).flatten(2)
        distance = torch.cdist(products, flat.expand(len(flat), -1, -1))  # (M, M, M)
        nearest, self._product = distance.min(-1)
        scale = 1 + flat.norm(dim=-1).max() ** 2
        same = torch.cdist(flat, flat) + torch.eye(len(flat))
        unit = (flat - torch.eye(table.shape[1], dtype=flat.dtype).flatten()).norm(dim=-1)
        if not nearest.max() < 1e-4 * scale or unit.min() > 1e-4 * scale or same.min() < 1e-3:
            raise InputError(
                f"the {len(flat)} matrices are not a group: they must be distinct, hold the"
                " identity, and the product of any two must be among them"
            )
        self._identity = int(unit.argmin())
        self._inverse = (self._product == self._identity).int().argmax(-1)
        self.matrices = table
        self._elsewhere: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def finite(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self.matrices)

    def enumerate(
        self, *, device: Device = None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """All indices ``(M,)`` and the log Haar weights ``-log M``."""
        size = len(self.matrices)
        weights = torch.full(
            (size,), -math.log(size), device=device, dtype=dtype or torch.get_default_dtype()
        )
        return torch.arange(size, device=device), weights

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Uniform elements: indices ``(*shape)``; ``dtype`` is not used."""
        source = generator.device if generator is not None else device
        g = torch.randint(0, len(self.matrices), tuple(shape), generator=generator, device=source)
        return g.to(device or g.device)

    def identity(
        self, shape: Sequence[int] = (), *, device: Device = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        return torch.full(tuple(shape), self._identity, device=device)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return self._tables(g.device)[1][g, h]

    def inverse(self, g: Tensor) -> Tensor:
        return self._tables(g.device)[2][g]

    def act(self, g: Tensor, x: Tensor, mask: Tensor | None = None, kind: Kind = "point") -> Tensor:
        if x.shape[-1] != self.matrices.shape[-1]:
            raise InputError(
                f"this Finite group acts on points in {self.matrices.shape[-1]} dimensions, not"
                f" {x.shape[-1]}"
            )
        moved = turned(x, self._tables(x.device)[0][g])
        return moved if mask is None else torch.where(mask[..., None], moved, x)

    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Matrices ``(M, D, D)``, products ``(M, M)`` and inverses ``(M,)`` on a device, brought
        there once."""
        tables = self.matrices, self._product, self._inverse
        if device.type == "cpu":
            return tables
        if device not in self._elsewhere:
            with torch.inference_mode(False):  # for later calls too, whatever their mode
                matrices, product, inverse = (table.to(device) for table in tables)
            self._elsewhere[device] = matrices, product, inverse
        return self._elsewhere[device]

    def __repr__(self) -> str:
        return f"Finite(order={len(self.matrices)}, dim={self.matrices.shape[-1]})"
