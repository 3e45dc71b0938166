"""Noise on a crystal: wrapped normal on the fractional coordinates, Gaussian on the shape of the
cell."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from orbitwise.processes.gaussian import GaussianProcess
from orbitwise.processes.wrapped_normal import WrappedNormalProcess

_UPPER = ((0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2))  # places of the six numbers of a symmetric matrix
_WEIGHT = (
    1.0,
    1.0,
    1.0,
    math.sqrt(2),
    math.sqrt(2),
    math.sqrt(2),
)  # so that lengths are Frobenius norms


def cell_vector(lattice: Tensor, atoms: Tensor) -> Tensor:
    """Six numbers for the cell, whatever its orientation: ``½ log(L Lᵀ) - ⅓ log(atoms)``, ``(B,
    6)``.

    ``lattice: (B, 3, 3)`` rows in Å, ``atoms: (B,)``. The matrix logarithm of the polar factor
    (Jiao 2402.03992, eq. 6): every vector stands for a cell, and the volume per atom is ``exp`` of
    the sum of the first three.
    """
    values, vectors = torch.linalg.eigh(lattice @ lattice.mT)
    logs = 0.5 * values.clamp_min(torch.finfo(values.dtype).tiny).log() - atoms.log()[..., None] / 3
    matrix = (vectors * logs[..., None, :]) @ vectors.mT
    return matrix[..., *_UPPER] * matrix.new_tensor(_WEIGHT)


def cell_lattice(vector: Tensor, atoms: Tensor) -> Tensor:
    """The symmetric lattice ``(B, 3, 3)`` in Å of ``cell_vector``; any rotation of it is the same
    crystal."""
    entries = vector / vector.new_tensor(_WEIGHT)
    i, j = _UPPER
    matrix = vector.new_zeros(*vector.shape[:-1], 3, 3)
    matrix[..., i, j] = entries
    matrix[..., j, i] = entries
    values, vectors = torch.linalg.eigh(matrix)
    lengths = (values + atoms.log()[..., None] / 3).exp()
    return (vectors * lengths[..., None, :]) @ vectors.mT


@dataclass(frozen=True)
class CrystalProcess:
    """Both noises at one time. ``frac``: of the fractional coordinates ``(B, N, 3)``; ``cell``: of
    the cell vector ``(B, 1, 6)``, standardised; t = 0 noise, t = 1 data (Jiao 2309.04475, 4.1 and
    4.2)."""

    frac: WrappedNormalProcess = field(default_factory=WrappedNormalProcess)
    cell: GaussianProcess = field(default_factory=GaussianProcess.vp)

    def score_scale(self, t: Tensor) -> Tensor:
        """Root mean square of ``σ · score`` of one wrapped coordinate, ``(B,) -> (B,)``: 1 for
        narrow noise, small when the noise has gone around the cell. The target in these units has
        unit variance (2309.04475, eq. 9)."""
        sigma = self.frac.wrapped_sigma(t.double())
        # the density is an even, smooth function: trapezoidal nodes on the part of the circle that
        # has mass
        reach = (9 * sigma).clamp(max=0.5)
        nodes = reach[:, None] * torch.linspace(-1, 1, 193, dtype=sigma.dtype, device=sigma.device)
        zero = torch.zeros_like(nodes)[..., None, None]
        at = nodes[..., None, None]
        spread = t.double()[:, None].expand(nodes.shape)
        density = self.frac.log_density(at, zero, spread).exp()
        square = (self.frac.score(at, zero, spread)[..., 0, 0] * sigma[:, None]).square()
        density[:, 0] *= 0.5
        density[:, -1] *= 0.5
        return ((density * square).sum(-1) / density.sum(-1)).sqrt().to(t)
