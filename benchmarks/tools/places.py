"""Where benchmarks read and where they keep what they make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"  # data sets beside the project
REFERENCES = ROOT / "benchmarks" / "references"

_keep = ROOT


def kept(place: str) -> Path:
    """A folder of the project to write into, as ``runs/sgds``; of a quick run one that goes away
    with it."""
    return _keep / place


@contextmanager
def nothing_kept() -> Iterator[Path]:
    """Everything that is written inside goes to a temporary folder."""
    global _keep
    with TemporaryDirectory() as folder:
        _keep, before = Path(folder), _keep
        try:
            yield _keep
        finally:
            _keep = before
