"""What became of one damaged file: read, refused in a clear line, or a fault of ours."""

from __future__ import annotations

import dataclasses
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from rdkit import rdBase

from orbitwise.errors import OrbitwiseError

SECONDS = 10  # for one small file
FARTHEST = 1e5 * 3**0.5  # Å
READ, REFUSED, HANG, TRACEBACK, NONSENSE = "read", "refused", "hang", "traceback", "nonsense"


class Hang(BaseException):
    """A reader took longer than ``SECONDS``; no ``Exception``, so that no reader catches it."""


def outcome(read: Callable[[Path], Any], path: Path) -> tuple[str, str]:
    """One of the five words above, and what to know about it."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(), rdBase.BlockLogs():
            warnings.simplefilter("ignore")
            found = read(path)
        wrong = next(nonsense(found), "")
        return (NONSENSE, wrong) if wrong else (READ, "")
    except OrbitwiseError as error:
        text = str(error)
        clear = bool(text.strip()) and "Traceback" not in text
        return (REFUSED, text) if clear else (TRACEBACK, f"says nothing: {text!r}")
    except Hang:
        return HANG, f"more than {SECONDS} s"
    except Exception:
        return TRACEBACK, traceback.format_exc()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def nonsense(found: Any, name: str = "", depth: int = 0) -> Iterator[str]:
    """Points in what was read that are not finite or far from all matter."""
    if isinstance(found, torch.Tensor):
        found = found.detach().cpu().numpy()
    if isinstance(found, np.ndarray):
        if found.dtype.kind == "f" and found.ndim >= 2 and found.shape[-1] == 3 and found.size:
            if not np.isfinite(found).all():
                yield f"{name}: a point that is not finite"
            elif np.abs(found).max() > FARTHEST:
                yield f"{name}: a point at {np.abs(found).max():g}"
    elif depth < 6:
        for key, value in _parts(found):
            yield from nonsense(value, f"{name}.{key}", depth + 1)


def _parts(found: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(found, dict):
        yield from ((str(k), v) for k, v in found.items())
    elif isinstance(found, (list, tuple)):
        yield from ((str(k), v) for k, v in enumerate(found))
    elif dataclasses.is_dataclass(found):
        yield from ((f.name, getattr(found, f.name, None)) for f in dataclasses.fields(found))
