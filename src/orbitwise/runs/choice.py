"""A part of a configuration that is chosen by name, where every choice has only its own keys.

Versions up to 0.1 had one class with the keys of all choices and wrote all of them into their run
folders. Such files still load, and the digests of finished stages are still made of all keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    PrivateAttr,
    ValidatorFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import to_jsonable_python

from orbitwise.runs.config import Config


class Choice(Config):
    """Base of a family of configurations that ``tag`` tells apart; its subclasses are the choices.

    A key of another choice is dropped where it has that one's default, or where the file gives the
    keys of all choices, as earlier versions did; else it is an unknown key.
    """

    tag: ClassVar[str] = "name"
    _written: dict[str, Any] = PrivateAttr(default_factory=dict)  # keys of others, not as default

    @classmethod
    def choices(cls) -> list[type[Choice]]:
        """All members of the family."""
        family = next(c for c in cls.__mro__ if Choice in c.__bases__)
        return [c for c in _below(family) if family.tag in c.model_fields]

    @classmethod
    def others(cls) -> dict[str, Any]:
        """Keys that only other choices have, with their defaults."""
        return {
            key: to_jsonable_python(field.get_default(call_default_factory=True))
            for choice in cls.choices()
            for key, field in choice.model_fields.items()
            if key not in cls.model_fields
        }

    @model_validator(mode="wrap")
    @classmethod
    def _own_keys(cls, values: Any, handler: ValidatorFunctionWrapHandler) -> Self:
        if not isinstance(values, Mapping):
            return handler(values)

        others = cls.others()
        all_keys = values.keys() >= others.keys() | cls.model_fields.keys()
        foreign = {k: v for k, v in values.items() if k in others}
        unlike = {k: v for k, v in foreign.items() if v != others[k]}
        dropped = foreign if all_keys else foreign.keys() - unlike.keys()

        made = handler({k: v for k, v in values.items() if k not in dropped})
        made._written = unlike if all_keys else {}
        return made

    @model_serializer(mode="wrap")
    def _as_found(self, own: Callable[[Self], dict[str, Any]]) -> dict[str, Any]:
        values = own(self)
        values = {self.tag: values[self.tag]} | values  # first, as one writes it
        return self.others() | self._written | values if self._written else values


def with_all_keys(config: BaseModel) -> dict[str, Any]:
    """Every value of ``config`` as JSON types, choices with the keys of their whole family: what
    digests of finished stages are made of since version 0.1."""
    values = config.model_dump(mode="json")
    for key, value in config:
        if isinstance(value, BaseModel):
            values[key] = with_all_keys(value)
    return config.others() | config._written | values if isinstance(config, Choice) else values


def named(default: str, tag: str = "name") -> Callable[[Any], Any]:
    """Before a choice is looked up: ``default`` where the mapping does not name one."""

    def completed(values: Any) -> Any:
        return {tag: default, **values} if isinstance(values, Mapping) else values

    return completed


def _below(cls: type[Choice]) -> Iterator[type[Choice]]:
    for child in cls.__subclasses__():
        yield child
        yield from _below(child)
