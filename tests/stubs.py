"""What type checkers and editors see of names that load on first use: ``python tests/stubs.py``
writes the ``__init__.pyi`` of every package that has a table of them."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import orbitwise

PACKAGE = Path(orbitwise.__file__).parent
HEAD = "# The names that __init__.py loads on first use. Written by tests/stubs.py.\n"


def tables() -> dict[str, dict[str, str]]:
    """Package -> its public names and the modules they come from."""
    found = {}
    for package in ["orbitwise", *(f"orbitwise.{part}" for part in orbitwise._PACKAGES)]:
        module = import_module(package)
        if where := getattr(module, "_WHERE", None):
            found[package] = {name: f"{package}.{inside}" for name, inside in where.items()}
            found[package] |= dict.fromkeys(getattr(module, "_PACKAGES", ()), package)
    return found


def stub_of(package: str) -> Path:
    return PACKAGE.joinpath(*package.split(".")[1:], "__init__.pyi")


def write() -> None:
    """All stubs, in the order that the linter wants."""
    for package, names in tables().items():
        lines = [f"from {module} import {name} as {name}\n" for name, module in names.items()]
        facts = ["\n__all__: list[str]\n", "_WHERE: dict[str, str]\n"]
        if package == "orbitwise":
            facts += ["_PACKAGES: list[str]\n", "__version__: str\n"]
        stub_of(package).write_text("".join([HEAD, *lines, *facts]))

    stubs = [str(stub_of(package)) for package in tables()]
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run([*ruff, "check", "-q", "--fix", "--select", "I", *stubs], check=True)
    subprocess.run([*ruff, "format", "-q", *stubs], check=True)


if __name__ == "__main__":
    write()
