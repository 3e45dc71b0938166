"""What a task of the training dynamics is, and the settings that all tasks share.

A task is one small file with ``build(config) -> Task`` and a line in ``TASKS``; it says which data,
which model, which loss, and which held-out batches are audited under which group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from orbitwise.audit import AuditBatch, Quadrature, log_steps
from orbitwise.audit.nodes import Nodes
from orbitwise.errors import InputError
from orbitwise.groups.base import Group
from orbitwise.networks import EGNN, PairNetwork, PointTransformer
from orbitwise.networks.seeded import seeded
from orbitwise.runs.config import Config
from orbitwise.runs.own import OrOwn, OwnNetwork
from orbitwise.training import TrainConfig

TASKS = {
    "forces": "orbitwise.methods.dynamics.forces",
    "protein": "orbitwise.methods.dynamics.protein",
    "voxels": "orbitwise.methods.dynamics.voxels",
}
NETWORKS: dict[str, Callable[[DynamicsNetwork], nn.Module]] = {
    "egnn": lambda c: EGNN(hidden=c.hidden, layers=c.layers, heads=c.heads),
    "pairs": lambda c: PairNetwork(hidden=c.hidden, layers=c.layers, pair=c.hidden // 2),
    "transformer": lambda c: PointTransformer(hidden=c.hidden, layers=c.layers, heads=c.heads),
}
PARTS = (
    4  # batches per level: gradient norms of the audit are products of those of different batches
)


class DynamicsNetwork(Config):
    """``hidden`` channels and ``layers``; ``heads`` of those that have some. ``egnn`` alone is
    equivariant; ``pairs`` sees distances and directions, a ``transformer`` the coordinates of every
    point. ``unet3d`` reads grids: ``hidden`` channels on its finest level, the rest of it is
    fixed."""

    name: Literal["transformer", "pairs", "egnn", "unet3d"] = "transformer"
    hidden: int = Field(64, ge=4)
    layers: int = Field(3, ge=1)
    heads: int = Field(8, ge=1)

    def build(self, seed: int) -> nn.Module:
        """Of points, weights drawn from ``seed``; the caller's random stream stays as it was."""
        if self.name not in NETWORKS:
            raise InputError(
                f"network: {self.name} does not read points; use one of {', '.join(NETWORKS)}"
            )
        with seeded(seed):
            return NETWORKS[self.name](self)


class DynamicsAudit(Config):
    """When and how the held-out items are audited: ``per_decade`` steps evenly in the logarithm, or
    ``every`` so many.

    ``polyhedron`` and ``blocks``: the rotations (ignored for groups that are small enough to take
    all elements); ``same_elements`` at every step; ``gradients``: norms for both terms, at about
    four times the cost.
    """

    per_decade: int = Field(4, ge=1)
    every: int | None = Field(None, ge=1)
    polyhedron: Literal["tetrahedral", "octahedral", "icosahedral"] = "tetrahedral"
    blocks: int = Field(2, ge=2)
    gradients: bool = True
    weights: Literal["last", "averaged"] = "last"
    same_elements: bool = True

    def steps(self, last: int) -> int | list[int]:
        return self.every or log_steps(last, self.per_decade)

    def rotations(self) -> Quadrature:
        return Quadrature(self.polyhedron, self.blocks)


class DynamicsConfig(Config):
    """``data``: file of the task (see its module); ``items``: training items used (None: all),
    ``held_out``: those audited per level.

    ``target``: ``none`` trains in the orientation of the data, ``augmentation`` in a random one,
    ``octahedral`` (grids) in one of the 24 that the cube has. ``snis`` and ``exact`` (denoising):
    regress on the posterior mean over the orbit, estimated from ``proposals`` or in closed form. A
    regression has no such posterior; there ``exact`` averages the loss over a randomised quadrature
    of 12 rotations, ``haar`` over ``proposals`` random ones, per item and step.
    """

    task: str
    data: Path
    items: int | None = Field(None, ge=1)
    held_out: int = Field(64, ge=PARTS)
    network: Annotated[DynamicsNetwork, OrOwn(OwnNetwork)] = DynamicsNetwork()
    target: Literal["none", "octahedral", "augmentation", "haar", "snis", "exact"] = "augmentation"
    proposals: int = Field(64, ge=1)
    audit: DynamicsAudit = DynamicsAudit()
    train: TrainConfig = TrainConfig(
        steps=10_000, batch_size=16, learning_rate=1e-3, schedule="constant", checkpoint_every=1000
    )


@dataclass(frozen=True)
class Task:
    """``model`` is trained by ``objective`` on ``data``; ``audited(model)`` is what the audit sees
    of it, on ``batches`` under ``group`` (``outputs``: how its answers move). ``numbers``: what
    else is measured at every audit.

    ``units``: of the root of the audited loss; ``levels``: what the levels are; ``notes``: what a
    reader must know of the data, said at the end of a training.
    """

    model: nn.Module
    objective: Callable[..., Tensor]
    data: Any
    group: Group
    batches: Sequence[AuditBatch]
    nodes: Nodes | None
    outputs: str = "vector"
    audited: Callable[[nn.Module], nn.Module] = lambda model: model
    numbers: Mapping[str, Callable[[nn.Module], float]] = field(default_factory=dict)
    units: str = ""
    levels: str = ""
    notes: tuple[str, ...] = ()


def build(config: DynamicsConfig) -> Task:
    """The task that a configuration names. Raises ``InputError``."""
    if config.task not in TASKS:
        raise InputError(f"unknown task {config.task!r}; tasks: {', '.join(TASKS)}")
    return import_module(TASKS[config.task]).build(config)


def wanted(config: DynamicsConfig, targets: Sequence[str]) -> None:
    """Raise ``InputError`` for a target that the task does not have."""
    if config.target not in targets:
        raise InputError(
            f"the task {config.task} has no target {config.target!r}; use {', '.join(targets)}"
        )


def enough(config: DynamicsConfig, items: int) -> int:
    """How many of ``items`` are trained on; raises ``InputError`` where more are asked for than
    there are."""
    if config.items is not None and config.items > items:
        raise InputError(
            f"items={config.items}: {config.data} has {items} items for training; give fewer"
        )
    return config.items or items


class OneStructure(nn.Module):
    """A network ``net(x, t, labels)`` whose labels are the same for every item: they are read once
    per batch.

    ``species: (N,)``, ``bonds: (N, N)``. The ``batch`` of a call is not looked at.
    """

    def __init__(self, network: nn.Module, species: Tensor, bonds: Tensor):
        super().__init__()
        self.network = network
        self.species = nn.Buffer(species[None], persistent=False)
        self.bonds = nn.Buffer(bonds[None], persistent=False)
        self.mask = nn.Buffer(torch.ones(1, len(species), dtype=torch.bool), persistent=False)

    def forward(self, x: Tensor, t: Tensor, batch: Any = None) -> Tensor:
        return self.network(x, t, self)


def has_head(model: nn.Module) -> bool:
    """Whether ``head_deviation`` can be told."""
    return any(name.endswith("readout.weight") for name, _ in model.named_parameters())


def head_deviation(model: nn.Module) -> float:
    """Of the rows of the head of a transformer from each other, over their mean square
    (2512.02303)."""
    from orbitwise.audit.landscape.conditioning import head_weight_deviation

    weight = next(p for name, p in model.named_parameters() if name.endswith("readout.weight"))
    return head_weight_deviation(weight).normalised
