"""The folder of a run: its name, its owner, and what may be in it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from orbitwise.errors import InputError
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.molecules.identity import without_maps
from orbitwise.runs.config import load_run
from orbitwise.runs.job import Job

# settings that make another job of it
SAME = ("smiles", "temperature", "energy", "solvent", "search_energy", "seed")


def default_folder(config: ConformersConfig) -> Path:
    """``ensembles/FORMULA-xxxxxx``, the same for the same molecule."""
    mol = Chem.RemoveHs(without_maps(Chem.MolFromSmiles(config.smiles)))
    digest = hashlib.sha256(Chem.MolToSmiles(mol).encode()).hexdigest()[:6]
    return Path("ensembles") / f"{CalcMolFormula(mol)}-{digest}"


def job_of(config: ConformersConfig) -> Job:
    """What a folder of one molecule is for; more samples and more time go on with it."""
    return Job("conformers", config.model_dump(mode="json", include=set(SAME)), {"n": config.n})


def refuse_other_job(folder: Path, config: ConformersConfig) -> None:
    """``InputError`` where the folder holds another run."""
    if not (folder / "config.yaml").exists():
        return
    there = load_run(folder)
    if not isinstance(there, ConformersConfig):
        raise InputError(
            f"{folder} holds a run of another method; choose another folder with --out"
        )

    mine, theirs = (c.model_dump(include=set(SAME)) for c in (config, there))
    other = {k: v for k, v in theirs.items() if v != mine[k]}
    learned = config.learner == "torsions", there.learner == "torsions"
    if "learner" in there.model_fields_set and learned[0] != learned[1]:
        other["learner"] = there.learner
    if other:
        told = ", ".join(f"{k} {v}" for k, v in other.items())
        raise InputError(
            f"{folder} holds another job ({told}); choose another folder with --out, or remove it"
        )
