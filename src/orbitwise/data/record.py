"""Which files of a folder are a command's own: nobody else's is ever replaced or deleted.

While a command works in a folder (``recorded``), every file that it writes there (``replacing``) is
noted in ``FOLDER/.orbitwise/files.jsonl`` with the digest of its content, before it takes its
place: a killed command leaves no file of its own that the next one would not know. What stands in
the way and is not noted, or was changed since, keeps its content under another name.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

OWN = ".orbitwise"  # the folder in a folder that is the program's own
FILES = "files.jsonl"

# What commands leave in their folders: none of these may be there already as somebody else's.
LEFT = (
    "config.yaml",
    "summary.json",
    "summary.csv",
    "report.html",
    "metrics.jsonl",
    "checkpoint.safetensors",
    "samples.*",
    "audit.json",
    "conformers.sdf",
    "ensemble.*",
    "crystals.csv",
    "crystals.extxyz",
)


class Record:
    """The files of ``folder`` that commands have written there.

    A file is *own* while its content is one that was noted for its name; of one that grows (a log)
    or has a digest inside (a checkpoint) the name is enough.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        self.path = self.folder / OWN / FILES
        self._noted: dict[str, set[str | None]] = {}
        for line in _lines(self.path):
            with contextlib.suppress(ValueError, KeyError, TypeError):  # cut short by a kill
                row = json.loads(line)
                self._noted.setdefault(str(row["name"]), set()).add(row["sha256"])

    @property
    def exists(self) -> bool:
        """Whether a command has worked here before."""
        return self.path.is_file()

    @property
    def names(self) -> list[str]:
        """What was noted, relative to the folder."""
        return list(self._noted)

    def holds(self, path: Path) -> bool:
        """Whether a path is in this folder."""
        return path.is_relative_to(self.folder)

    def owns(self, path: str | Path) -> bool:
        """Whether the file there is as a command of this folder left it."""
        path = _whole(path)
        noted = self._noted.get(self._name(path), set())
        if path.is_symlink() or not path.is_file():
            return False
        return None in noted or (bool(noted) and digest(path) in noted)

    def note(self, path: str | Path, sha256: str | None) -> None:
        """``path`` is the folder's own from now on, with this content (None: with any)."""
        name = self._name(_whole(path))
        noted = self._noted.setdefault(name, set())
        if sha256 in noted:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            # a line of its own, also after one that was cut short by a kill
            file.write("\n" + json.dumps({"name": name, "sha256": sha256}))
        noted.add(sha256)

    def make_way(self, path: str | Path) -> None:
        """Whatever stands at ``path`` and is not the folder's own gets another name, and a line
        says so."""
        path = _whole(path)
        if not os.path.lexists(path) or self.owns(path):
            return
        aside = _free(path)
        os.rename(path, aside)
        _say(
            f"note: {path} is not a file of this command, or was changed since: it is kept as"
            f" {aside.name}"
        )

    def drop(self, pattern: str, but: Iterable[str | Path] = ()) -> None:
        """Delete the folder's own files of an earlier command whose names (relative to the
        folder) match ``pattern``; others stay."""
        keep = {self._name(_whole(path)) for path in but}
        for name in [n for n in self._noted if fnmatch.fnmatchcase(n, pattern) and n not in keep]:
            path = self.folder / name
            if self.owns(path):
                path.unlink()

    def strangers(self) -> list[Path]:
        """What has a name that commands write and is not noted at all."""
        return [
            path
            for path in sorted(self.folder.glob("*"))
            if any(fnmatch.fnmatchcase(path.name, pattern) for pattern in LEFT)
            and path.name not in self._noted
            and not any(name.startswith(f"{path.name}/") for name in self._noted)
        ]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


_open: list[Record] = []  # of the folders that this process works in, the innermost last


@contextlib.contextmanager
def recorded(folder: str | Path) -> Iterator[Record]:
    """What is written into ``folder`` inside the block is noted as its own."""
    record = Record(folder)
    _open.append(record)
    try:
        yield record
    finally:
        _open.remove(record)


def record_of(path: str | Path) -> Record | None:
    """The record of the innermost folder with ``path`` that this process works in."""
    whole = _whole(path)
    return next((record for record in reversed(_open) if record.holds(whole)), None)


def grows(path: str | Path) -> None:
    """A file that is written line by line is the folder's own, whatever it holds; what is there
    already under its name and is not, gets another one."""
    record = record_of(path)
    if record is not None:
        record.make_way(path)
        record.note(path, None)


def digest(path: str | Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _whole(path: str | Path) -> Path:
    """From the root, links of folders followed: the name itself is as it stands."""
    path = Path(path)
    return path.parent.resolve() / path.name


def _free(path: Path) -> Path:
    """A name beside ``path`` that nothing has."""
    names = (f"{path.stem}.kept{k or ''}{path.suffix}" for k in range(10**6))
    return next(p for p in map(path.with_name, names) if not os.path.lexists(p))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
