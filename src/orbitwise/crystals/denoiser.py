"""A crystal network made into an estimate of score and cell, well scaled at every noise level."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orbitwise.crystals.process import CrystalProcess, cell_lattice, cell_vector
from orbitwise.crystals.sampling import CrystalEstimate
from orbitwise.errors import InputError
from orbitwise.objectives.denoiser import Preconditioning
from orbitwise.processes.gaussian import beside

_NARROWEST = 0.02  # scatter given to a number of the cell that does not vary in the data, in log Å
_SAME = 1e-3  # scatter of texts that are all alike


class CrystalDenoiser(nn.Module):
    """``forward(frac, cell, t, batch) -> CrystalEstimate`` from ``network(frac, cell, t, batch)``
    such as ``CSPNet``.

    Cells are standardised by ``cell_mean`` and ``cell_std`` (6,) of the training data (``fitted``),
    saved with the weights; so are embedded texts, number by number, by ``prompt_mean`` and
    ``prompt_std`` (2, P) where these are given, of whole texts and of what they say about an atom:
    sentences of one kind lie close together. Zeros are no text, and stay so.
    """

    cell_mean: Tensor
    cell_std: Tensor
    prompt_mean: Tensor
    prompt_std: Tensor

    def __init__(
        self,
        network: nn.Module,
        process: CrystalProcess,
        cell_mean: Tensor,
        cell_std: Tensor,
        prompt_mean: Tensor | None = None,
        prompt_std: Tensor | None = None,
    ):
        super().__init__()
        self.prompted = prompt_mean is not None
        if prompt_mean is not None:
            if (
                prompt_std is None
                or prompt_std.shape != prompt_mean.shape
                or not bool((prompt_std > 0).all())
            ):
                raise InputError(
                    "prompt_mean and prompt_std must have one length, prompt_std positive"
                )
            self.register_buffer("prompt_mean", prompt_mean.float())
            self.register_buffer("prompt_std", prompt_std.float())
        if cell_mean.shape != (6,) or cell_std.shape != (6,) or not bool((cell_std > 0).all()):
            raise InputError("cell_mean and cell_std must be six numbers each, cell_std positive")
        self.network, self.process = network, process
        self.register_buffer("cell_mean", cell_mean.float())
        self.register_buffer("cell_std", cell_std.float())

    @classmethod
    def fitted(cls, network: nn.Module, process: CrystalProcess, batch) -> CrystalDenoiser:
        """With the mean and scatter of the cells of ``batch`` (``lattice (B, 3, 3)``, ``atoms
        (B,)``) and of its texts (``prompt (B, 1 + N, P)`` or None)."""
        vectors = cell_vector(batch.lattice.double(), batch.atoms.double())
        scales = (vectors.mean(0), _scatter(vectors).clamp_min(_NARROWEST))
        if batch.prompt is not None:
            scales += _text_scales(batch.prompt.double())
        return cls(network, process, *scales)

    def told(self, batch):
        """``batch`` with its texts standardised; a text of zeros stays one."""
        if not self.prompted or batch.prompt is None:
            return batch
        given = (batch.prompt != 0).any(-1, keepdim=True)
        row = [0, *[1] * (batch.prompt.shape[1] - 1)]
        return batch.with_prompt(
            given * (batch.prompt - self.prompt_mean[row]) / self.prompt_std[row]
        )

    def standard_cell(self, lattice: Tensor, atoms: Tensor) -> Tensor:
        """``(B, 3, 3)`` in Å -> ``(B, 1, 6)``."""
        vector = cell_vector(lattice.double(), atoms.double()).to(self.cell_mean)
        return ((vector - self.cell_mean) / self.cell_std)[:, None]

    def lattice(self, cell: Tensor, atoms: Tensor) -> Tensor:
        """``(B, 1, 6)`` -> ``(B, 3, 3)`` in Å."""
        vector = (cell[:, 0] * self.cell_std + self.cell_mean).double()
        return cell_lattice(vector, atoms.to(vector)).to(cell)

    def pull_scale(self, t: Tensor) -> Tensor:
        """What one unit of the network's ``frac`` stands for, in fractions of the cell;
        ``(B,)``."""
        return self.process.frac.wrapped_sigma(t) * self.process.score_scale(t)

    def forward(self, frac: Tensor, cell: Tensor, t: Tensor, batch) -> CrystalEstimate:
        """``frac (B, N, 3)``, ``cell (B, 1, 6)`` standardised and noisy, ``t (B,)``."""
        c = Preconditioning.of(self.process.cell, t, self.cell_std.new_ones(()))
        out = self.network(frac, (beside(c.into) * cell)[:, 0], t, self.told(batch))
        return CrystalEstimate(
            beside(self.pull_scale(t)) * out.frac.to(frac),
            beside(c.skip) * cell + beside(c.out) * out.cell[:, None].to(cell),
        )


def _text_scales(prompt: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and scatter ``(2, P)`` of whole texts and of what is said about atoms; 0 and 1 where
    nothing is."""
    means, scatters = [], []
    for rows in (prompt[:, 0], prompt[:, 1:].flatten(0, 1)):
        rows = rows[(rows != 0).any(-1)]
        std = _scatter(rows) if len(rows) else prompt.new_ones(prompt.shape[-1])
        means.append(rows.mean(0) if len(rows) else torch.zeros_like(std))
        scatters.append(std.clamp_min(std.mean().clamp_min(_SAME) / 10))
    return torch.stack(means), torch.stack(scatters)


def _scatter(values: Tensor) -> Tensor:
    """Standard deviation over the first axis, zero for one row."""
    return values.std(0) if len(values) > 1 else torch.zeros_like(values[0])
