"""``orbitwise methods list``, ``show`` and ``cite``."""

from __future__ import annotations

from typing import Annotated

import typer


def methods_list() -> None:
    """One line for each method, by family."""
    from orbitwise.cli.card import show_list

    show_list()


def methods_show(
    name: Annotated[
        str, typer.Argument(help="As in `orbitwise methods list`.", show_default=False)
    ],
    whole: Annotated[
        bool,
        typer.Option("--all", help="Also what was checked, and what differs from the paper."),
    ] = False,
) -> None:
    """The CARD of a method."""
    from orbitwise.cli.card import show

    show(name, whole=whole)


def methods_cite(
    names: Annotated[
        list[str] | None, typer.Argument(help="Methods; all when none is given.")
    ] = None,
) -> None:
    """BibTeX of the papers behind methods."""
    from orbitwise.runs.registry import cite

    print(cite(names or ()), end="")
