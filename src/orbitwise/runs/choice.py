"""A part of a configuration that is chosen by name, where every choice has only its own keys.

Version 0.1 had one class with the keys of all choices and wrote all of them into its run folders.
Such files still load, and the digests of finished stages are still made of all these keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    PrivateAttr,
    ValidatorFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from orbitwise.runs.config import Config


class Choice(Config):
    """Base of a family of configurations that ``tag`` tells apart.

    ``flat``: all keys of the family in version 0.1 with their defaults; it never changes, and a
    later choice adds nothing to it. Of these keys, those of another choice are dropped where they
    have that default, or where a file gives all of them as version 0.1 did; else they are unknown.
    """

    tag: ClassVar[str] = "name"
    flat: ClassVar[Mapping[str, Any]] = {}
    _written: dict[str, Any] = PrivateAttr(default_factory=dict)  # keys of others, not as default

    @classmethod
    def others(cls) -> dict[str, Any]:
        """Keys that other choices had in version 0.1, with their defaults."""
        return {k: v for k, v in cls.flat.items() if k not in cls.model_fields}

    @model_validator(mode="wrap")
    @classmethod
    def _own_keys(cls, values: Any, handler: ValidatorFunctionWrapHandler) -> Self:
        if not isinstance(values, Mapping):
            return handler(values)

        others = cls.others()
        all_keys = values.keys() >= cls.flat.keys()
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
    version 0.1 wrote, of which digests of finished stages are made."""
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
