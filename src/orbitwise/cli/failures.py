"""Every way a command can end badly, each as one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback

INPUT, UNEXPECTED = 2, 1
INTERRUPTED = 128  # and the number of the signal: 130 of Ctrl-C, 143 of SIGTERM


def report(error: BaseException, debug: bool = False) -> int:
    """Say on stderr, in one line, what happened; the exit code. ``debug`` shows the traceback
    first."""
    from orbitwise.errors import OrbitwiseError
    from orbitwise.ranks import follows
    from orbitwise.signals import ended_by

    if debug and not isinstance(error, KeyboardInterrupt):
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        number = ended_by()
        by = "interrupted" if number == signal.SIGINT else f"stopped by {_name(number)}"
        if not follows():  # the leading process says it
            _say(f"{by}; finished stages are kept, run the same command again to go on")
        return INTERRUPTED + number
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
    if (place := _in_own_code(error)) is not None:
        _say(f"error: {place}: {type(error).__name__}: {error} (traceback: {_log(error)})")
        return INPUT
    _say(f"unexpected error: {type(error).__name__}: {error}; please report it with {_log(error)}")
    return UNEXPECTED


def _name(number: int) -> str:
    return signal.Signals(number).name


def _in_own_code(error: BaseException) -> str | None:
    """The file and line of a module that the user named, where the innermost frame is in one."""
    named = sys.modules.get("orbitwise.runs.named")
    own_files = getattr(named, "own_files", ())
    frames = traceback.extract_tb(error.__traceback__)
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    for frame in reversed(frames):
        if frame.filename.startswith(package):
            return None
        if frame.filename in own_files:
            return f"{frame.filename}, line {frame.lineno}"
    return None


def _say(message: str) -> None:
    print(" ".join(message.split()), file=sys.stderr, flush=True)


def _log(error: BaseException) -> str:
    with tempfile.NamedTemporaryFile(
        "w", prefix="orbitwise-", suffix=".log", delete=False, encoding="utf-8"
    ) as file:
        file.write(f"command: {' '.join(sys.argv)}\n")
        traceback.print_exception(error, file=file)
    return file.name
