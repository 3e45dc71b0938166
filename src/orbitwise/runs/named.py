"""What a user names as ``package.module:name``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from orbitwise.errors import InputError


@contextmanager
def importable_here() -> Iterator[None]:
    """Modules in the current folder can be imported, as for ``python -m``."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def load_named(name: str, what: str) -> Any:
    """The object ``package.module:name``, modules in the current folder included.

    ``what`` it is for, in the ``InputError`` for a name of another form, a module that does not
    import, or one without that attribute.
    """
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise InputError(f"{what}: give package.module:name, got {name!r}")
    try:
        with importable_here():
            return getattr(import_module(module), attribute)
    except Exception as error:  # the module runs a user's own code
        raise InputError(f"{what} {name}: {type(error).__name__}: {error}") from error


def made_by(function: Callable[[], Any], name: str, what: str) -> Any:
    """What a function that was named returns; ``InputError`` as ``load_named`` where it fails."""
    try:
        return function()
    except Exception as error:  # a user's own code
        raise InputError(f"{what} {name}: {type(error).__name__}: {error}") from error


def needed(function: Callable[..., Any]) -> int:
    """How many arguments must be given; 3 where a function does not tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 3
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters)
