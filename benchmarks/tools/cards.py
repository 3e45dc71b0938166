"""Package the benchmark rows that the CARDs name, so that an installed ``orbitwise methods show``
has them.

    python -m benchmarks.tools.cards
"""

from __future__ import annotations

import json
import os

from benchmarks.tools.rows import read_rows
from orbitwise.runs.registry import MEASURED, cards

KEPT = ("what", "value", "error", "goal", "device", "commit", "command")


def main() -> None:
    rows = {row["what"]: row for row in read_rows()}
    named = sorted({what for card in cards().values() for what in card.measured})
    if unknown := [what for what in named if what not in rows]:
        raise SystemExit(f"the cards name rows that were not measured: {', '.join(unknown)}")
    text = json.dumps([{key: rows[what].get(key) for key in KEPT} for what in named], indent=1)
    temporary = MEASURED.with_suffix(".tmp")
    temporary.write_text(text + "\n")
    os.replace(temporary, MEASURED)
    print(f"{len(named)} rows in {MEASURED.name}")


if __name__ == "__main__":
    main()
