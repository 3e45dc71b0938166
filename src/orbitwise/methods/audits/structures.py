"""The audit of force fields and calculators on a file of structures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator
from torch import nn

from orbitwise.audit.calculator import (
    CALCULATORS,
    KINDS,
    UNITS,
    CalculatorModel,
    ForceFieldModel,
    dtype_of,
    implemented,
    structure_batches,
)
from orbitwise.audit.subject import ROTATIONS, AuditSubject
from orbitwise.data.structures import Structure, available, read_structures
from orbitwise.errors import InputError
from orbitwise.groups.base import Group
from orbitwise.groups.permutation import Permutation
from orbitwise.runs.named import load_named


@dataclass(frozen=True)
class Chosen:
    """Structures of a ``file`` in random order, and the reference values ``known`` of all of it."""

    file: str
    structures: list[Structure]
    known: tuple[str, ...]


def chosen(path: Path | None, items: int, seed: int) -> Chosen:
    """At most ``items`` structures, chosen at random; ``InputError`` without a file."""
    if path is None:
        raise InputError("say on which structures: --data FILE.extxyz")
    structures = read_structures(path)
    order = np.random.default_rng(seed).permutation(len(structures))[:items]
    return Chosen(path.name, [structures[k] for k in order], available(structures))


def force_field_subject(name: str, data: Chosen, group: str) -> AuditSubject:
    """A force field in torch, ``package.module:name``; the convention is that of
    ``orbitwise.audit.calculator``."""
    model = force_field(name)
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
        **_shared(symmetry, outputs, compared),
    )


def calculator_subject(name: str, data: Chosen, group: str) -> AuditSubject:
    """An ASE calculator by name, or ``package.module:function``."""
    calculator = named_calculator(name)
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
        **_shared(symmetry, outputs, compared),
    )


def _shared(group: Group, outputs: Sequence[str], compared: Sequence[str]) -> dict[str, Any]:
    return {
        "group": group,
        "outputs": {name: KINDS[name] for name in outputs},
        "units": {name: UNITS[name] for name in outputs},
        "what": "the error of the prediction" if compared else "the size of the prediction",
        "reference": bool(compared),
        "notes": (),
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


def force_field(name: str) -> Callable[..., Any]:
    """The model behind ``package.module:name``: what stands there, or what it returns when called
    with nothing.

    Something that can be called without arguments (a function, a class) is taken for a function
    that returns the model. Raises ``InputError`` where neither can be called as a model.
    """
    found = load_named(name, "model")
    if not callable(found):
        raise InputError(f"model {name}: a {type(found).__name__} cannot be called")
    if not isinstance(found, nn.Module) and _needs(found) == 0:
        found = _made(found, name, "model")
    if not callable(found) or isinstance(found, type):
        raise InputError(
            f"model {name}: returned {type(found).__name__}, not a model that can be called"
        )
    return found


def named_calculator(name: str) -> BaseCalculator:
    """A calculator of ``CALCULATORS``, or what ``package.module:function`` returns (or is)."""
    if ":" not in name:
        if name not in CALCULATORS:
            near = get_close_matches(name, CALCULATORS, 1, 0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(
                f"unknown calculator {name!r}; {hint}use {', '.join(CALCULATORS)}, or"
                " package.module:function that returns an ASE calculator"
            )
        return CALCULATORS[name]()
    found = load_named(name, "calculator")
    if callable(found) and not _is_calculator(found):
        found = _made(found, name, "calculator")
    if not _is_calculator(found):
        raise InputError(
            f"calculator {name}: returned {type(found).__name__}, not an ASE calculator"
        )
    return found


def _is_calculator(thing: Any) -> bool:
    return not isinstance(thing, type) and all(
        hasattr(thing, n) for n in ("get_property", "implemented_properties")
    )


def _made(function: Callable[[], Any], name: str, what: str) -> Any:
    try:
        return function()
    except Exception as error:  # a user's own code
        raise InputError(f"{what} {name}: {type(error).__name__}: {error}") from error


def _needs(function: Callable[..., Any]) -> int:
    """Arguments that must be given."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 3
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters)


def _parameters(model: Any):
    return list(model.parameters()) if isinstance(model, nn.Module) else []
