"""A CARD on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from orbitwise.runs import registry


def show(name: str, console: Console | None = None) -> None:
    """Print the card of a method with its measured figures."""
    card = registry.card(name)
    console = console or Console()
    console.print(f"[bold]{card.title}[/bold] ({card.name})", highlight=False)
    console.print(card.summary.strip(), highlight=False, markup=False)
    console.print()
    arxiv = f", arXiv {card.arxiv}" if card.arxiv else ""
    console.print(f"paper  {card.paper.strip()}{arxiv}", highlight=False, markup=False)
    console.print(f"claim  {card.claim.strip()}", highlight=False, markup=False)
    parts = {"checked": card.checked, "differs from the paper": card.differs, "limits": card.limits}
    for title, lines in parts.items():
        _list(console, title, lines)
    rows = registry.measured(name)
    if rows:
        table = Table("figure", "value", "± (1 s.e.)", "goal", "commit", box=None, pad_edge=False)
        for row in rows:
            error = "" if row.error is None else f"{row.error:.2g}"
            table.add_row(row.what, f"{row.value:.4g}", error, row.goal or "", row.commit)
        console.print("\n[bold]measured[/bold]")
        console.print(table)
        console.print(
            "; ".join(dict.fromkeys(row.device for row in rows)), style="dim", highlight=False
        )
    else:
        console.print("\nmeasured  nothing yet", highlight=False)
    _list(console, "reproduce", card.reproduce)


def _list(console: Console, title: str, lines: list[str]) -> None:
    if lines:
        console.print(f"\n[bold]{title}[/bold]")
        for line in lines:
            console.print(f"- {line.strip()}", highlight=False, markup=False)
