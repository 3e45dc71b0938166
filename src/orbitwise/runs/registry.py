"""The methods that are here, each with its CARD: paper, claims with what became of them, what was
checked, measured figures, citation.

A method is a YAML file in ``methods/cards``; there is no other list. A card names the most telling
rows of the benchmarks, and ``benchmarks.tools.cards`` packages their values as
``cards/measured.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import cache, partial
from importlib import import_module
from importlib.resources import files
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from orbitwise.errors import InputError
from orbitwise.runs.yaml_text import read_yaml

CARDS = Path(str(files("orbitwise.methods"))) / "cards"
MEASURED = CARDS / "measured.json"


class Claim(BaseModel):
    """What a paper says, and what came of it here: ``why`` is the figure or the reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claim: str
    verdict: Literal["shown", "shown smaller", "not supported", "not tested here"]
    why: str


class Card(BaseModel):
    """What a method is and what is known about it.

    ``module`` and ``config`` name its binding in ``orbitwise.methods`` and the configuration class
    there; ``measured`` are the names of at most twelve benchmark rows; ``differs`` says in what
    this implementation is not the published one, ``limits`` where it should not be used.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    summary: str
    paper: str
    arxiv: str | None = None
    claims: list[Claim]
    checked: list[str]
    differs: list[str] = []
    limits: list[str] = []
    measured: list[str]
    reproduce: list[str]
    module: str
    config: str
    trainable: bool
    bibtex: str

    @property
    def family(self) -> str:
        """The folder of ``orbitwise.methods`` that the method is in."""
        return self.module.split(".")[2]


class Measured(BaseModel):
    """One benchmark row as packaged. ``error`` is one standard error."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    what: str
    value: float
    error: float | None = None
    goal: str | None = None
    device: str = ""
    commit: str = ""
    command: str = ""


@cache
def cards() -> dict[str, Card]:
    """All cards by name, in alphabetical order."""
    found = {}
    for path in sorted(CARDS.glob("*.yaml")):
        card = Card.model_validate(read_yaml(path).values)
        found[card.name] = card
    return found


def families() -> dict[str, list[Card]]:
    """All cards by family."""
    found: dict[str, list[Card]] = {}
    for each in sorted(cards().values(), key=lambda each: (each.family, each.name)):
        found.setdefault(each.family, []).append(each)
    return found


def card(name: str) -> Card:
    """The card of a method; raises ``InputError`` naming the nearest method."""
    if name not in cards():
        near = get_close_matches(str(name), cards(), 1, 0.4)
        hint = f"did you mean {near[0]!r}? Methods" if near else "Methods"
        raise InputError(f"unknown method {name!r}; {hint}: {', '.join(cards())}")
    return cards()[name]


def binding(name: str) -> Any:
    """The module of a method."""
    return import_module(card(name).module)


def config_class(name: str) -> type:
    """The configuration class of a method."""
    return getattr(binding(name), card(name).config)


def name_of(config: Any) -> str:
    """The method that a configuration belongs to."""
    return next(c.name for c in cards().values() if c.config == type(config).__name__)


def trainer(config: Any) -> Any:
    """The module that trains from ``config``; ``InputError`` for a method that does not learn from
    a file."""
    found = card(name_of(config))
    if not found.trainable:
        names = ", ".join(c.name for c in cards().values() if c.trainable)
        raise InputError(f"{found.name} is not trained from a configuration; these are: {names}")
    return binding(found.name)


def action(name: str, verb: str) -> Any:
    """A method's function ``verb``; raises ``InputError`` for a method that has none."""
    found = getattr(binding(name), verb, None)
    if found is None:
        raise InputError(f"the method {name} has no '{verb}' (see: orbitwise methods show {name})")
    return found


def with_options(act: Callable, **options: Any) -> Callable:
    """``act`` with the options that were given (not None); ``InputError`` for one that it does not
    have."""
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in signature(act).parameters:
            raise InputError(
                f"--{key} means nothing to this run's method ({act.__module__.split('.')[-1]})"
            )
    return partial(act, **given)


def measured(name: str) -> list[Measured]:
    """The packaged figures of a method, in the order of its card; those that were not measured yet
    are left out."""
    rows = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else []
    found = {row["what"]: row for row in rows}
    return [Measured.model_validate(found[w]) for w in card(name).measured if w in found]


def cite(names: Sequence[str] = ()) -> str:
    """BibTeX of the papers of these methods (all when empty), each entry once."""
    entries = [
        entry.strip() for c in map(card, names or cards()) for entry in c.bibtex.split("\n\n")
    ]
    return "\n\n".join(dict.fromkeys(entry for entry in entries if entry)) + "\n"
