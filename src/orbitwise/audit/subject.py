"""What an audit is made of, whatever it is an audit of: a trained run, a force field, or a
calculator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from orbitwise.audit.batch import AuditBatch
from orbitwise.audit.losses import LOSSES
from orbitwise.audit.nodes import Enumerate, Haar, Quadrature, nodes_for
from orbitwise.errors import InputError
from orbitwise.groups.base import Group
from orbitwise.groups.so3 import O3, SO3

ROTATIONS: dict[str, Callable[[], Group]] = {"so3": SO3, "o3": O3}


POLYHEDRA = ("tetrahedral", "octahedral", "icosahedral")


class AuditRequest(Protocol):
    """What is asked of an audit: the ``group`` by name, at most ``items`` of each of the ``levels``
    (None: those of the subject), chosen by ``seed``."""

    @property
    def group(self) -> str: ...
    @property
    def items(self) -> int: ...
    @property
    def levels(self) -> Sequence[float] | None: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class AuditSubject:
    """``batches`` in an order that may be cut anywhere; ``outputs``: how each moves, ``units`` of
    the root of its squared loss. ``reference=False``: the targets are zeros, and the total is the
    mean square of the prediction. ``levels``: what the levels of the batches are called,
    ``answer``: what a lone ``prediction`` is called. ``chunk``: most items in one call."""

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
        """The loss of every output: the length of the difference, for what is no vector, is its
        size."""
        kinds = {"prediction": self.outputs} if isinstance(self.outputs, str) else self.outputs
        if name not in LOSSES:
            raise InputError(f"unknown loss {name!r}; use one of {', '.join(LOSSES)}")
        return {
            key: "l1" if name == "norm" and kind != "vector" else name
            for key, kind in kinds.items()
        }


def nodes_named(name: str | None, group: Group):
    """The group elements that a name stands for, "octahedral:2", "all" or a number; raises
    ``InputError``."""
    if name is None:
        return nodes_for(group)
    kind, _, count = name.partition(":")
    if name == "all":
        if not group.finite:
            raise InputError(
                f"nodes=all is for small finite groups, {group!r} is none; give a number"
            )
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
    """Answers that the audit will ask of the model: all nodes and the pose of the file, for every
    item."""
    return subject.items * (nodes.blocks * nodes.size(subject.group) + 1)


def narrowed(subject: AuditSubject, request: AuditRequest) -> AuditSubject:
    """Only the levels that are asked for, and at most ``items`` of each. Raises ``InputError`` for
    a level or a group that the subject does not have."""
    has = {"so3": subject.group.axis == "space", "o3": isinstance(subject.group, O3)}
    if not has.get(request.group, subject.group.axis == "points"):
        raise InputError(
            f"this run is audited under {subject.group!r} only; leave --group {request.group} out"
        )
    known = list(dict.fromkeys(batch.level for batch in subject.batches))
    wanted = known if request.levels is None else list(request.levels)
    if missing := [level for level in wanted if level not in known]:
        raise InputError(
            f"this run has no level {missing[0]:g}; its levels are {', '.join(map(str, known))}"
        )
    left, batches = dict.fromkeys(wanted, request.items), []
    for batch in subject.batches:
        if take := min(left.get(batch.level, 0), len(batch)):
            left[batch.level] -= take
            batches.append(batch if take == len(batch) else batch[slice(take)])
    return replace(subject, batches=batches)
