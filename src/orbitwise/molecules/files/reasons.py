"""What RDKit's log tells of a record that it cannot read, as one reason."""

from __future__ import annotations

import re
from collections.abc import Sequence

from orbitwise.molecules.molecule import one_based

_UNTOLD = "its lines do not follow the format"
_WORDS = {"idx": "an atom number that the record does not have"}


def rdkit_reason(log: Sequence[str]) -> str:
    """The first reason of ``log`` (the last line says what RDKit does then). A violated condition
    of RDKit's own code is a frame of asterisks: its kind, its words, the place in that code; the
    line of the record comes after it."""
    told = [line.strip().removeprefix("ERROR:").strip() for line in log]
    if "****" not in told:
        return one_based(" ".join(next(filter(None, told), _UNTOLD).split()))
    words = "".join(told[told.index("****") + 2 :][:1])
    what = _WORDS.get(words, words) or _UNTOLD
    line = next((m for t in told if (m := re.search(r"error hit on line (\d+)", t))), None)
    return f"{what} (line {line.group(1)} of the record)" if line else what
