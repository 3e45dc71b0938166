"""Files and folders that a command leaves: written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from orbitwise.data.record import digest, record_of
from orbitwise.errors import InputError


@contextlib.contextmanager
def replacing(path: str | Path, *, durable: bool = False, grows: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an
    error.

    ``durable``: for what took long to compute, has one writer and a digest of its own. Content and
    name are on the disk when the block is left, so a power cut cannot undo it, and what a killed
    process left of the file is overwritten by the next. ``grows``: a file that is continued later.
    In the folder of a command that is at work, somebody else's file is not replaced: it gets
    another name (``data.record``). Raises ``OSError`` where the disk does not take it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _own_name(path) if durable else _new_name(path)
    try:
        yield temporary
        if durable:
            _sync(temporary, os.O_RDWR)
        os.chmod(temporary, 0o666 & ~_umask())
        record = record_of(path)
        if record is not None:
            if not durable:  # its writer has read what stands there
                record.make_way(path)
            record.note(path, None if durable or grows else digest(temporary))
        os.replace(temporary, path)
        if durable and os.name == "posix":
            _sync(path.parent, os.O_RDONLY)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _own_name(path: Path) -> Path:
    """The same for every process."""
    return path.with_name(f".{path.stem}.tmp{path.suffix}")


def _new_name(path: Path) -> Path:
    """One that no other process has: several may write a shared cache at once."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    return Path(name)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def writable_folder(path: str | Path) -> Path:
    """Create a folder where needed and try to write into it; ``InputError`` where that fails."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write to the folder {path} ({error.strerror}); choose another with --out"
        ) from None
    return path
