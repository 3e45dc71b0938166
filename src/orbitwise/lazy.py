"""Names of a package that load on first use (PEP 562), so that importing a package costs
nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any


def load_on_first_use(
    package: str, where: Mapping[str, str], subpackages: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of ``package``; ``where`` maps each public name to its module
    inside it.

    For a name that is not there the ``AttributeError`` says where in ``orbitwise`` a public name of
    that spelling is.
    """

    def getattribute(name: str) -> Any:
        if name in where:
            value = getattr(import_module(f"{package}.{where[name]}"), name)
        elif name in subpackages:
            value = import_module(f"{package}.{name}")
        else:
            here = sys.modules[package]
            places = " and ".join(_elsewhere(package, name))
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}"
                + (f"; it is in {places}" if places else ""),
                name=name,
                obj=here,
            )
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *where, *subpackages})

    return getattribute, names


def _elsewhere(package: str, name: str) -> Iterator[str]:
    """The public places of a name, by the tables of the other packages."""
    if name.startswith("_"):  # a question of Python's machinery, not of a person
        return
    root = package.partition(".")[0]
    inside = [f"{root}.{part}" for part in import_module(root)._PACKAGES]
    for other in [root, *inside]:
        try:
            public = getattr(import_module(other), "__all__", ())
        except ImportError:  # a room whose extra is not installed
            continue
        if other != package and name in public:
            yield f"{other}.{name}"
