"""A Boltzmann ensemble of a molecule from its SMILES: search, judge, deliver, report.

The search is replica exchange, with moves that it learns from itself; the samples of all
temperatures are put together (MBAR). Beside it, where asked for, runs the published pipeline of a
diffusion model with exact SO(3) x Aut targets (Orbit Diffusion, arXiv 2502.09890): learn, weigh,
draw, relax. What is delivered is never worse than the best of the stages (``deliver.choose``), and
whatever happens after the search, there is a report of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from rdkit import Chem

from orbitwise.data.folder import replacing
from orbitwise.errors import InputError, OrbitwiseError
from orbitwise.methods.conformers import page
from orbitwise.methods.conformers.clock import Budget, Overall, shown
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.diffusion.draw import Draw, Drawn
from orbitwise.methods.conformers.diffusion.learner import NETWORK, Learn, network_size
from orbitwise.methods.conformers.diffusion.relax import Relax, Relaxed
from orbitwise.methods.conformers.diffusion.weights import Weigh, Weighed
from orbitwise.methods.conformers.effort import (
    QUENCHED,
    PlanLearner,
    PlanSearch,
    plan_search,
    share_of_search,
)
from orbitwise.methods.conformers.energy import (
    above,
    cumulene_warning,
    known_energy,
    opened,
    zwitterion_warning,
)
from orbitwise.methods.conformers.exchange.crew import Crew, threads
from orbitwise.methods.conformers.exchange.found import Found
from orbitwise.methods.conformers.exchange.search import Search
from orbitwise.methods.conformers.folder import default_folder, job_of, refuse_other_job
from orbitwise.methods.conformers.judge import judge
from orbitwise.methods.conformers.levels import Carry, Levels
from orbitwise.methods.conformers.summary import Case, summary
from orbitwise.methods.conformers.system import LEARNED_MOVES, Effort, System
from orbitwise.methods.conformers.words import exit_code, lines, warnings_of
from orbitwise.molecules.files.physical import check_geometry
from orbitwise.molecules.files.reference import Reference
from orbitwise.molecules.files.structures import write_extxyz, write_sdf
from orbitwise.molecules.identity import identity, identity_of
from orbitwise.runs.config import Plan, load_run, save_run
from orbitwise.runs.folder import working
from orbitwise.runs.outcome import Outcome
from orbitwise.runs.stages import Pipeline, timed

# What finished stages are kept by; another one makes all of them be computed again.
STAGES = "0.1.0"
USABLE = 0.2  # of the learner's paths, below which it is not drawn from


def plan(config: ConformersConfig) -> Plan:
    """What the run will take: parameters of the network, expected energy evaluations."""
    below = config.cheaper or config
    with opened(below) as (system, _), threads(1):
        budget = Budget(60 * config.budget, share_of_search(config))
        effort = config.effort or plan_search(Crew.of(below, system), budget)
    parameters = network_size() if config.learner == "diffusion" else 0
    return Plan(parameters=parameters, energy_calls=effort.energy_calls(config.n))


def run(config: ConformersConfig, *, earlier: bool = False) -> Outcome:
    """Run what is missing, write the ensemble, ``summary.json`` and ``report.html``.

    Raises ``OrbitwiseError`` for a SMILES, energy or folder that cannot be used, or a folder that
    holds another job or is being worked on; finished stages are kept. ``earlier``: the folder is
    one of version 0.1.0, which had another pipeline.
    """
    known_energy(config.energy)
    wide = torch.get_num_threads()
    budget = Budget(60 * config.budget, share_of_search(config))
    below = config.cheaper or config
    with opened(below) as (system, warnings):
        folder = config.out or default_folder(config)
        reference = known_reference(config, system.mol)
        between = "levels" if below is not config else None
        between = "diffusion" if config.learner == "diffusion" and not between else between
        with (
            working(folder, job_of(config)),
            threads(1),
            Overall.of(budget.whole, budget.share, between),
        ):
            refuse_other_job(folder, config)
            return stages_of(
                config,
                below,
                system,
                folder,
                warnings,
                reference,
                budget,
                wide=wide,
                earlier=earlier,
            )


def stages_of(
    config: ConformersConfig,
    below: ConformersConfig,
    system: System,
    folder: Path,
    warnings: list[str],
    reference: Reference | None,
    budget: Budget,
    *,
    wide: int,
    earlier: bool,
) -> Outcome:
    """Every stage that is missing; ``system`` has the energy of the search, that of ``below``."""
    crew = Crew.of(below, system)
    warnings = [*warnings, *filter(None, [cumulene_warning(system.mol, config.energy)])]
    with ExitStack() as stack:
        high = None
        if below is not config:
            high = stack.enter_context(opened_above(config, system))
            warnings = [*warnings, *filter(None, [zwitterion_warning(system.mol, config.solvent)])]

        pipe = Pipeline(folder, system.energy.counts, stage_key(below, earlier), system.device)
        if not (folder / "config.yaml").exists():
            save_run(config, folder)
        with shown("plan"):
            pipe.take(PlanSearch(crew, budget, whole=earlier))
        pipe.take(Search(system, below, crew, budget))
        save_run(config, folder)  # not before: what is refused leaves the folder as it was

        failed = None
        if high is not None:
            given = config.effort and config.effort.particles
            carry = Carry(system, high, budget, config.seed + 4, wide, given)
            pipe.key |= above_key(config)
            pipe.take(carry)
        elif config.learner == "diffusion":
            failed = learn_beside(pipe, config, system, folder, budget, wide=wide, earlier=earlier)

        found, effort, carried = pipe[Found], pipe[Effort], pipe.get(Levels)
        with timed(pipe.seconds, "judge"), shown("judge"):
            verdict = judge(
                system.mol,
                crew,
                found=found,
                weighed=pipe.get(Weighed),
                drawn=pipe.get(Drawn),
                relaxed=pipe.get(Relaxed),
                failed=failed,
                carried=carried,
                above=None if high is None else Crew.of(config, high),
                reference=reference,
                n=config.n,
                quenched=effort.quenched or QUENCHED,
                seed=config.seed,
            )

        done = {} if effort.search_steps else {"search_steps": found.steps}
        done |= {} if carried is None else {"particles": len(carried.x)}
        case = Case(
            config=config,
            system=system if high is None else high,
            effort=effort.model_copy(update=done),
            found=found,
            weighed=pipe.get(Weighed),
            drawn=pipe.get(Drawn),
            relaxed=pipe.get(Relaxed),
            carried=carried,
            verdict=verdict,
            reference=reference,
            seconds=pipe.seconds,
            warnings=tuple(dict.fromkeys(warnings)),
            folder=folder,
        )
        return write(case)


@contextmanager
def opened_above(config: ConformersConfig, system: System) -> Iterator[System]:
    """``above``, with its workers stopped in the end."""
    high = above(config, system)
    try:
        yield high
    finally:
        if config.workers > 1:
            high.energy.inner.close()


def above_key(config: ConformersConfig) -> dict:
    """The settings of the better energy."""
    return {"above": config.energy, "solvent above": config.solvent}


def stage_key(config: ConformersConfig, earlier: bool) -> dict:
    """The settings that every stage depends on."""
    names = {"smiles", "temperature", "energy", "seed"}
    key = {"version": STAGES, "network": NETWORK, **config.model_dump(mode="json", include=names)}
    if earlier:
        given = config.effort
        return key | {"effort": None if given is None else given.model_dump(exclude_none=True)}
    if config.solvent is not None:
        key["solvent"] = config.solvent
    return key | {"learned moves": LEARNED_MOVES if config.learner == "torsions" else 0}


def learn_beside(
    pipe: Pipeline,
    config: ConformersConfig,
    system: System,
    folder: Path,
    budget: Budget,
    *,
    wide: int,
    earlier: bool,
) -> str | None:
    """The diffusion model's stages as far as they pay and work; why they ended before the last.

    It computes with ``wide`` threads. A learner of whose paths fewer than a fifth end at a sound
    molecule is not drawn from.
    """
    seed = config.seed
    try:
        with threads(wide):
            if not earlier:
                pipe.take(PlanLearner(system, config, budget))
            pipe.take(Learn(system, seed, folder))
            weighed = pipe.take(Weigh(system, seed + 3))
            share = len(weighed.x) / max(1, weighed.paths)
            if share < USABLE and not earlier:
                return f"{100 * share:.0f} % of its paths end at a sound molecule"
            pipe.take(Draw(system, config.n, seed + 1))
            pipe.take(Relax(system, config.n, seed + 2))
    except (OrbitwiseError, ArithmeticError, torch.linalg.LinAlgError) as error:
        return str(error)
    return None


def write(case: Case) -> Outcome:
    """``conformers.sdf``, ``ensemble.sdf``, ``ensemble.extxyz``, ``summary.json``, ``report.html``
    and the picture of the map."""
    folder, mol, verdict = case.folder, case.system.mol, case.verdict
    told = summary(case, warnings_of(case))
    with replacing(folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(told, indent=1) + "\n")

    rows, times = verdict.samples.unique(return_counts=True)
    where = rows.to(verdict.delivered.x.device)
    positions = verdict.delivered.x[where].cpu().double().numpy()
    samples = {
        "energy_kcal_mol": case.kcal(verdict.delivered.energy[where]).round(4).tolist(),
        "conformer": (verdict.label[rows] + 1).tolist(),
        "weight": (times.double() / len(verdict.samples)).tolist(),
    }
    write_sdf(folder / "ensemble.sdf", mol, positions, samples)
    write_extxyz(folder / "ensemble.extxyz", mol, positions, samples)

    shown = [told["conformers"][k] for k in case.numbers]
    free = [row["relative_free_energies"]["ensemble"] for row in shown]
    values = {
        "conformer": [row["conformer"] for row in shown],
        "delta_E_kcal_mol": [round(row["minimum_energy_kcal_mol"], 4) for row in shown],
        "delta_G_kcal_mol": [f["kcal_mol"] for f in free],
        "delta_G_error_kcal_mol": [f["error_kcal_mol"] for f in free],
        "population": [row["population"] for row in shown],
        "population_error": [row["population_error"] for row in shown],
        "degeneracy": [row["degeneracy"] for row in shown],
    }
    minima = verdict.clusters.x[case.numbers].cpu().double().numpy()
    write_sdf(folder / "conformers.sdf", mol, minima, values)

    page.write(case, told)
    return Outcome(folder, told, lines(case, told), exit_code(verdict))


def report(folder: str | Path, *, trust: bool = False) -> Outcome:
    """The ensemble and its report again, from the finished stages in ``folder``; an energy of the
    user's own is built with ``trust`` only."""
    config, folder = load_run(folder, trust=trust), Path(folder)
    learned = (folder / "stages" / "learn.safetensors").exists()
    earlier = learned and "learner" not in config.model_fields_set
    changed = {"out": folder} | ({"learner": "diffusion"} if earlier else {})
    return run(config.model_copy(update=changed), earlier=earlier)


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
        same = theirs == value
        if key == "smiles":
            same = identity_of(str(theirs)) == identity(mol)
        if not same:
            raise InputError(
                f"the reference {config.reference} is for {key} {theirs}, this run for {value};"
                " leave --reference out"
            )
    _check_order(reference, mol, config.reference)
    return reference


def _check_order(reference: Reference, mol: Chem.Mol, path: Path) -> None:
    """``InputError`` where the reference numbers the atoms of ``mol`` otherwise."""
    minima = reference.minima
    other = len(reference.bond_mean) != mol.GetNumBonds()
    if len(minima) and not other:
        try:
            other = minima.shape[1] != mol.GetNumAtoms()
            if not other:
                check_geometry(mol, minima[0])
        except InputError:
            other = True
    if other:
        raise InputError(
            f"the reference {path} has the atoms in another order than this SMILES; write it as the"
            " reference was made, or leave --reference out"
        )
