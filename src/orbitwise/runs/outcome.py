"""What an action of a method leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What an action left in ``folder``: its ``result`` object, ``lines`` to say about it, and the
    ``exit_code`` of a command (not 0: there is a result, and it is not what was asked for)."""

    folder: Path
    result: Any
    lines: Sequence[str]
    exit_code: int = 0
