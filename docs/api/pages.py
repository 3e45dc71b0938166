"""Pages of the API reference, one a room, made from the tables of public names in the package.

A hook of mkdocs: no page and no name is listed by hand, so the reference cannot fall behind.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import orbitwise as ow
from orbitwise.runs import registry

VERBS = ("plan", "run", "train", "sample", "evaluate", "report")


def entry(path: str, heading: int = 2) -> str:
    return f"::: {path}\n    options:\n      heading_level: {heading}\n"


def at_the_top(room: str) -> list[str]:
    """Public names of ``orbitwise`` itself that live in the room."""
    return [
        f"orbitwise.{module}.{name}"
        for name, module in ow._WHERE.items()
        if module.startswith(f"{room}.")
    ]


def in_the_room(room: ModuleType) -> list[str]:
    """Public names of the package ``orbitwise.ROOM``: where each is defined."""
    where = getattr(room, "_WHERE", None)
    if where is not None:
        return [f"{room.__name__}.{module}.{name}" for name, module in where.items()]
    return [f"{room.__name__}.{name}" for name in getattr(room, "__all__", ())]


def modules_of(room: ModuleType) -> list[str]:
    folder = Path(room.__path__[0])
    return [
        f"{room.__name__}.{p.stem}" for p in sorted(folder.glob("*.py")) if p.stem != "__init__"
    ]


def methods_page() -> list[str]:
    """Each method with its configuration and what can be done with it."""
    lines = []
    for card in registry.cards().values():
        module = import_module(card.module)
        found = [verb for verb in VERBS if hasattr(module, verb)]
        lines += [f"## {card.name}", card.title + ".", card.summary]
        for name in (card.config, *found):
            defined = getattr(module, name).__module__
            lines.append(entry(f"{defined}.{name}", heading=3))
    return lines


def page(name: str) -> str:
    room = getattr(ow, name)
    lines = [f"# orbitwise.{name}", (room.__doc__ or "").strip()]
    if name == "methods":
        return "\n\n".join([*lines, *methods_page()])

    names = list(dict.fromkeys([*at_the_top(name), *in_the_room(room)]))
    if not names and hasattr(room, "__path__"):
        names = modules_of(room)  # a room without names of its own: its modules
    return "\n\n".join([*lines, *map(entry, names or [room.__name__])])


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    rooms = [{name: f"api/{name}.md"} for name in ow._PACKAGES]
    config.nav = [*config.nav, {"Reference": rooms}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name in ow._PACKAGES:
        files.append(File.generated(config, f"api/{name}.md", content=page(name)))
    return files
