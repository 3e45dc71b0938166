"""Crystals with their texts, as vectors that are kept beside the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orbitwise.data.crystal_files import CrystalFile
from orbitwise.data.crystal_text import prompts
from orbitwise.data.crystals import Crystal, CrystalBatch
from orbitwise.data.text_encoder import encode
from orbitwise.training.progress import Progress, ProgressBar

KEPT = "texts.safetensors"


@dataclass(frozen=True)
class CrystalSet:
    """Crystals of one split: the file, and all of them as a batch."""

    file: CrystalFile
    batch: CrystalBatch

    @property
    def crystals(self) -> list[Crystal]:
        return self.file.crystals


def with_texts(data: CrystalSet, form: str, run: Path) -> tuple[CrystalSet, list[str]]:
    """``data`` with the vectors of its texts in the batch, and lines about texts that are too long.

    ``form`` as for ``data.crystal_text.prompts``, or ``"none"``: ``data`` as it is. Vectors are kept in the folder
    ``run``, so that each text is encoded once. Raises ``InputError`` as ``prompts`` does, and ``MissingExtraError``.
    """
    if form == "none":
        return data, []
    lines: list[str] = []
    with ProgressBar("describing") as bar:
        texts = prompts(data.crystals, form, data.file.columns, lambda done, of: bar(Progress(done, of)))
    with ProgressBar("encoding texts") as bar:
        vectors = encode(
            texts, keep=run / KEPT, warn=lines.append, progress=lambda done, of: bar(Progress(done, of))
        )
    return CrystalSet(data.file, data.batch.with_prompt(vectors)), lines
