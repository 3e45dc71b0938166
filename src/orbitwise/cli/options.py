"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import typer.core


def literal(text: str) -> str:
    """A help text with square brackets as they are: rich takes them for markup where it renders
    the help, and nothing else may see the backslash that keeps it from that."""
    return text.replace("[", r"\[") if getattr(typer.core, "HAS_RICH", True) else text


Out = Annotated[Path | None, typer.Option(help="Folder for the results.", show_default=False)]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Show configuration, parameters and expected energy calls, and stop."
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Code and commands that the file or folder names may run (docs/trust.md)."
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0,
        max=2_000_000_000,
        help="The same seed and steps give the same result; how many steps fit into minutes is"
        " not told by it.",
    ),
]
Run = Annotated[Path, typer.Argument(help="Folder that a run wrote.", show_default=False)]
