"""Task ``forces``: the forces on the atoms of one molecule from their positions.

Data: rMD17 or 3BPA as ``.npz``, or an ``.extxyz`` with forces (``data.forces``). The network of
pairs knows nothing of rotations (a transformer of coordinates does not learn forces in this time),
``network.name=egnn`` is equivariant. Squared loss in units of the mean square force of the training
frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orbitwise.audit import AuditBatch
from orbitwise.groups.polyhedral import tetrahedral
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
from orbitwise.molecules.files.forces import ForceFrames, read_forces
from orbitwise.objectives.regression import Regression

TARGETS = ("none", "augmentation", "haar", "exact")


class ForceField(nn.Module):
    """Forces in eV/Å from positions in Å, ``(B, N, 3) -> (B, N, 3)``; ``scale``: rms force in eV/Å
    of the training.

    They sum to zero; they are not the gradient of an energy.
    """

    scale: Tensor

    def __init__(self, network: OneStructure, scale: float):
        super().__init__()
        self.network = network
        self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        time = x.new_full((len(x),), 0.5)  # of a network for noised points; constant here
        return self.scale * self.network(x - x.mean(1, keepdim=True), time)


class InUnits(nn.Module):
    """The same forces in units of ``scale``, as they are audited."""

    def __init__(self, model: ForceField):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) / self.model.scale


def build(config: DynamicsConfig) -> Task:
    """Data, model and loss. Raises ``InputError``."""
    wanted(config, TARGETS)
    found = read_forces(config.data, config.train.seed)
    training = found.training[slice(enough(config, len(found.training)))]
    scale = float(training.target.square().mean().sqrt())
    network = OneStructure(config.network.build(config.train.seed), found.species, found.bonds)
    copies = {"none": 0, "haar": config.proposals}.get(config.target, 1)
    nodes = tetrahedral().matrices if config.target == "exact" else None
    judged = {
        level: frames[_spread(frames, config.held_out)] for level, frames in found.held_out.items()
    }
    numbers = {
        "mae_mev_per_angstrom" + ("" if level is None else f".{level}"): _mean_absolute(frames)
        for level, frames in judged.items()
    }
    if config.network.name != "egnn" and has_head(network):
        numbers["head_deviation"] = head_deviation
    mixed = (
        "the frames at 300, 600 and 1200 K are told apart by their place in the file and their"
        " energies"
    )

    return Task(
        model=ForceField(network, scale),
        objective=Regression(SO3(), copies, nodes, scale),
        data=training,
        group=SO3(),
        batches=[
            AuditBatch(part.x, part.target / scale, level=level)
            for level, frames in judged.items()
            for part in (frames[slice(j, None, PARTS)] for j in range(PARTS))
        ],
        nodes=config.audit.rotations(),
        audited=InUnits,
        numbers=numbers,
        units=f"rms forces ({scale:.3g} eV/Å)",
        levels="" if None in judged else "temperature",
        notes=found.notes if None in judged else (*found.notes, mixed),
    )


def _spread(frames: ForceFrames, count: int) -> Tensor:
    """``count`` frames (or all), evenly over the set."""
    return torch.linspace(0, len(frames) - 1, min(count, len(frames))).round().long()


def _mean_absolute(frames: ForceFrames):
    def measure(model: ForceField) -> float:
        own = frames.to(model.scale.device)
        return 1000 * (model(own.x) - own.target).abs().mean()

    return measure
