"""The commands. They have no logic of their own: each builds a configuration and calls a method."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from orbitwise.errors import MissingExtraError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. 2 with one line that names the extra where the command
    line's own packages are missing."""
    try:
        from orbitwise.cli import app
    except MissingExtraError as error:
        print(f"error: the command line needs more than the library: {error}", file=sys.stderr)
        return 2
    return app.main(arguments)
