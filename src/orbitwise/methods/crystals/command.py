"""Crystal structures from a formula: draw, merge, rank, write.

``orbitwise crystals SrTiO3`` draws structures from a trained model of crystal structure prediction
(the shipped one is trained on Perov-5, ABX3 perovskites), merges duplicates, finds space groups,
and ranks by energy where CHGNet is installed, else by how often a structure was drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from orbitwise.crystals.domain import check_domain, trained_on
from orbitwise.crystals.files.read import to_structure
from orbitwise.crystals.formula import letters, species_of
from orbitwise.crystals.matching.match import structurally_valid
from orbitwise.crystals.matching.rank import ChgnetEnergies, rank
from orbitwise.crystals.text.told import text_vectors
from orbitwise.errors import InputError
from orbitwise.methods.crystals.found import CrystalsConfig, Found
from orbitwise.methods.crystals.model import CrystalModel, load_model
from orbitwise.methods.crystals.written import with_names, write
from orbitwise.runs.config import Plan
from orbitwise.runs.folder import working
from orbitwise.runs.job import Job
from orbitwise.runs.outcome import Outcome
from orbitwise.runs.stages import timed
from orbitwise.training.device import device_for
from orbitwise.training.progress import Progress, ProgressBar


def plan(config: CrystalsConfig) -> Plan:
    """Parameters of the network and its evaluations; formula and domain are checked."""
    model = load_model(config.run, trust=config.trust)
    check_domain(species_of(config.formula), model.domain, config.formula)
    size = sum(p.numel() for p in model.denoiser.parameters())
    return Plan(size, 0, config.n * model.sampling.evaluations)


def run(config: CrystalsConfig) -> Outcome:
    """Draw, merge, rank, and write CIFs, ``crystals.csv``, ``crystals.extxyz``, ``summary.json``
    and ``report.html`` into ``config.out`` (default: ``crystals/FORMULA``).

    Raises ``InputError`` as ``species_of`` and ``check_domain`` do, for ``relax`` without CHGNet as
    ``MissingExtraError``, and where no valid structure was drawn.
    """
    species = species_of(config.formula)
    model = load_model(config.run, trust=config.trust)
    warnings = list(check_domain(species, model.domain, config.formula))
    energies = ChgnetEnergies() if config.relax or ChgnetEnergies.installed() else None
    with working(config.out or Path("crystals") / letters(config.formula), _job(config)) as folder:
        return write(folder, _found(config, model, species, energies, warnings))


def _job(config: CrystalsConfig) -> Job:
    """What a folder is for; more structures replace fewer."""
    names = {"formula", "run", "prompt", "relax", "seed"}
    return Job("crystals", config.model_dump(mode="json", include=names), {"n": config.n})


def _found(
    config: CrystalsConfig,
    model: CrystalModel,
    species: np.ndarray,
    energies: ChgnetEnergies | None,
    warnings: list[str],
) -> Found:
    formula = config.formula
    seconds: dict[str, float] = {}

    with timed(seconds, "draw"), ProgressBar("drawing") as bar:
        drawn = model.draw_crystals(
            species,
            config.n,
            config.seed,
            prompt=_prompt(config.prompt, model, species, warnings.append),
            device=device_for(),
            progress=lambda done, of: bar(Progress(done, of)),
        )
    valid = [c for c in drawn if structurally_valid(to_structure(c))]
    if not valid:
        raise InputError(
            f"none of the {config.n} structures drawn for {formula} is valid (atoms nearer"
            f" than 0.5 Å, or not finite); the model was trained on {trained_on(model.domain)}"
        )

    with timed(seconds, "rank"), ProgressBar("ranking") as bar:
        candidates = rank(valid, energies, config.relax, lambda done, of: bar(Progress(done, of)))

    return Found(
        formula=formula,
        candidates=with_names(candidates, formula),
        drawn=config.n,
        valid=len(valid),
        settings=config.resolved(),
        evaluations=model.sampling.evaluations,
        domain=model.domain,
        energies=None if energies is None else energies.name,
        energy_calls=0 if energies is None else energies.energy_calls,
        gradient_calls=0 if energies is None else energies.gradient_calls,
        warnings=tuple(warnings),
        seconds=seconds,
    )


def _prompt(
    text: str | None, model: CrystalModel, species: np.ndarray, warn: Callable[[str], None]
) -> torch.Tensor | None:
    """The vectors of the text, for a model that takes texts."""
    if text is None:
        return None
    if not model.denoiser.prompted:
        raise InputError("this model was trained without texts; leave --prompt out")
    return text_vectors([text], torch.from_numpy(species)[None], warn=warn)[0]
