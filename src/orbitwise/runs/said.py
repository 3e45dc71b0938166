"""Texts that make code run, and whether the user has said so: the trust boundary.

What a file holds is data. A ``package.module:name`` or a command in a YAML file, a run folder or
the header of a checkpoint is kept as it is and runs only where the user typed it himself, or
trusted the file: ``--trust``, in Python ``trust=True``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from orbitwise.errors import InputError

# where code of a user's own does not run now: none of it, or none that a file names
_NOTHING_RUNS: ContextVar[Literal["", "files", "all"]] = ContextVar("nothing_runs", default="")


class NotRun(InputError):
    """Code of a user's own was not run, since nothing is to run now."""


@dataclass(frozen=True)
class Stored:
    """Where values come from: a ``file``, ``trusted`` or not, with the ``lines`` of its texts.
    ``said``: texts that the user typed himself."""

    file: str
    trusted: bool = False
    lines: Mapping[str, int] = field(default_factory=dict)
    said: frozenset[str] = frozenset()

    def place(self, text: str) -> str | None:
        """Where ``text`` stands; None for what the user typed."""
        if text in self.said:
            return None
        return f"{self.file}, line {self.lines[text]}" if text in self.lines else self.file


class Said(str):
    """A text that makes code run. ``place``: where a file says so, None where the user typed it or
    wrote it in Python; ``trusted``: the user trusts the file."""

    place: str | None = None
    trusted: bool = False

    @classmethod
    def at(cls, text: str, place: str | None, trusted: bool) -> Self:
        made = cls(text)
        made.place, made.trusted = place, trusted
        return made

    @classmethod
    def checked(cls, text: str) -> str:
        """``text``, or ``ValueError`` where it has not the form."""
        return text

    @classmethod
    def _validated(cls, value: Any, info: ValidationInfo) -> Self:
        if not isinstance(value, str):
            raise PydanticCustomError("string_type", "should be a valid string")
        text, source = cls.checked(str(value)), info.context
        if isinstance(source, Stored) and not isinstance(value, Said):
            return cls.at(text, source.place(text), source.trusted)
        return cls.at(text, getattr(value, "place", None), getattr(value, "trusted", False))

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            cls._validated, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


class Name(Said):
    """``package.module:name`` of a user's own part (or the name of one that is here)."""


class Command(Said):
    """A command with its words, as a shell splits them; no shell runs it."""

    @classmethod
    def checked(cls, text: str) -> str:
        try:
            empty = not shlex.split(text)
        except ValueError as error:
            raise ValueError(f"is not a command that can be split into words ({error})") from None
        if empty:
            raise ValueError("is empty, not a command")
        return text


def may_run(text: str, what: str) -> None:
    """Raise ``InputError`` for a text that only a file says, ``NotRun`` where nothing runs."""
    place = getattr(text, "place", None)
    if place is not None and not getattr(text, "trusted", False):
        shown = str(text) if len(text) < 100 else f"{text[:90]}..."
        raise InputError(
            f"{what}: {shown!r} is code that a file names ({place}), and runs only with your leave:"
            " read it, then repeat with --trust (in Python trust=True)"
        )
    if (mode := _NOTHING_RUNS.get()) == "all" or (mode and place is not None):
        raise NotRun(f"{what} is {text}, which does not run now")


def names_may_run(config: BaseModel, prefix: str = "") -> None:
    """``may_run`` for every part of a user's own in a configuration: before any work, not after."""
    for key, value in config:
        if isinstance(value, BaseModel):
            names_may_run(value, f"{prefix}{key}.")
        elif isinstance(value, Name) and ":" in value:
            may_run(value, f"{prefix}{key}")


@contextmanager
def nothing_runs(of: Literal["files", "all"] = "all") -> Iterator[None]:
    """No code of a user's own inside, or none that a file names: ``NotRun`` where it is needed."""
    token = _NOTHING_RUNS.set(of)
    try:
        yield
    finally:
        _NOTHING_RUNS.reset(token)


def texts_in(value: Any) -> Sequence[str]:
    """All texts of a value that was typed."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping | list | tuple):
        return []
    return [text for part in parts for text in texts_in(part)]
