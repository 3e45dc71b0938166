"""What an action of a method leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What an action left in ``folder``: its ``result`` object, and ``lines`` to say about it."""

    folder: Path
    result: Any
    lines: Sequence[str]
