"""Force fields and calculators that a user names."""

from __future__ import annotations

from difflib import get_close_matches

from ase.calculators.calculator import BaseCalculator
from torch import nn

from orbitwise.audit.calculator import CALCULATORS, ForceField, is_calculator
from orbitwise.errors import InputError
from orbitwise.runs.named import load_named, made_by, needed


def force_field(name: str) -> ForceField:
    """The model behind ``package.module:name``: what stands there, or what it returns when called
    with nothing.

    Something that can be called without arguments (a function, a class) is taken for a function
    that returns the model. Raises ``InputError`` where neither can be called as a model.
    """
    found = load_named(name, "model")
    if not callable(found):
        raise InputError(f"model {name}: a {type(found).__name__} cannot be called")
    if not isinstance(found, nn.Module) and needed(found) == 0:
        found = made_by(found, name, "model")
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
    if callable(found) and not is_calculator(found):
        found = made_by(found, name, "calculator")
    if not is_calculator(found):
        raise InputError(
            f"calculator {name}: returned {type(found).__name__}, not an ASE calculator"
        )
    return found
