"""A CARD on the terminal, and the list of all."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orbitwise.runs import registry
from orbitwise.runs.registry import Measured


def show(name: str, console: Console | None = None, *, whole: bool = False) -> None:
    """Print the card of a method with its measured figures; ``whole``: also what was checked, and
    in what it differs from the paper."""
    card = registry.card(name)
    console = console or Console()
    console.print(f"[bold]{card.title}[/bold] ({card.name})", highlight=False)
    console.print(card.summary.strip(), highlight=False, markup=False)
    arxiv = f", arXiv {card.arxiv}" if card.arxiv else ""
    console.print(f"Paper: {card.paper.strip()}{arxiv}", highlight=False, markup=False)

    claims = [
        Text.assemble(f"{claim.claim}: ", (claim.verdict, "bold"), f"; {claim.why}")
        for claim in card.claims
    ]
    _items(console, "claims", claims)
    rows = registry.measured(name)
    if rows:
        console.print(_figures(rows), highlight=False)
    else:
        console.print("[bold]measured[/bold] nothing yet")
    if whole:
        _items(console, "checked", map(Text, card.checked))
        _items(console, "differs from the paper", map(Text, card.differs))
    _items(console, "limits", map(Text, card.limits))
    _items(console, "reproduce", map(Text, card.reproduce))
    if not whole:
        said = f"orbitwise methods show {name} --all"
        console.print(f"what was checked, and what differs: {said}", highlight=False, markup=False)


def show_list(console: Console | None = None) -> None:
    """One line for each method, by family."""
    console = console or Console()
    for family, cards in registry.families().items():
        console.print(f"[bold]{family}[/bold]")
        for card in cards:
            line = f"  {card.name:20s} {card.title}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _figures(rows: list[Measured]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("measured", overflow="fold")
    table.add_column("value", no_wrap=True)
    table.add_column("± 1 s.e.", no_wrap=True)
    table.add_column("goal", max_width=28)
    for row in rows:
        error = "" if row.error is None else f"{row.error:.2g}"
        table.add_row(row.what, f"{row.value:.4g}", error, row.goal or "")
    return table


def _items(console: Console, title: str, lines: Iterable[Text]) -> None:
    """A list under its title; what goes on on the next line is indented."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    for line in lines:
        grid.add_row("-", line)
    if grid.rows:
        console.print(f"[bold]{title}[/bold]")
        console.print(grid)
