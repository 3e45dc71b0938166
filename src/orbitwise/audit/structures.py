"""The subject of an audit from a force field or a calculator and a file of structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator
from torch import nn

from orbitwise.audit.calculator import (
    KINDS,
    UNITS,
    CalculatorModel,
    ForceField,
    ForceFieldModel,
    dtype_of,
    implemented,
    structure_batches,
)
from orbitwise.audit.subject import ROTATIONS, AuditSubject
from orbitwise.data.structures import Structure, available, notes_of, read_structures
from orbitwise.errors import InputError
from orbitwise.groups.base import Group
from orbitwise.groups.permutation import Permutation


@dataclass(frozen=True)
class Chosen:
    """Structures of a ``file`` in random order, and the reference values ``known`` of all of it."""

    file: str
    structures: list[Structure]
    known: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the file holds and nothing here reads, though its name looks like it."""
        return notes_of(self.file, self.structures)


def chosen(path: Path, items: int, seed: int) -> Chosen:
    """At most ``items`` structures, chosen at random."""
    structures = read_structures(path)
    order = np.random.default_rng(seed).permutation(len(structures))[:items]
    return Chosen(path.name, [structures[k] for k in order], available(structures))


def force_field_subject(model: ForceField, name: str, data: Chosen, group: str) -> AuditSubject:
    """A force field in torch, called ``name``; the convention is that of
    ``orbitwise.audit.calculator``."""
    dtype = dtype_of(model)
    device = next((p.device for p in _parameters(model)), torch.device("cpu"))
    symmetry = _group(group, data.structures)

    probe = structure_batches(data.structures[:1], (), dtype=dtype, device=device)[0]
    given = tuple(ForceFieldModel(model, ()).answers(probe.x, *probe.moved, *probe.args))
    if not given:
        raise InputError(f"{name} gives neither energy nor forces nor stress")
    compared = tuple(n for n in given if n in data.known)
    outputs = compared or given

    return AuditSubject(
        title=f"{name} on {data.file}",
        model=ForceFieldModel(model, outputs),
        batches=structure_batches(
            data.structures,
            outputs,
            dtype=dtype,
            device=device,
            species_move=group == "permutation",
            reference=bool(compared),
        ),
        parameters=sum(p.numel() for p in _parameters(model)),
        chunk=256,
        **_shared(symmetry, outputs, compared, data.notes),
    )


def calculator_subject(
    calculator: BaseCalculator, name: str, data: Chosen, group: str
) -> AuditSubject:
    """An ASE calculator, called ``name``."""
    periodic = all(s.pbc.all() for s in data.structures)
    can = tuple(n for n in implemented(calculator) if periodic or n != "stress")
    outputs = tuple(n for n in can if n in data.known) or can
    if not outputs:
        raise InputError(f"the calculator {name} has neither energy nor forces")
    compared = tuple(n for n in outputs if n in data.known)
    symmetry = _group(group, data.structures)

    return AuditSubject(
        title=f"{name} on {data.file}",
        model=CalculatorModel(calculator, outputs, [s.where for s in data.structures]),
        batches=structure_batches(
            data.structures,
            outputs,
            species_move=group == "permutation",
            reference=bool(compared),
            size=1,
        ),
        **_shared(symmetry, outputs, compared, data.notes),
    )


def _shared(
    group: Group, outputs: Sequence[str], compared: Sequence[str], notes: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "group": group,
        "outputs": {name: KINDS[name] for name in outputs},
        "units": {name: UNITS[name] for name in outputs},
        "what": "the error of the prediction" if compared else "the size of the prediction",
        "reference": bool(compared),
        "notes": notes,
    }


def _group(name: str, structures: Sequence[Structure]) -> Group:
    if name in ROTATIONS:
        return ROTATIONS[name]()
    sizes = sorted({len(s) for s in structures})
    if len(sizes) > 1:
        raise InputError(
            f"the structures have {sizes[0]} to {sizes[-1]} atoms; permutations are audited for one"
            " size at a time"
        )
    return Permutation(sizes[0])


def _parameters(model: ForceField) -> list[nn.Parameter]:
    return list(model.parameters()) if isinstance(model, nn.Module) else []
