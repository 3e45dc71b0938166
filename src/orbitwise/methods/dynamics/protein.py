"""Task ``protein``: flow matching of protein backbones, audited at several noise levels.

Data: chains as ``.npz`` (``data.proteins``) with splits ``train`` and ``val``. Cα atoms of the
first 48 residues of chains that have as many, unconditional: a network sees the place in the chain,
not the sequence. All windows have one length, so everything that does not depend on positions is
computed once per batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orbitwise.audit import AuditBatch
from orbitwise.data.batch import PointBatch
from orbitwise.groups.finite import Finite
from orbitwise.groups.so3 import SO3
from orbitwise.methods.dynamics.task import (
    PARTS,
    DynamicsConfig,
    OneStructure,
    Task,
    enough,
    has_head,
    head_deviation,
    wanted,
)
from orbitwise.objectives import Denoiser, Denoising, coordinate_scale
from orbitwise.objectives.denoiser import Preconditioning
from orbitwise.processes.gaussian import GaussianProcess, beside
from orbitwise.proteins.chain import read_backbones

TARGETS = ("none", "augmentation", "snis", "exact")
LEVELS = (0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)  # t of the audits; 1 is data
RESIDUES = 48


class InUnits(nn.Module):
    """The endpoint as it is audited: over the noise level's ``c_out``, so that the audited loss is
    the trained one."""

    def __init__(self, denoiser: Denoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, xt: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        labels = PointBatch(
            xt, mask.long(), mask.new_zeros(len(xt), 1, 1).long(), mask
        )  # for its mask
        c = Preconditioning.of(self.denoiser.process, t, self.denoiser.data_scale)
        return self.denoiser(xt, t, labels) / beside(c.out)


def build(config: DynamicsConfig) -> Task:
    """Data, model and loss. Raises ``InputError``."""
    wanted(config, TARGETS)
    chains = read_backbones(config.data, "train", longest=RESIDUES, shortest=RESIDUES)
    judged = read_backbones(config.data, "val", longest=RESIDUES, shortest=RESIDUES)
    count = enough(config, len(chains))
    # evenly over the file, so that fewer chains are of the same kinds
    ca = chains.ca[torch.linspace(0, len(chains) - 1, count).round().long()]
    data = _batch(ca)
    process = GaussianProcess.flow(zero_com=True)
    scale = coordinate_scale(ca)
    network = OneStructure(config.network.build(config.train.seed), data.species[0], data.bonds[0])
    headed = config.network.name != "egnn" and has_head(network)
    group = Finite(torch.eye(3)[None]) if config.target == "none" else SO3()
    target = "augmentation" if config.target == "none" else config.target
    return Task(
        model=Denoiser(network, process, scale),
        objective=Denoising(process, group, target, config.proposals, times="uniform"),
        data=data,
        group=SO3(),
        batches=_noised(judged.ca[: config.held_out], process, scale, config.train.seed),
        nodes=config.audit.rotations(),
        audited=InUnits,
        numbers={"head_deviation": head_deviation} if headed else {},
        units="c_out, what the noise leaves",
        levels="noise level t",
    )


def _noised(x1: Tensor, process: GaussianProcess, scale: float, seed: int) -> list[AuditBatch]:
    """The held-out chains with one draw of noise per level."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for level in LEVELS:
        t = torch.full((len(x1),), level)
        xt = process.perturb(x1, t, generator=generator)
        target = x1 / beside(Preconditioning.of(process, t, torch.tensor(scale)).out)
        mask = torch.ones(x1.shape[:2], dtype=torch.bool)
        for j in range(PARTS):
            own = slice(j, None, PARTS)
            found.append(
                AuditBatch(
                    xt[own], target[own], args=(t[own], mask[own]), mask=mask[own], level=level
                )
            )
    return found


def _batch(ca: Tensor) -> PointBatch:
    """Chains ``(C, L, 3)`` as a network sees them: the species is the place in the chain,
    neighbours are bonded."""
    place = torch.arange(ca.shape[1])
    chain = ((place[:, None] - place).abs() == 1).long()
    return PointBatch(
        ca,
        (1 + place).expand(ca.shape[:2]),
        chain.expand(len(ca), -1, -1),
        torch.ones(ca.shape[:2], dtype=torch.bool),
    )
