"""The folder of a run: its name, its owner, and what may be in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from orbitwise.errors import InputError
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.runs.config import load_run


def default_folder(config: ConformersConfig) -> Path:
    """``ensembles/FORMULA-xxxxxx``, the same for the same molecule."""
    mol = Chem.MolFromSmiles(config.smiles)
    digest = hashlib.sha256(Chem.MolToSmiles(mol).encode()).hexdigest()[:6]
    return Path("ensembles") / f"{CalcMolFormula(mol)}-{digest}"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """The folder belongs to this process inside; ``InputError`` where another one works in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(blocking=False)
    except Timeout as error:
        raise InputError(
            f"another process works in {folder}; wait for it or choose another folder with --out"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot write to the output folder {folder} ({error.strerror}); choose another with"
            " --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


def refuse_other_job(folder: Path, config: ConformersConfig) -> None:
    """``InputError`` where the folder holds another run."""
    if not (folder / "config.yaml").exists():
        return
    there = load_run(folder)
    if not isinstance(there, ConformersConfig):
        raise InputError(
            f"{folder} holds a run of another method; choose another folder with --out"
        )

    def job(c: ConformersConfig) -> dict:
        return c.model_dump(
            include={"smiles", "temperature", "energy", "solvent", "search_energy", "seed"}
        )

    mine, theirs = job(config), job(there)
    other = {k: v for k, v in theirs.items() if v != mine[k]}
    learned = config.learner == "torsions", there.learner == "torsions"
    if "learner" in there.model_fields_set and learned[0] != learned[1]:
        other["learner"] = there.learner
    if other:
        told = ", ".join(f"{k} {v}" for k, v in other.items())
        raise InputError(
            f"{folder} holds another job ({told}); choose another folder with --out, or remove it"
        )
