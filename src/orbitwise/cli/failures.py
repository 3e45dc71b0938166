"""Every way a command can end badly, each as one line and an exit code."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback

INPUT, UNEXPECTED, INTERRUPTED = 2, 1, 130


def report(error: BaseException, debug: bool = False) -> int:
    """Say on stderr, in one line, what happened; the exit code. ``debug`` shows the traceback
    first."""
    from orbitwise.errors import OrbitwiseError

    if debug and not isinstance(error, KeyboardInterrupt):
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        _say("interrupted; finished stages are kept, run the same command again to go on")
        return INTERRUPTED
    if isinstance(error, OrbitwiseError):
        _say(f"error: {error}")
        return INPUT
    if isinstance(
        error, BrokenPipeError
    ):  # the reader of our output has left, as in `orbitwise ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNEXPECTED
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        _say(f"error: {error.strerror or error}{place}")
        return INPUT
    _say(f"unexpected error: {type(error).__name__}: {error}; please report it with {_log(error)}")
    return UNEXPECTED


def _say(message: str) -> None:
    print(" ".join(message.split()), file=sys.stderr, flush=True)


def _log(error: BaseException) -> str:
    with tempfile.NamedTemporaryFile(
        "w", prefix="orbitwise-", suffix=".log", delete=False, encoding="utf-8"
    ) as file:
        file.write(f"command: {' '.join(sys.argv)}\n")
        traceback.print_exception(error, file=file)
    return file.name
