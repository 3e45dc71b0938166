"""Errors that say what was wrong, where, and what to do about it. Every layer may raise them."""

from __future__ import annotations

import sys
from functools import cache


class OrbitwiseError(Exception):
    """Base class. The command line prints the message on one line and exits with code 2."""


class InputError(OrbitwiseError, ValueError):
    """An input (file, SMILES, configuration, tensor) cannot be used as it is."""


class NoClosedFormError(OrbitwiseError, ValueError):
    """Asked for an exact result where none exists; the message names what to use instead."""


class EnergyError(OrbitwiseError, ValueError):
    """An energy is not finite, or a molecule cannot be parametrised."""


class MissingExtraError(OrbitwiseError, ModuleNotFoundError):
    """An optional package is missing; the message names the extra to install.

    Raised for every module of an extra that a file of this package imports and that no one finds,
    at the top of the file or in a function.
    """


# The modules whose name is not that of their distribution.
_DISTRIBUTIONS = {"ot": "pot", "yaml": "pyyaml"}


@cache
def _extras() -> dict[str, set[str]]:
    """Extra -> the distributions it installs, and ``orbitwise[extra]`` for each extra it includes,
    from the metadata of the installed package."""
    import re
    from importlib.metadata import PackageNotFoundError, requires

    try:
        requirements = requires("orbitwise") or []
    except PackageNotFoundError:  # a source tree that was not installed
        requirements = []

    found: dict[str, set[str]] = {}
    for requirement in requirements:
        parts = re.match(r"([\w.-]+)(?:\[(.*?)\])?.*extra == ['\"]([\w-]+)", requirement)
        if parts:
            name, included, extra = parts.groups()
            own = included.split(",") if name == "orbitwise" else ()
            names = [f"orbitwise[{other}]" for other in own] or [name.lower()]
            found.setdefault(extra, set()).update(names)
    return found


def _brings(extra: str, distribution: str) -> bool:
    names = _extras()[extra]
    return distribution in names or any(
        _brings(other, distribution) for other in _extras() if f"orbitwise[{other}]" in names
    )


def _extra_for(module: str, room: str) -> str | None:
    """The extra to install for ``module``, imported by a file of ``room``: the room's own where it
    brings the module, else the one that lists it; None for a module of no extra."""
    distribution = _DISTRIBUTIONS.get(module, module.lower().replace("_", "-"))
    if room in _extras() and _brings(room, distribution):
        return room
    return next((extra for extra, names in _extras().items() if distribution in names), None)


class _MissingExtras:
    """The last finder: asked for a module that no other one found, it raises
    ``MissingExtraError`` where a file of this package imports it and an extra brings it."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if path is not None:  # a part of a package that is there
            return
        frame = sys._getframe(1)
        while frame.f_back and frame.f_globals.get("__name__") == "importlib._bootstrap":
            frame = frame.f_back
        package, _, file = frame.f_globals.get("__name__", "").partition(".")
        if package != "orbitwise":
            return

        extra = _extra_for(name, room=file.partition(".")[0])
        if extra:
            raise MissingExtraError(
                f"{name} is not installed: pip install 'orbitwise[{extra}]'", name=name
            )


def name_missing_extras() -> None:
    """From now on a missing optional package is reported by its extra. Other packages' imports
    stay as they are."""
    if _MissingExtras not in sys.meta_path:
        sys.meta_path.append(_MissingExtras)
