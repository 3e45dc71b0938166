"""Grids under arbitrary rotations: how much of an apparent equivariance error is interpolation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from orbitwise.audit.batch import AuditBatch
from orbitwise.audit.equivariance import audit_equivariance
from orbitwise.audit.nodes import Nodes
from orbitwise.audit.result import Audit
from orbitwise.data.batch import PointBatch
from orbitwise.data.voxels import VoxelGrid
from orbitwise.groups.so3 import SO3
from orbitwise.groups.voxels import rotate_grid

_CHUNK = 48  # grids in one call


class TurnedGrids:
    """Denoising of molecules on a grid, audited under all rotations. Inputs are densities of turned
    positions, so these are exact; only their noise (standard deviation ``sigma``) and the answer
    are turned by ``rotate_grid``.

    The noise is drawn on a larger grid, so that no corner of the turned one is empty. The loss is
    over the voxels whose distance from the middle is at most half a side less two voxels. All
    audits have the same items, noise and rotations; ``nodes``: by default two random turns of the
    12 rotations of the tetrahedron.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        batch: PointBatch,
        sigma: float,
        *,
        nodes: Nodes | None = None,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator(batch.x.device).manual_seed(seed)
        self.grid, self.nodes, self.seed = grid, nodes, seed
        self.placed = grid.place(batch, None, generator)
        self.clean = grid.voxelise(self.placed)
        self.margin = math.ceil((math.sqrt(3) - 1) / 2 * grid.n) + 1
        side = grid.n + 2 * self.margin
        like = {"device": self.clean.device, "dtype": self.clean.dtype}
        self.noise = sigma * torch.randn(
            *self.clean.shape[:2], side, side, side, generator=generator, **like
        )
        self.rotations = SO3().sample((len(self.clean),), generator=generator, **like)
        line = torch.arange(grid.n, **like) - (grid.n - 1) / 2
        square = line[:, None, None] ** 2 + line[:, None] ** 2 + line**2
        self.inside = (square <= (grid.n / 2 - 2) ** 2).to(self.clean)

    def audit(self, model: Callable[[Tensor], Tensor]) -> Audit:
        """Of ``model(y) -> (B, C, n, n, n)``; the equivariance error holds what interpolation
        adds."""
        return self._audit(lambda y, density: model(y))

    @cached_property
    def identity(self) -> Audit:
        """Of the answer that is the noisy input."""
        return self._audit(lambda y, density: y)

    @cached_property
    def smoothing(self) -> Audit:
        """Of the best multiple of a Gaussian smoothing as wide as an atom."""
        rough = self._smoothed(self.clean + self._inner(self.noise))
        multiple = (rough * self.clean).sum() / rough.square().sum()
        return self._audit(lambda y, density: multiple * self._smoothed(y))

    @cached_property
    def perfect(self) -> Audit:
        """Of the clean density as the answer, which nothing but turning it back changes."""
        return self._audit(lambda y, density: density)

    def round_trip(self, x: Tensor) -> float:
        """Rms change of grids ``(B, C, n, n, n)`` that are turned and turned back, over their
        rms."""
        back = rotate_grid(self.rotations.mT, rotate_grid(self.rotations, x))
        return float((self.inside * (back - x)).norm() / (self.inside * x).norm())

    @property
    def noise_kept(self) -> float:
        """Variance of the turned noise over that of the noise."""
        return float(self._inner(rotate_grid(self.rotations, self.noise)).var() / self.noise.var())

    @property
    def noisy(self) -> Tensor:
        """The inputs in the orientation of the data."""
        return self.clean + self._inner(self.noise)

    def _audit(self, answer: Callable[[Tensor, Tensor], Tensor]) -> Audit:
        def turned_back(
            x: Tensor, frame: Tensor, species: Tensor, mask: Tensor, noise: Tensor
        ) -> Tensor:
            rotation = frame.mT  # rows of the frame are the turned axes
            empty = species.new_zeros(*species.shape, species.shape[-1])
            density = self.grid.voxelise(PointBatch(x, species, empty, mask))
            found = answer(density + self._inner(rotate_grid(rotation, noise)), density)
            return self.inside * rotate_grid(rotation.mT, found)

        axes = torch.eye(3).to(self.clean).expand(len(self.clean), 3, 3)
        placed = self.placed
        # no mask for the audit itself: padded points lie at the origin, and the answers are grids
        whole = AuditBatch(
            placed.x,
            self.inside * self.clean,
            (placed.species, placed.mask, self.noise),
            moved=(axes,),
            level="rotations",
        )
        parts = [whole[index] for index in torch.arange(len(whole)).split(8)]
        same = torch.Generator(self.clean.device).manual_seed(self.seed + 1)
        with torch.no_grad():
            report = audit_equivariance(
                turned_back,
                SO3(),
                parts,
                outputs="invariant",
                nodes=self.nodes,
                generator=same,
                chunk=_CHUNK,
            )
        return report.row()

    def _inner(self, field: Tensor) -> Tensor:
        inner = slice(self.margin, self.margin + self.grid.n)
        return field[..., inner, inner, inner]

    def _smoothed(self, y: Tensor) -> Tensor:
        line = self.grid.spacing_angstrom * torch.arange(
            self.grid.n, device=y.device, dtype=y.dtype
        )
        kernel = torch.exp(-((line[:, None] - line) ** 2) / self.grid.width_angstrom**2)
        kernel = kernel / kernel[self.grid.n // 2].sum()
        return torch.einsum("ai,bj,ck,...ijk->...abc", kernel, kernel, kernel, y)


@dataclass(frozen=True)
class InterpolationAudit:
    """Apparent equivariance under all rotations, of a model and of maps that are equivariant up to
    interpolation: ``identity``, ``smoothing`` and ``perfect`` of ``TurnedGrids``.
    ``round_trip_clean`` and ``round_trip_noisy``: rms change of grids without and with noise that
    are turned and turned back; ``noise_kept``: the part of its variance that turned noise keeps.
    The model's inputs are that much quieter than in training."""

    model: Audit
    identity: Audit
    smoothing: Audit
    perfect: Audit
    round_trip_clean: float
    round_trip_noisy: float
    noise_kept: float

    @property
    def percent_interpolated(self) -> float:
        """Of the model's loss: the error that turning back a perfect answer brings."""
        return 100 * self.perfect.equivariance.value / self.model.total.value

    def lines(self) -> list[str]:
        """For a terminal."""
        m, s, i = (f"{a.percent.value:.3g} %" for a in (self.model, self.smoothing, self.identity))
        return [
            (
                f"all rotations: {m} of the loss looks like equivariance error, interpolation"
                f" included; of maps that are equivariant {s} (Gaussian smoothing) and {i}"
                " (identity) do"
            ),
            (
                f"turning back a perfect answer alone makes {self.percent_interpolated:.2g} % of"
                " the model's loss"
            ),
            (
                f"turned and turned back a grid changes by {100 * self.round_trip_clean:.3g} %"
                f" (clean), {100 * self.round_trip_noisy:.3g} % (noisy); turned noise keeps"
                f" {100 * self.noise_kept:.3g} % of its variance"
            ),
        ]


def interpolation_audit(
    model: Callable[[Tensor], Tensor], turned: TurnedGrids
) -> InterpolationAudit:
    """The audit of ``model`` under all rotations beside those of equivariant maps."""
    return InterpolationAudit(
        model=turned.audit(model),
        identity=turned.identity,
        smoothing=turned.smoothing,
        perfect=turned.perfect,
        round_trip_clean=turned.round_trip(turned.clean),
        round_trip_noisy=turned.round_trip(turned.noisy),
        noise_kept=turned.noise_kept,
    )
