"""Parts of a user's own in a configuration: ``name: package.module:attribute`` with ``arguments``,
wherever a part is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from orbitwise.energies.base import Energy
from orbitwise.groups.base import Group
from orbitwise.processes.base import Process
from orbitwise.runs.config import HERE, OWN, Config
from orbitwise.runs.named import Kind, build_named
from orbitwise.runs.said import Name

ENERGY = Kind("an orbitwise.energies.Energy", (Energy,))
GROUP = Kind("an orbitwise.groups.base.Group", (Group,))
PROCESS = Kind("an orbitwise.processes.base.Process", (Process,))


class Own(Config):
    """``name``: "package.module:attribute" of an object, of a class, or of a function annotated to
    return one; ``arguments``: what class or function is called with."""

    name: Name
    arguments: dict[str, Any] = Field(default_factory=dict)

    role: ClassVar[str] = "part"

    def part(self, kind: Kind, **offered: Any) -> Any:
        """The part; ``InputError`` as ``build_named``."""
        return build_named(self.name, self.role, kind, self.arguments, **offered)


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
        if isinstance(value, Mapping):
            return OWN if ":" in str(value.get(self.tag, "")) else HERE
        return OWN if isinstance(value, Own) else HERE
