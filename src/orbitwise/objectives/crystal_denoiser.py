"""A crystal network made into an estimate of score and cell, well scaled at every noise level."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orbitwise.errors import InputError
from orbitwise.objectives.denoiser import Preconditioning
from orbitwise.processes.crystal import CrystalProcess, cell_lattice, cell_vector
from orbitwise.processes.crystal_sampling import CrystalEstimate
from orbitwise.processes.gaussian import beside

_NARROWEST = 0.02  # scatter given to a number of the cell that does not vary in the data, in log Å


class CrystalDenoiser(nn.Module):
    """``forward(frac, cell, t, batch) -> CrystalEstimate`` from ``network(frac, cell, t, batch)`` such as ``CSPNet``.

    Cells are standardised by ``cell_mean`` and ``cell_std`` (6,) of the training data (``fitted``), saved with the
    weights.
    """

    cell_mean: Tensor
    cell_std: Tensor

    def __init__(self, network: nn.Module, process: CrystalProcess, cell_mean: Tensor, cell_std: Tensor):
        super().__init__()
        if cell_mean.shape != (6,) or cell_std.shape != (6,) or not bool((cell_std > 0).all()):
            raise InputError("cell_mean and cell_std must be six numbers each, cell_std positive")
        self.network, self.process = network, process
        self.register_buffer("cell_mean", cell_mean.float())
        self.register_buffer("cell_std", cell_std.float())

    @classmethod
    def fitted(cls, network: nn.Module, process: CrystalProcess, batch) -> CrystalDenoiser:
        """With the mean and scatter of the cells of ``batch`` (``lattice (B, 3, 3)``, ``atoms (B,)``)."""
        vectors = cell_vector(batch.lattice.double(), batch.atoms.double())
        std = vectors.std(0) if len(vectors) > 1 else torch.zeros_like(vectors[0])
        return cls(network, process, vectors.mean(0), std.clamp_min(_NARROWEST))

    def standard_cell(self, lattice: Tensor, atoms: Tensor) -> Tensor:
        """``(B, 3, 3)`` in Å -> ``(B, 1, 6)``."""
        vector = cell_vector(lattice.double(), atoms.double()).to(self.cell_mean)
        return ((vector - self.cell_mean) / self.cell_std)[:, None]

    def lattice(self, cell: Tensor, atoms: Tensor) -> Tensor:
        """``(B, 1, 6)`` -> ``(B, 3, 3)`` in Å."""
        vector = (cell[:, 0] * self.cell_std + self.cell_mean).double()
        return cell_lattice(vector, atoms.to(vector)).to(cell)

    def pull_scale(self, t: Tensor) -> Tensor:
        """What one unit of the network's ``frac`` stands for, in fractions of the cell; ``(B,)``."""
        return self.process.frac.wrapped_sigma(t) * self.process.score_scale(t)

    def forward(self, frac: Tensor, cell: Tensor, t: Tensor, batch) -> CrystalEstimate:
        """``frac (B, N, 3)``, ``cell (B, 1, 6)`` standardised and noisy, ``t (B,)``."""
        c = Preconditioning.of(self.process.cell, t, self.cell_std.new_ones(()))
        out = self.network(frac, (beside(c.into) * cell)[:, 0], t, batch)
        return CrystalEstimate(
            beside(self.pull_scale(t)) * out.frac.to(frac),
            beside(c.skip) * cell + beside(c.out) * out.cell[:, None].to(cell),
        )
