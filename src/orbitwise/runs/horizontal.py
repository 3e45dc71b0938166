"""The key ``horizontal`` of trainings on points without a preferred pose."""

from __future__ import annotations

from typing import Any

from pydantic import model_serializer

from orbitwise.runs.config import Config


class HorizontalConfig(Config):
    """Of a configuration with ``horizontal: bool = False``: predictions and the sampler's noise
    turn nothing (docs/theory.md, section 10)."""

    @model_serializer(mode="wrap")
    def _as_before(self, dump) -> dict[str, Any]:
        """The default is not written down: runs begun before there was a choice can still be
        resumed."""
        values = dump(self)
        if values.get("horizontal") is False:
            del values["horizontal"]
        return values
