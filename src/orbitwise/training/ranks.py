"""Processes that train together: where one of them ends, the others say so in one line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from orbitwise.errors import OrbitwiseError
from orbitwise.ranks import follows

# words of what gloo, NCCL and the store of torch.distributed say of a connection that is gone
_GONE = ("gloo", "nccl", "connection closed", "connection reset", "tcpstore", "processgroup")
_LAUNCHER = os.getppid()


class LostProcessError(OrbitwiseError):
    """Another process of the training has ended."""


@contextlib.contextmanager
def together(count: int, checkpoint: Path) -> Iterator[None]:
    """Inside, a connection between ``count`` processes that breaks is a ``LostProcessError``; in a
    process that another one leads, and that is there to say it, ``SystemExit``."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if count == 1 or not any(word in text for word in _GONE):
            raise
        if follows() and os.getppid() == _LAUNCHER:
            raise SystemExit(1) from None
        kept = "the last checkpoint is kept" if checkpoint.exists() else "there was no checkpoint"
        raise LostProcessError(
            f"one of the {count} processes of this training has ended (killed, or by an error of"
            f" its own above); {kept}, run the same command again to go on"
        ) from error
