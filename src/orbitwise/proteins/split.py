"""Chains as a model of backbones takes them: within its lengths, parted into training and held-out
ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orbitwise.errors import InputError
from orbitwise.proteins.chain import Chain
from orbitwise.proteins.files import read_chains

FEWEST = 2  # chains on either side


@dataclass(frozen=True)
class ProteinData:
    """``training`` and ``held_out`` chains; ``lines``: what was left out or decided; ``digest`` of
    the training."""

    training: list[Chain]
    held_out: list[Chain]
    lines: tuple[str, ...]

    @property
    def digest(self) -> str:
        found = hashlib.sha256()
        for chain in self.training:
            found.update(np.ascontiguousarray(chain.xyz, dtype=np.float32).tobytes())
        return found.hexdigest()[:16]


def read_data(
    path: Path, mode: str, shortest: int, longest: int, held_out: float, skip_bad: bool, seed: int
) -> ProteinData:
    """The chains of ``shortest`` to ``longest`` residues of a file or folder.

    A file with the splits ``train`` and ``val`` keeps them; of others the share ``held_out`` is set
    aside at random. Raises ``InputError`` as ``read_chains`` does, and where too few chains are
    left.
    """
    file = read_chains(path, mode, skip_bad=skip_bad)
    kept = [c for c in file.chains if shortest <= len(c) <= longest]
    training, judged = _parted(kept, held_out, seed)
    if min(len(training), len(judged)) < FEWEST:
        raise InputError(
            f"{path}: {len(kept)} of {len(file.chains)} chains have {shortest} to {longest}"
            f" residues; that leaves {len(training)} to train on and {len(judged)} to judge by,"
            f" {FEWEST} each are needed"
        )
    lines = [
        f"chains: {len(training)} to train on, {len(judged)} held out, {shortest} to {longest}"
        " residues"
    ]
    if others := len(file.chains) - len(kept):
        lines.append(f"{others} chains of other lengths are not used")
    if file.skipped:
        lines.append(f"{len(file.skipped)} chains skipped, the first: {file.skipped[0]}")
    return ProteinData(training, judged, (*lines, *file.notes))


def _parted(chains: Sequence[Chain], share: float, seed: int) -> tuple[list[Chain], list[Chain]]:
    if {"train", "val"} <= {c.split for c in chains}:
        return [c for c in chains if c.split == "train"], [c for c in chains if c.split == "val"]
    order = np.random.default_rng(seed).permutation(len(chains))
    count = max(FEWEST, round(share * len(chains)))
    return [chains[i] for i in order[count:]], [chains[i] for i in order[:count]]
