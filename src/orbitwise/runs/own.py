"""Parts of a user's own in a configuration: ``name: package.module:attribute`` with ``arguments``,
wherever a part is chosen."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema
from torch import nn

from orbitwise.energies.base import Energy
from orbitwise.groups.base import Group
from orbitwise.networks.seeded import seeded
from orbitwise.runs.config import HERE, OWN, Config
from orbitwise.runs.named import Kind, build_named, check_named
from orbitwise.runs.said import Name

ENERGY = Kind("an orbitwise Energy", (Energy,))
GROUP = Kind("an orbitwise Group", (Group,))
NETWORK = Kind("a torch.nn.Module", (nn.Module,))


class Own(Config):
    """``name``: "package.module:attribute" of an object, of a class, or of a function annotated to
    return one; ``arguments``: what class or function is called with. The name alone will do."""

    name: Name
    arguments: dict[str, Any] = Field(default_factory=dict)

    role: ClassVar[str] = "part"
    kind: ClassVar[Kind] = Kind("anything", (object,))

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, values: Any) -> Any:
        return {"name": values} if isinstance(values, str) else values

    def part(self, **offered: Any) -> Any:
        """The part; ``InputError`` as ``build_named``."""
        return build_named(self.name, self.role, self.kind, self.arguments, **offered)


class OwnNetwork(Own):
    """A network of one's own."""

    role: ClassVar[str] = "network"
    kind: ClassVar[Kind] = NETWORK

    def build(self, seed: int, **offered: Any) -> nn.Module:
        """Weights drawn from ``seed``; one that is there already is copied. ``InputError`` as
        ``build_named``."""
        with seeded(seed):
            return self.made(**offered)

    def made(self, **offered: Any) -> nn.Module:
        """As ``build``, with weights from the random stream as it is."""
        return copy.deepcopy(self.part(**offered))


class OwnGroup(Own):
    """A symmetry of one's own."""

    role: ClassVar[str] = "group"
    kind: ClassVar[Kind] = GROUP


def check_parts(config: BaseModel) -> None:
    """Import the parts of one's own that a configuration names, and call none: ``InputError`` as
    ``build_named`` for what is not of its kind, before hours of work instead of after."""
    if isinstance(config, Own):
        check_named(config.name, config.role, config.kind, config.arguments)
    for _, value in config:
        if isinstance(value, BaseModel):
            check_parts(value)


@dataclass(frozen=True)
class OrOwn:
    """Beside an annotation: or a part of one's own, which is described by ``or_own``."""

    or_own: type[Own]
    tag: str = "name"

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        choices = {HERE: handler(source), OWN: handler.generate_schema(self.or_own)}
        return core_schema.tagged_union_schema(choices, self._which)

    def _which(self, value: Any) -> str:
        if isinstance(value, Own):
            return OWN
        name = value.get(self.tag) if isinstance(value, Mapping) else value
        return OWN if isinstance(name, str) and ":" in name else HERE
