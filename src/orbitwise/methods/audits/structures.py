"""The audit of force fields and calculators on a file of structures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from difflib import get_close_matches
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
from orbitwise.methods.audits.config import AuditConfig
from orbitwise.runs.named import load_named


def force_field_subject(config: AuditConfig) -> AuditSubject:
    """A force field in torch, ``config.model``; the convention is that of
    ``orbitwise.audit.calculator``."""
    model = force_field(config.model)
    structures, found = _structures(config)
    dtype = dtype_of(model)
    device = next((p.device for p in _parameters(model)), torch.device("cpu"))
    group = _group(config.group, structures)
    probe = structure_batches(structures[:1], (), dtype=dtype, device=device)[0]
    given = tuple(ForceFieldModel(model, ()).answers(probe.x, *probe.moved, *probe.args))
    if not given:
        raise InputError(f"{config.model} gives neither energy nor forces nor stress")
    compared = tuple(n for n in given if n in found)
    outputs = compared or given
    return AuditSubject(
        title=f"{config.model} on {config.data.name}",
        model=ForceFieldModel(model, outputs),
        batches=structure_batches(
            structures,
            outputs,
            dtype=dtype,
            device=device,
            species_move=config.group == "permutation",
            reference=bool(compared),
        ),
        parameters=sum(p.numel() for p in _parameters(model)),
        chunk=256,
        **_shared(group, outputs, compared),
    )


def calculator_subject(config: AuditConfig) -> AuditSubject:
    """An ASE calculator, ``config.ase``."""
    structures, found = _structures(config)
    calculator = named_calculator(config.ase)
    periodic = all(s.pbc.all() for s in structures)
    can = tuple(n for n in implemented(calculator) if periodic or n != "stress")
    outputs = tuple(n for n in can if n in found) or can
    if not outputs:
        raise InputError(f"the calculator {config.ase} has neither energy nor forces")
    compared = tuple(n for n in outputs if n in found)
    group = _group(config.group, structures)
    return AuditSubject(
        title=f"{config.ase} on {config.data.name}",
        model=CalculatorModel(calculator, outputs, [s.where for s in structures]),
        batches=structure_batches(
            structures,
            outputs,
            species_move=config.group == "permutation",
            reference=bool(compared),
            size=1,
        ),
        **_shared(group, outputs, compared),
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


def _structures(config: AuditConfig) -> tuple[list[Structure], tuple[str, ...]]:
    """A random choice of the file's structures, in random order, and the reference values that all
    of it has."""
    if config.data is None:
        raise InputError("say on which structures: --data FILE.extxyz")
    structures = read_structures(config.data)
    order = np.random.default_rng(config.seed).permutation(len(structures))[: config.items]
    return [structures[k] for k in order], available(structures)


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
