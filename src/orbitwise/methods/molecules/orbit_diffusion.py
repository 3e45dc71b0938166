"""Orbit Diffusion (arXiv 2502.09890), exact orbit posteriors, on a file of conformers of one
molecule.

Theorem 1 there: regressing on E[g·x1 | x_t] instead of g·x1 keeps the expected gradient and lowers
its variance. The group is rotations × automorphisms; ``objectives.denoising`` does the rest.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from orbitwise.audit.subject import AuditRequest, AuditSubject
from orbitwise.data.archive import Array, read_archive
from orbitwise.data.folder import replacing, writable_folder
from orbitwise.errors import InputError
from orbitwise.methods.molecules.orbit_diffusion_page import write as write_page
from orbitwise.methods.molecules.parts import (
    AnyGroup,
    AnyNetwork,
    AnyProcess,
    GroupConfig,
    NetworkConfig,
    ProcessConfig,
    SamplingConfig,
)
from orbitwise.molecules.denoiser_audit import denoiser_subject
from orbitwise.molecules.files.ensemble import Ensemble, read_ensemble
from orbitwise.molecules.files.structures import write_extxyz, write_sdf
from orbitwise.molecules.metrics.comparison import compare
from orbitwise.molecules.molecule import to_batch
from orbitwise.objectives import Denoiser, Denoising, coordinate_scale
from orbitwise.runs.config import Plan, load_run
from orbitwise.runs.folder import training, works_in
from orbitwise.runs.horizontal import HorizontalConfig
from orbitwise.runs.outcome import Outcome
from orbitwise.runs.own import check_parts
from orbitwise.runs.training import in_words, train_run, unfinished
from orbitwise.training import TrainConfig, load_weights
from orbitwise.training import train as fit
from orbitwise.training.checkpoint import NAME
from orbitwise.training.device import device_for


class OrbitDiffusionConfig(HorizontalConfig):
    """``data``: conformers of one molecule (.extxyz, .xyz, .sdf); ``smiles``: bonds of a file
    without; ``temperature`` in K of the frames, for the scale of the report's map;
    ``horizontal``: predictions and the sampler's noise turn nothing."""

    data: Path
    smiles: str | None = None
    temperature: float = Field(300.0, gt=0)
    held_out: float = Field(0.2, gt=0, lt=1)
    group: AnyGroup = GroupConfig()
    process: AnyProcess = ProcessConfig()
    network: AnyNetwork = NetworkConfig()
    target: Literal["augmentation", "aligned", "snis", "exact"] = "exact"
    proposals: int = Field(256, ge=1)
    times: Literal["lognormal", "uniform"] = "lognormal"
    horizontal: bool = False
    train: TrainConfig = TrainConfig()
    sampling: SamplingConfig = SamplingConfig()


@dataclass(frozen=True)
class Parts:
    """What a configuration stands for."""

    ensemble: Ensemble
    denoiser: Denoiser
    objective: Denoising


def parts(config: OrbitDiffusionConfig) -> Parts:
    """Data, network and objective, with weights drawn from ``train.seed``. Raises
    ``InputError``."""
    ensemble = _ensemble(config)
    process = config.process.build()
    group = config.group.build(ensemble.mol, ensemble.training[0], exact=config.target == "exact")
    denoiser = Denoiser(
        config.network.build(config.train.seed),
        process,
        coordinate_scale(torch.from_numpy(ensemble.training)),
        horizontal=config.horizontal,
    )
    objective = Denoising(process, group, config.target, config.proposals, config.times)
    return Parts(ensemble, denoiser, objective)


def _ensemble(config: OrbitDiffusionConfig) -> Ensemble:
    return read_ensemble(
        config.data, smiles=config.smiles, held_out=config.held_out, seed=config.train.seed
    )


def plan(config: OrbitDiffusionConfig) -> Plan:
    """Training and sampling call no energy; ``evaluate`` does, once per frame of the file and per
    sample."""
    made = parts(config)
    frames = len(made.ensemble.training) + len(made.ensemble.held_out)
    return Plan(sum(p.numel() for p in made.denoiser.parameters()), frames)


@works_in("out", training)
def train(config: OrbitDiffusionConfig, out: str | Path) -> Outcome:
    """Train in the folder ``out``, or finish what was begun there."""
    check_parts(config)
    made, out = parts(config), writable_folder(out)
    data = to_batch(made.ensemble.mol, made.ensemble.training, dtype=torch.float32)
    result = train_run(
        config,
        out,
        partial(fit, made.denoiser, made.objective, data, config.train),
        begun=(out / NAME).exists(),
        apart_from=["sampling"],
        facts={"data": made.ensemble.digest},
    )
    return Outcome(out, result, [in_words(out, result), f"bonds: {made.ensemble.bond_source}"])


@works_in("run")
def sample(run: str | Path, n: int = 1000, seed: int = 0, *, trust: bool = False) -> Outcome:
    """Draw ``n`` samples with the averaged weights into ``samples.sdf``, ``.extxyz``, ``.npz``."""
    config, run = load_run(run, trust=trust), writable_folder(run)
    made = parts(config)
    reached = load_weights(run / NAME, made.denoiser).step
    drawn = config.sampling.draw(
        made.denoiser,
        made.ensemble.mol,
        n,
        seed,
        device_for(config.train.accelerator),
        horizontal=config.horizontal,
    )
    write_sdf(run / "samples.sdf", made.ensemble.mol, drawn.positions_angstrom)
    write_extxyz(run / "samples.extxyz", made.ensemble.mol, drawn.positions_angstrom)
    with replacing(run / "samples.npz") as temporary:
        np.savez(temporary, positions_angstrom=drawn.positions_angstrom)
    text = [
        f"{run}: {n} samples in samples.sdf and samples.extxyz, {drawn.evaluations} network calls"
        " each",
        *unfinished(reached, config.train.steps),
    ]
    return Outcome(run, drawn, text)


def audit_subject(run: str | Path, request: AuditRequest, *, trust: bool = False) -> AuditSubject:
    """The run's denoiser and held-out frames, as `orbitwise audit` takes them."""
    config, run = load_run(run, trust=trust), Path(run)
    made = parts(config)
    load_weights(run / NAME, made.denoiser)
    return denoiser_subject(
        title=f"denoiser of {run.name}",
        denoiser=made.denoiser,
        mol=made.ensemble.mol,
        held_out=made.ensemble.held_out,
        request=request,
        device=device_for(config.train.accelerator),
    )


@works_in("run")
def evaluate(run: str | Path, *, trust: bool = False) -> Outcome:
    """Compare the run's samples with its held-out frames; writes ``summary.json`` and
    ``report.html``."""
    config, run = load_run(run, trust=trust), writable_folder(run)
    if not (run / "samples.npz").is_file():
        raise InputError(f"{run}: there are no samples yet; draw some with: orbitwise sample {run}")
    data = _ensemble(config)
    kind = {"positions_angstrom": Array("f", "M N 3", finite=True)}
    samples = read_archive(run / "samples.npz", kind)["positions_angstrom"]
    result = compare(data.mol, samples, data.held_out, data.training)
    with replacing(run / "summary.json") as temporary:
        temporary.write_text(
            json.dumps({"config": config.resolved(), "comparison": asdict(result)}, indent=1)
        )
    page = write_page(run / "report.html", config, data, samples, result)
    return Outcome(run, result, [*result.lines(), f"report: {page}"])


report = evaluate  # the page is made from the comparison, which takes seconds
