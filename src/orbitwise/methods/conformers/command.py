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
from pathlib import Path

from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from orbitwise.data.folder import replacing
from orbitwise.errors import InputError
from orbitwise.methods.conformers import page
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.draw import Draw, Drawn
from orbitwise.methods.conformers.effort import PlanEffort
from orbitwise.methods.conformers.energy import opened
from orbitwise.methods.conformers.judge import judge
from orbitwise.methods.conformers.learner import NETWORK, Learn, network_size
from orbitwise.methods.conformers.relax import Relax, Relaxed
from orbitwise.methods.conformers.search import Found, Search
from orbitwise.methods.conformers.summary import Case, lines, summary
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.methods.conformers.weights import Weigh, Weighed
from orbitwise.molecules.files.reference import Reference
from orbitwise.molecules.files.structures import write_extxyz, write_sdf
from orbitwise.runs.config import Plan, load_run, save_run
from orbitwise.runs.outcome import Outcome
from orbitwise.runs.stages import Pipeline, Step, timed

# What finished stages are kept by; another one makes all of them be computed again.
STAGES = "0.1.0"


def default_folder(config: ConformersConfig) -> Path:
    """``ensembles/FORMULA-xxxxxx``, the same for the same molecule."""
    mol = Chem.MolFromSmiles(config.smiles)
    digest = hashlib.sha256(Chem.MolToSmiles(mol).encode()).hexdigest()[:6]
    return Path("ensembles") / f"{CalcMolFormula(mol)}-{digest}"


def plan(config: ConformersConfig) -> Plan:
    """What the run will take: parameters of the network, expected energy evaluations."""
    with opened(config) as (system, _):
        effort = PlanEffort(system, config.budget, config.n, config.seed, config.effort).make()
    return Plan(parameters=network_size(), energy_calls=effort.energy_calls(config.n))


def run(config: ConformersConfig) -> Outcome:
    """Run what is missing, write the ensemble, ``summary.json`` and ``report.html``.

    Raises ``OrbitwiseError`` for a SMILES, energy or folder that cannot be used; finished stages
    are kept.
    """
    with opened(config) as (system, warnings):
        folder = config.out or default_folder(config)
        reference = known_reference(config, system.mol)
        key = {
            "version": STAGES,
            "network": NETWORK,
            **config.model_dump(
                mode="json", exclude={"out", "reference", "budget", "n", "workers"}
            ),
        }

        pipe = Pipeline(folder, system.energy.counts, key, system.device)
        save_run(config, folder)
        pipe.run(pipeline(config, system, folder))

        with timed(pipe.seconds, "judge"):
            verdict = judge(
                system.mol,
                system.energy,
                found=pipe[Found],
                weighed=pipe[Weighed],
                drawn=pipe[Drawn],
                relaxed=pipe[Relaxed],
                reference=reference,
            )

        case = Case(
            config=config,
            system=system,
            effort=pipe[Effort],
            found=pipe[Found],
            weighed=pipe[Weighed],
            drawn=pipe[Drawn],
            relaxed=pipe[Relaxed],
            verdict=verdict,
            reference=reference,
            seconds=pipe.seconds,
            warnings=tuple(warnings),
            folder=folder,
        )
        return write(case)


def pipeline(config: ConformersConfig, system: System, folder: Path) -> tuple[Step, ...]:
    """The stages in order, each with what it needs."""
    n, seed = config.n, config.seed
    return (
        PlanEffort(system, config.budget, n, seed, config.effort),
        Search(system, seed),
        Learn(system, seed, folder),
        Weigh(system, seed + 3),
        Draw(system, n, seed + 1),
        Relax(system, n, seed + 2),
    )


def write(case: Case) -> Outcome:
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

    told = summary(case)
    with replacing(folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(told, indent=1) + "\n")
    page.write(case, told)
    return Outcome(folder, told, lines(case, told))


def report(folder: str | Path) -> Outcome:
    """The ensemble and its report again, from the finished stages in ``folder``."""
    return run(load_run(folder).model_copy(update={"out": Path(folder)}))


def known_reference(config: ConformersConfig, mol: Chem.Mol) -> Reference | None:
    """The reference to compare with; one of another molecule, energy or temperature would give a
    silent wrong verdict: ``InputError``."""
    if config.reference is None:
        return None
    reference = Reference.load(config.reference)
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
    return reference
