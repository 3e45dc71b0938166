"""Crystals with their texts, as vectors that are kept beside the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from orbitwise.crystals.crystal import Crystal, CrystalBatch
from orbitwise.crystals.files.read import CrystalFile
from orbitwise.crystals.text.encoder import SIZE, encode
from orbitwise.crystals.text.words import about_element, prompts
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

    ``form`` as for ``data.crystal_text.prompts``, or ``"none"``: ``data`` as it is. Vectors are
    kept in the folder ``run``, so that each text is encoded once. Raises ``InputError`` as
    ``prompts`` does, and ``MissingExtraError``.
    """
    if form == "none":
        return data, []
    lines: list[str] = []
    with ProgressBar("describing") as bar:
        texts = prompts(
            data.crystals, form, data.file.columns, lambda done, of: bar(Progress(done, of))
        )
    with ProgressBar("encoding texts") as bar:
        vectors = text_vectors(
            texts,
            data.batch.species,
            keep=run / KEPT,
            warn=lines.append,
            progress=lambda done, of: bar(Progress(done, of)),
        )
    return CrystalSet(data.file, data.batch.with_prompt(vectors)), lines


def text_vectors(texts: Sequence[str], species: Tensor, **options) -> Tensor:
    """``(B, 1 + N, 384)``: of each text, and of what it says about the element of each atom of
    ``species (B, N)``; zeros for padding and for elements of which nothing is said. ``options`` are
    those of ``encode``.

    One vector of a whole text hardly tells which of two metals is in the octahedra; one of what is
    said about it does.
    """
    said: dict[str, int] = {text: k for k, text in enumerate(dict.fromkeys(texts))}
    rows = []
    for text, numbers in zip(texts, species.tolist(), strict=True):
        about = {z: about_element(text, z) for z in set(numbers) if z}
        rows.append([said[text], *(said.setdefault(about.get(z, ""), len(said)) for z in numbers)])
    # nothing said of an element is fine; a text that is empty goes to ``encode``, which refuses it
    words = [text for text in said if text or "" in texts]
    found = torch.zeros(len(said), SIZE)
    found[[said[text] for text in words]] = encode(words, **options)
    return found[torch.tensor(rows)]
