"""A Boltzmann ensemble of a molecule from its SMILES: search, learn, weigh, draw, relax, judge,
report.

The search is replica exchange (its samples are right in the long run), the learner a diffusion
model with exact SO(3) x Aut targets (Orbit Diffusion, arXiv 2502.09890; its samples are
independent), and the relaxation a short Markov chain from each sample. Free energies of the three
are compared with each other, and the learner's paths are weighed: where their importance weights
hold, they give populations that need neither search nor relaxation.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from orbitwise import __version__
from orbitwise.data.folder import replacing
from orbitwise.energies import Counted, RayEnergy
from orbitwise.errors import InputError
from orbitwise.methods.conformers import page, weights
from orbitwise.methods.conformers import stages as work
from orbitwise.methods.conformers import summary as conformer_summary
from orbitwise.methods.conformers.effort import plan_effort
from orbitwise.methods.conformers.judge import judge
from orbitwise.methods.conformers.learner import NETWORK, network_size, restore
from orbitwise.methods.conformers.stages import Drawn, Found, Relaxed
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.methods.conformers.weights import Weighed
from orbitwise.molecules import MMFF94
from orbitwise.molecules.files.reference import Reference
from orbitwise.molecules.files.structures import write_extxyz, write_sdf
from orbitwise.molecules.molecule import choose_isomer, parse_smiles, unspecified_stereo
from orbitwise.runs.config import Config, Plan, load_run, save_run
from orbitwise.runs.outcome import Outcome
from orbitwise.runs.stages import Pipeline, Stages


class ConformersConfig(Config):
    """``budget`` in minutes; ``effort`` replaces what the budget would decide, to repeat a run
    elsewhere; ``workers`` share a slow energy out and do not change what it gives."""

    smiles: str
    n: int = Field(1000, ge=10, le=100_000)
    temperature: float = Field(300.0, ge=50, le=2000)
    energy: Literal["mmff94", "mmff94s", "xtb"] = "mmff94"
    budget: float = Field(6.0, gt=0)
    seed: int = Field(0, ge=0)
    out: Path | None = None
    reference: Path | None = None
    workers: int = Field(1, ge=1)
    effort: Effort | None = None


def build_system(config: ConformersConfig) -> tuple[System, list[str]]:
    """Molecule and energy; warnings where the SMILES leaves stereochemistry open."""
    mol = parse_smiles(config.smiles)
    warnings = [
        f"The SMILES leaves stereochemistry open ({what}); one isomer was chosen by the seed and"
        " kept."
        for what in unspecified_stereo(mol)
    ]
    mol = choose_isomer(mol, config.seed)
    if config.workers > 1 and config.energy != "xtb":
        raise InputError(
            f"workers are for slow energies (xtb); {config.energy} needs none: it is batched"
        )
    if config.energy == "xtb":
        from orbitwise.energies.ase import xtb

        factory = partial(xtb, mol, temperature=config.temperature)
        energy = factory() if config.workers == 1 else RayEnergy(factory, config.workers)
        device, dtype = torch.device("cpu"), torch.float64
    else:
        variant = {"mmff94": "MMFF94", "mmff94s": "MMFF94s"}[config.energy]
        energy = MMFF94(mol, temperature=config.temperature, variant=variant)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float32
    energy = Counted(energy.to(device=device, dtype=dtype))
    return System(mol, energy, config.temperature, device, dtype), warnings


@contextmanager
def opened(config: ConformersConfig) -> Iterator[tuple[System, list[str]]]:
    """``build_system``, with its workers stopped in the end."""
    system, warnings = build_system(config)
    try:
        yield system, warnings
    finally:
        if config.workers > 1:
            system.energy.inner.close()


def default_folder(config: ConformersConfig) -> Path:
    """``ensembles/FORMULA-xxxxxx``, the same for the same molecule."""
    mol = Chem.MolFromSmiles(config.smiles)
    digest = hashlib.sha256(Chem.MolToSmiles(mol).encode()).hexdigest()[:6]
    return Path("ensembles") / f"{CalcMolFormula(mol)}-{digest}"


def plan(config: ConformersConfig) -> Plan:
    """What the run will take: parameters of the network, expected energy evaluations."""
    with opened(config) as (system, _):
        effort = config.effort or plan_effort(system, config)
    return Plan(parameters=network_size(), energy_calls=effort.energy_calls(config.n))


def run(config: ConformersConfig) -> Outcome:
    """Run what is missing, write the ensemble, ``summary.json`` and ``report.html``.

    Raises ``OrbitwiseError`` for a SMILES, energy or folder that cannot be used; finished stages
    are kept.
    """
    with opened(config) as (system, warnings):
        return stages(config, system, warnings)


def stages(config: ConformersConfig, system: System, warnings: list[str]) -> Outcome:
    """The stages of ``run``, each computed where it is missing."""
    folder = config.out or default_folder(config)
    reference = Reference.load(config.reference) if config.reference else None
    if reference is not None:
        check_reference(reference, config, system.mol)
    key = {
        "version": __version__,
        "network": NETWORK,
        **config.model_dump(mode="json", exclude={"out", "reference", "budget", "n", "workers"}),
    }
    pipe = Pipeline(Stages(folder), system.energy.counts, key)
    save_run(config, folder)
    n, seed = config.n, config.seed

    def planned():
        effort = config.effort or plan_effort(system, config)
        return {}, {"effort": effort.model_dump()}

    pipe.key |= {"budget": config.budget}
    effort = Effort(**pipe.stage("plan", planned).info["effort"])
    pipe.key |= {"effort": effort.model_dump(), "budget": None}

    def searched():
        found = work.search(system, effort, seed)
        return {"x": found.x, "energy": found.energy}, {
            "step_size": found.step_size,
            "search": found.info,
        }

    stage = pipe.stage("search", searched)
    where = system.device
    found = Found(
        stage.tensors["x"].to(where),
        stage.tensors["energy"].to(where),
        stage.info["step_size"],
        stage.info["search"],
    )

    def learned():
        # a folder for each set of settings: half-finished training is resumed with its own settings
        # only
        learner = work.learn(
            system, effort, found, seed, folder / "learner" / Stages.digest(pipe.key)[:8]
        )
        return dict(learner.state_dict()), {}

    stage = pipe.stage("learn", learned)
    learner = restore(system.mol, found.x[0, 0], seed, stage.tensors)

    def weighed_():
        weighed = weights.weigh(system, effort, learner, found, seed + 3)
        tensors = {"x": weighed.x, "log_weight": weighed.log_weight, "backward": weighed.backward}
        return tensors, {"paths": weighed.paths}

    stage = pipe.stage("weigh", weighed_)
    weighed = Weighed(
        **{k: v.to(where) for k, v in stage.tensors.items()}, paths=stage.info["paths"]
    )
    pipe.key |= {"n": n}

    def drew():
        drawn = work.draw(system, effort, learner, found.x[0, 0], n, seed + 1)
        return {"x": drawn.x, "energy": drawn.energy, "usable": drawn.usable}, {
            "evaluations_of_network": drawn.evaluations
        }

    stage = pipe.stage("draw", drew)
    tensors = {k: v.to(where) for k, v in stage.tensors.items()}
    drawn = Drawn(**tensors, evaluations=stage.info["evaluations_of_network"])

    def relaxed_():
        relaxed = work.relax(system, effort, found, drawn, n, seed + 2)
        return vars(relaxed), {}

    stage = pipe.stage("relax", relaxed_)
    relaxed = Relaxed(**{k: v.to(where) for k, v in stage.tensors.items()})
    begin = time.monotonic()
    verdict = judge(system.mol, system.energy, found, weighed, drawn, relaxed, reference)
    pipe.seconds["judge"] = time.monotonic() - begin
    case = conformer_summary.Case(
        config,
        system,
        effort,
        found,
        weighed,
        drawn,
        relaxed,
        verdict,
        reference,
        pipe.seconds,
        tuple(warnings),
        folder,
    )
    return write(case)


def write(case: conformer_summary.Case) -> Outcome:
    """``ensemble.sdf``, ``ensemble.extxyz``, ``summary.json``, ``report.html`` and the picture of
    the map."""
    folder, relaxed = case.folder, case.relaxed
    kcal = case.kcal(relaxed.energy)
    label = case.verdict.clusters.label[: len(kcal)].tolist()
    values = {
        "energy_kcal_mol": [round(float(e), 4) for e in kcal],
        "conformer": [k + 1 for k in label],
    }
    positions = relaxed.x.cpu().double().numpy()
    write_sdf(folder / "ensemble.sdf", case.system.mol, positions, values)
    write_extxyz(folder / "ensemble.extxyz", case.system.mol, positions, values)
    summary = conformer_summary.summary(case)
    with replacing(folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n")
    page.write(case, summary)
    return Outcome(folder, summary, conformer_summary.lines(case, summary))


def report(folder: str | Path) -> Outcome:
    """The ensemble and its report again, from the finished stages in ``folder``."""
    return run(load_run(folder).model_copy(update={"out": Path(folder)}))


def check_reference(reference: Reference, config: ConformersConfig, mol) -> None:
    """A reference of another molecule, energy or temperature would give a silent wrong verdict."""
    mine = {
        "smiles": Chem.MolToSmiles(Chem.RemoveHs(mol)),
        "energy": config.energy,
        "temperature": config.temperature,
    }
    for key, value in mine.items():
        theirs = reference.meta.get(key)
        if theirs != value:
            raise InputError(
                f"the reference {config.reference} is for {key} {theirs}, this run for {value};"
                " leave --reference out"
            )
