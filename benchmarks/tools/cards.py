"""Package the benchmark rows that the CARDs name, so that an installed ``orbitwise methods show``
has them.

python benchmarks/cards.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from orbitwise.runs.registry import MEASURED, cards, matching_rows

RESULTS = Path(__file__).parent / "results"
KEPT = ("what", "value", "error", "goal", "device", "commit", "command")


def main() -> None:
    rows = [row for path in sorted(RESULTS.glob("*.json")) for row in json.loads(path.read_text())]
    found = {
        row["what"]: row for card in cards().values() for row in matching_rows(card.measured, rows)
    }
    text = json.dumps([{k: found[what].get(k) for k in KEPT} for what in sorted(found)], indent=1)
    temporary = MEASURED.with_suffix(".tmp")
    temporary.write_text(text + "\n")
    os.replace(temporary, MEASURED)
    print(f"{len(found)} rows in {MEASURED.name}")


if __name__ == "__main__":
    main()
