"""The blocks of a page that any science can use: plain values and text, nothing about how they were
made.

A block is drawn by the template of its own name in ``templates/``; one without content leaves no
heading behind. Molecules have a block of their own in ``ensemble``, crystals in ``cells``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class KeyFigure:
    """A number in large type at the top, with its label and a short note."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Text:
    """Paragraphs under a heading, and below them what the reader must be warned of."""

    paragraphs: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    title: str = "In plain words"


@dataclass(frozen=True)
class Table:
    """A table of text under its own heading, with a note below; the first column is aligned
    left."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A static figure: the bytes of a PNG, the heading it stands under, and what it shows."""

    png: bytes
    title: str
    caption: str = ""

    @property
    def width(self) -> int:
        """On the page, in CSS pixels, from the header of the PNG: type of one size in all
        pictures."""
        return round(int.from_bytes(self.png[16:20], "big") / 1.45)


@dataclass(frozen=True)
class CheckRow:
    """One comparison with the reference, as text ready to read; ``good`` colours it (None: no
    judgement). ``beside``: the same of other ensembles, by their names."""

    what: str
    samples: str
    target: str = ""
    good: bool | None = None
    beside: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Checks:
    """Comparisons with a reference, one a row; ``head`` names what is compared, ``target`` what it
    is held against."""

    rows: tuple[CheckRow, ...]
    title: str = "Agreement with the reference"
    head: str = "Samples"
    target: str = "Target"

    @property
    def beside(self) -> list[str]:
        """The other ensembles of any row, in order."""
        return list(dict.fromkeys(name for row in self.rows for name in row.beside))


@dataclass(frozen=True)
class StageRow:
    """Where time and energy evaluations went."""

    name: str
    seconds: float
    energy_calls: int = 0
    gradient_calls: int = 0
    note: str = ""


@dataclass(frozen=True)
class Cost:
    """What a run took, stage by stage."""

    stages: tuple[StageRow, ...]

    @property
    def longest(self) -> float:
        """Seconds of the longest stage; 1 where none took any."""
        return max((s.seconds for s in self.stages), default=0.0) or 1.0

    @property
    def total(self) -> StageRow:
        return StageRow(
            "Total",
            seconds=sum(s.seconds for s in self.stages),
            energy_calls=sum(s.energy_calls for s in self.stages),
            gradient_calls=sum(s.gradient_calls for s in self.stages),
        )


@dataclass(frozen=True)
class Meanings:
    """Terms of the page and what they mean."""

    terms: Pairs


@dataclass(frozen=True)
class Citation:
    """One line of the reference list."""

    text: str
    url: str = ""

    @classmethod
    def arxiv(cls, text: str, number: str | None) -> Citation:
        """A paper with its number on arXiv, if it has one."""
        return cls(text.strip(), f"https://arxiv.org/abs/{number}" if number else "")


@dataclass(frozen=True)
class Method:
    """What was done, in words, and the papers to cite."""

    paragraphs: tuple[str, ...] = ()
    citations: tuple[Citation, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """The files beside the page, each with what is in it, and what is needed to make it again:
    ``settings``, which may be nested, and ``versions`` by name."""

    files: Pairs = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    commit: str = ""
    command: str = ""

    @property
    def rows(self) -> Pairs:
        """Command, seed and commit, those that are known; the settings, ``a.b`` for nested ones,
        without those that are None; the versions."""
        seed = "" if self.seed is None else str(self.seed)
        origin = (("Command", self.command), ("Seed", seed), ("Commit", self.commit))
        known = (pair for pair in origin if pair[1])
        return (*known, *_flat(self.settings), *self.versions.items())


def _flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(map(str, value)) or "none"
        elif value is not None:
            yield name, str(value)
