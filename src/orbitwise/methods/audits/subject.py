"""What an audit is made of, whatever it is an audit of: a trained run, a force field, or a calculator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from orbitwise.audit import LOSSES, AuditBatch, Enumerate, Haar, Quadrature, nodes_for
from orbitwise.errors import InputError
from orbitwise.groups.base import Group
from orbitwise.groups.so3 import O3, SO3
from orbitwise.runs.config import Config

ROTATIONS: dict[str, Callable[[], Group]] = {"so3": SO3, "o3": O3}
POLYHEDRA = ("tetrahedral", "octahedral", "icosahedral")


class AuditConfig(Config):
    """``run`` of a trained model, or ``model`` ("package.module:name") or ``ase`` calculator with ``data`` (extended
    XYZ); ``nodes``: group elements per item, "tetrahedral:2", "octahedral:2", "icosahedral:2", "all" of a finite group,
    or a number of random ones; ``items``: at most so many structures; ``levels``: those of a run to look at (noise
    levels t in (0, 1) of a diffusion model); ``budget``: seconds after which no further batch is begun."""

    run: Path | None = None
    model: str | None = None
    ase: str | None = None
    data: Path | None = None
    group: Literal["so3", "o3", "permutation"] = "so3"
    nodes: str | None = None
    items: int = Field(64, ge=1)
    levels: tuple[float, ...] | None = None
    loss: str = "squared"
    gradients: bool = False
    budget: float = Field(300.0, gt=0)
    seed: int = 0
    out: Path | None = None


@dataclass(frozen=True)
class AuditSubject:
    """``batches`` in an order that may be cut anywhere; ``outputs``: how each moves, ``units`` of the root of its
    squared loss. ``reference=False``: the targets are zeros, and the total is the mean square of the prediction.
    ``levels``: what the levels of the batches are called, ``answer``: what a lone ``prediction`` is called. ``chunk``:
    most items in one call."""

    title: str
    model: Callable[..., Any]
    group: Group
    batches: Sequence[AuditBatch]
    outputs: str | Mapping[str, str]
    units: Mapping[str, str]
    what: str
    parameters: int = 0
    reference: bool = True
    levels: str = ""
    answer: str = "prediction"
    notes: tuple[str, ...] = ()
    chunk: int | None = None

    @property
    def items(self) -> int:
        return sum(len(batch) for batch in self.batches)

    def loss(self, name: str) -> dict[str, str]:
        """The loss of every output: the length of the difference, for what is no vector, is its size."""
        kinds = {"prediction": self.outputs} if isinstance(self.outputs, str) else self.outputs
        if name not in LOSSES:
            raise InputError(f"unknown loss {name!r}; use one of {', '.join(LOSSES)}")
        return {key: "l1" if name == "norm" and kind != "vector" else name for key, kind in kinds.items()}


def nodes_named(name: str | None, group: Group):
    """The group elements that ``AuditConfig.nodes`` stands for; raises ``InputError``."""
    if name is None:
        return nodes_for(group)
    kind, _, count = name.partition(":")
    if name == "all":
        if not group.finite:
            raise InputError(f"nodes=all is for small finite groups, {group!r} is none; give a number")
        return Enumerate()
    try:
        if kind in POLYHEDRA:
            return Quadrature(kind, int(count or 2))
        return Haar(int(name))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        choices = ", ".join(f"{p}:2" for p in POLYHEDRA)
        raise InputError(
            f"unknown nodes {name!r}; use {choices}, all, or a number of random elements"
        ) from None


def evaluations(subject: AuditSubject, nodes) -> int:
    """Answers that the audit will ask of the model: all nodes and the pose of the file, for every item."""
    return subject.items * (nodes.blocks * nodes.size(subject.group) + 1)


def narrowed(subject: AuditSubject, config: AuditConfig) -> AuditSubject:
    """Only the levels that are asked for, and at most ``items`` of each. Raises ``InputError`` for a level or a group
    that the subject does not have."""
    has = {"so3": subject.group.axis == "space", "o3": isinstance(subject.group, O3)}
    if not has.get(config.group, subject.group.axis == "points"):
        raise InputError(
            f"this run is audited under {subject.group!r} only; leave --group {config.group} out"
        )
    known = list(dict.fromkeys(batch.level for batch in subject.batches))
    wanted = known if config.levels is None else list(config.levels)
    if missing := [level for level in wanted if level not in known]:
        raise InputError(f"this run has no level {missing[0]:g}; its levels are {', '.join(map(str, known))}")
    left, batches = dict.fromkeys(wanted, config.items), []
    for batch in subject.batches:
        if take := min(left.get(batch.level, 0), len(batch)):
            left[batch.level] -= take
            batches.append(batch if take == len(batch) else batch[slice(take)])
    return replace(subject, batches=batches)
