"""Every class of the package, for contract tests that find parts by themselves."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache

import orbitwise


@cache
def classes() -> tuple[type, ...]:
    """All public classes that a module of ``orbitwise`` defines, in whichever folder it lives."""
    return tuple(_classes())


def _classes() -> Iterator[type]:
    for entry in pkgutil.walk_packages(orbitwise.__path__, "orbitwise."):
        if entry.name == "orbitwise.__main__":
            continue
        module = importlib.import_module(entry.name)
        for name, value in vars(module).items():
            if (
                inspect.isclass(value)
                and value.__module__ == module.__name__
                and not name.startswith("_")
            ):
                yield value
