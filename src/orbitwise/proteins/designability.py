"""Designability by external commands: does a sequence designed for a backbone fold back to it?

Weights of ProteinMPNN and ESMFold are not part of this project; you name commands that run them.
For every sample

    1. ``sequence_command`` reads a PDB file and writes a FASTA file with one or more sequences;
    2. ``fold_command`` reads that FASTA file and writes one PDB file per sequence into a folder;
    3. scRMSD is the smallest Cα RMSD between the sample and these structures after superposition.

A sample with scRMSD < 2 Å is called designable (Trippe 2206.04119, section 5.1).
"""

from __future__ import annotations

import math
import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch
from pydantic import Field, field_validator

from orbitwise.data.record import digest, record_of, recorded
from orbitwise.errors import InputError
from orbitwise.proteins.chain import Chain
from orbitwise.proteins.files import read_chains, write_pdb
from orbitwise.runs.config import Config
from orbitwise.runs.said import Command, may_run

DESIGNABLE = 2.0  # Å
_WANTED = {"sequence_command": ("{pdb}", "{fasta}"), "fold_command": ("{fasta}", "{folder}")}


class DesignabilityConfig(Config):
    """Commands with places for files: ``sequence_command`` with {pdb} (read) and {fasta} (to
    write), ``fold_command`` with {fasta} (read) and {folder} (to write PDB files into); ``samples``
    to judge, and seconds each call may take."""

    sequence_command: Command
    fold_command: Command
    samples: int = Field(20, ge=1)
    timeout: float = Field(600.0, gt=0)

    @field_validator("sequence_command", "fold_command")
    @classmethod
    def _places(cls, value: Command, info) -> Command:
        if missing := [place for place in _WANTED[info.field_name] if place not in value]:
            raise ValueError(f"has no place for {' and '.join(missing)}")
        return value

    def may_run(self) -> None:
        """Raise ``InputError`` unless the user has said that both may run (``runs.said``)."""
        may_run(self.sequence_command, "designability.sequence_command")
        may_run(self.fold_command, "designability.fold_command")


@dataclass(frozen=True)
class Designability:
    """``sc_rmsd`` in Å of each sample judged, the best over its sequences; ``sequences`` per
    sample."""

    sc_rmsd: tuple[float, ...]
    sequences: tuple[int, ...]

    @property
    def share(self) -> float:
        """Of samples with scRMSD < 2 Å."""
        return sum(v < DESIGNABLE for v in self.sc_rmsd) / len(self.sc_rmsd)


def designability(
    chains: Sequence[Chain], config: DesignabilityConfig, folder: str | Path
) -> Designability:
    """Run both commands for the first ``samples`` chains in ``folder``, where all their files stay.

    Raises ``InputError`` where only a file names the commands, and naming the sample where one
    cannot be started, fails (with the end of what it said), takes too long, or leaves something
    else than it should.
    """
    config.may_run()
    folder = Path(folder)
    with recorded(folder):
        found = [_one(chain, config, folder / chain.name) for chain in chains[: config.samples]]
    return Designability(tuple(min(v) for v in found), tuple(len(v) for v in found))


def _one(chain: Chain, config: DesignabilityConfig, folder: Path) -> list[float]:
    folder.mkdir(parents=True, exist_ok=True)
    pdb, fasta, folded = folder / "backbone.pdb", folder / "sequences.fasta", folder / "folded"
    folded.mkdir(exist_ok=True)
    where = f"designability of {chain.name}"
    _clear(fasta, folded, where)
    write_pdb(pdb, chain)
    _call(config.sequence_command, {"pdb": pdb, "fasta": fasta}, config.timeout, where)
    count = _sequences(fasta, len(chain), where)
    _call(config.fold_command, {"fasta": fasta, "folder": folded}, config.timeout, where)
    for file in (fasta, *_files(folded)):
        record = record_of(file)
        if record is not None:
            record.note(file, digest(file))
    structures = sorted(folded.glob("*.pdb"))
    if len(structures) != count:
        raise InputError(
            f"{where}: fold_command left {len(structures)} PDB files for {count} sequences"
        )
    return [_rmsd(chain, path, where) for path in structures]


def _clear(fasta: Path, folded: Path, where: str) -> None:
    """Files of an earlier run go, they are not to be taken for this one's; ``InputError`` for
    those that it did not leave, or that were changed since."""
    for old in (fasta, *_files(folded)):
        record = record_of(old)
        if record is not None and record.owns(old):
            old.unlink()
        elif os.path.lexists(old):
            raise InputError(
                f"{where}: {old} is not of an earlier run of this command, or was changed since;"
                " move it away"
            )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def _call(command: str, places: dict[str, Path], timeout: float, where: str) -> None:
    words = [_filled(word, places) for word in shlex.split(command)]
    name = words[0]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout)
    except OSError as error:
        raise InputError(f"{where}: {name!r} cannot be run ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{where}: {name!r} took more than {timeout:g} s (designability.timeout)"
        ) from None
    if done.returncode:
        said = " ".join((done.stderr.strip() or done.stdout.strip())[-500:].split()) or "nothing"
        raise InputError(
            f"{where}: {name!r} failed with exit code {done.returncode}; it said: {said}"
        )


def _filled(word: str, places: dict[str, Path]) -> str:
    for name, path in places.items():
        word = word.replace(f"{{{name}}}", str(path))
    return word


def _sequences(fasta: Path, residues: int, where: str) -> int:
    if not fasta.is_file():
        raise InputError(f"{where}: sequence_command left no {fasta}")
    records = [r.partition("\n")[2] for r in fasta.read_text(encoding="utf-8").split(">")[1:]]
    lengths = [len("".join(r.split())) for r in records]
    if not lengths or any(n != residues for n in lengths):
        raise InputError(
            f"{where}: {fasta} should hold sequences of {residues} residues, it has"
            f" {lengths or 'none'}"
        )
    return len(lengths)


def _rmsd(chain: Chain, path: Path, where: str) -> float:
    """Cα RMSD in Å after superposition."""
    try:
        found = read_chains(
            path, "ca", breaks=True
        ).chains  # a fold may be bad; that is what is measured
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if len(found) != 1 or len(found[0]) != len(chain):
        raise InputError(
            f"{where}: {path} has chains of {[len(c) for c in found]} residues, expected one of"
            f" {len(chain)}"
        )
    own = chain.xyz[:, min(1, chain.xyz.shape[1] - 1)]
    x, y = (
        torch.from_numpy(np.ascontiguousarray(v, dtype=np.float64))
        for v in (own, found[0].xyz[:, 0])
    )
    turn, shift = roma.rigid_points_registration(x, y)
    return math.sqrt(float((x @ turn.T + shift - y).square().sum(-1).mean()))
