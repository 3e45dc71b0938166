"""Draw from a trained sampler, find reference samples, judge one by the other."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from orbitwise.data.archive import Array, array_names, read_archive
from orbitwise.data.folder import replacing
from orbitwise.energies import Counted, Energy
from orbitwise.errors import InputError
from orbitwise.methods.samplers.judge import DrawnPaths, ReferenceSet, judge
from orbitwise.methods.samplers.page import write_report
from orbitwise.methods.samplers.searches import ChainsConfig, SearchConfig
from orbitwise.methods.samplers.targets import Target
from orbitwise.objectives.paths.path import bridges, log_weight, roll_out, with_log_ratio
from orbitwise.objectives.paths.sampler import DiffusionSampler
from orbitwise.runs.choice import with_all_keys
from orbitwise.runs.config import Config, Seed
from orbitwise.runs.outcome import Outcome
from orbitwise.runs.stages import Pipeline, Step
from orbitwise.training.device import device_for
from orbitwise.training.progress import Progress, ProgressBar


class EvaluationConfig(Config):
    """``paths`` drawn, ``paths_back`` from reference samples and ``reference`` samples (0: none):
    exact ones where there are any, else from ``file`` (.npz with ``x``), else from the search
    ``chains``. ``steps`` of a path where they should differ from those of the training: the learner
    is a function of time, finer steps cost no energy and follow it more closely. ``batch`` bounds
    the memory; ``seed`` of both."""

    paths: int = Field(2000, ge=10)
    paths_back: int = Field(2000, ge=10)
    steps: int | None = Field(None, ge=2)
    reference: int = Field(2000, ge=0)
    file: Path | None = None
    chains: SearchConfig = ChainsConfig(chains=64, steps=1500, warmup=300, thin=5)
    batch: int = Field(500, ge=1)
    seed: Seed = 12345


def with_steps(sampler: DiffusionSampler, steps: int | None) -> DiffusionSampler:
    """The sampler with ``steps`` steps on the same schedule."""
    if steps is not None:
        sampler.schedule = replace(sampler.schedule, steps=steps)
    return sampler


@contextmanager
def fastest_device(sampler: DiffusionSampler, energy: Energy):
    """Both on a GPU inside, where there is one."""
    where = device_for()
    try:
        yield sampler.to(where), energy.to(where)
    finally:
        sampler.cpu()
        energy.cpu()


@torch.no_grad()
def draw(sampler: DiffusionSampler, energy: Energy, n: int, seed: int, batch: int) -> DrawnPaths:
    """``n`` paths of the learner: end points, energies, log importance weights."""
    if n < 1:
        raise InputError(f"n must be at least 1, got {n}")
    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    with ProgressBar("sampling") as bar, fastest_device(sampler, energy):
        for first in range(0, n, batch):  # chunks of memory
            paths = roll_out(sampler, energy, min(batch, n - first), generator)
            weight = torch.where(
                torch.isfinite(paths.energy), log_weight(paths).double(), -torch.inf
            )
            found.append((paths.x[-1].cpu(), paths.energy.cpu(), weight.cpu()))
            bar(Progress(min(first + batch, n), n))
    return DrawnPaths(*(torch.cat(parts) for parts in zip(*found, strict=True)))


@torch.no_grad()
def backward_weights(
    sampler: DiffusionSampler, energy: Energy, reference: ReferenceSet, seed: int, batch: int
) -> Tensor:
    """Log weights ``(m,)`` of one path back from each reference sample."""
    generator = torch.Generator().manual_seed(seed)
    parts = zip(reference.x.split(batch), reference.energy.split(batch), strict=True)
    with ProgressBar("paths back") as bar, fastest_device(sampler, energy):
        found = []
        for x, u in parts:
            paths = bridges(
                sampler, energy, x.to(sampler.data_scale), u.to(sampler.data_scale), generator
            )
            found.append(log_weight(with_log_ratio(sampler, paths)).double().cpu())
            bar(Progress(sum(map(len, found)), len(reference.x)))
    return torch.cat(found)


@dataclass(frozen=True)
class Reference(Step[ReferenceSet]):
    """Samples of the target as a stage of the run; ``InputError`` for a bad file."""

    config: EvaluationConfig
    target: Target
    energy: Counted

    name, makes = "reference", ReferenceSet

    @property
    def key(self) -> dict:
        settings = with_all_keys(self.config)
        return {"reference": {k: settings[k] for k in ("reference", "file", "chains", "seed")}}

    def make(self, pipe: Pipeline) -> ReferenceSet:
        config, target, energy = self.config, self.target, self.energy
        generator, independent = torch.Generator().manual_seed(config.seed), None

        with energy.stage("reference"):
            if config.file is not None:
                x, kind = _from_file(config.file, target), "file"
                x = x[torch.randperm(len(x), generator=generator)[: config.reference]]
                value = energy(x)
            elif target.exact:
                x, kind = target.energy.sample((config.reference,), generator=generator), "exact"
                value = energy(x)
            else:
                found, kind = config.chains.search(target, energy, generator), "chains"
                pick = torch.randperm(len(found.x), generator=generator)[: config.reference]
                x, value, independent = found.x[pick], found.energy[pick], found.independent
        return ReferenceSet(x.float(), value.float(), independent, kind)


def _from_file(path: Path, target: Target) -> Tensor:
    names = array_names(path)
    if not names:
        raise InputError(f"{path}: there is no array in it")
    name = next(k for k in ("x", "positions_angstrom", "samples", *names) if k in names)
    found = read_archive(path, {name: Array("f", "...", finite=True)})[name]
    x = torch.from_numpy(found.astype(np.float32))
    shape = target.energy.event_shape
    if (
        x.ndim != 1 + len(shape)
        or tuple(x.shape[1:]) != tuple(shape)
        or not torch.isfinite(x).all()
    ):
        raise InputError(
            f"{path}: {name} must be finite samples (n, *{tuple(shape)}), got {tuple(x.shape)}"
        )
    return x


def write_samples(folder: Path, target: Target, drawn: DrawnPaths) -> None:
    """``samples.npz``, and ``samples.extxyz`` for points in space."""
    x = drawn.x.double().cpu().numpy()
    values = {
        "energy_kT": drawn.energy.double().cpu().numpy(),
        "log_weight": drawn.log_weight.cpu().numpy(),
    }
    with replacing(folder / "samples.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, x=x.astype(np.float32), **values)
    if target.labels is not None and x.shape[-1] == 3:
        from ase import Atoms
        from ase.io import write

        species = target.labels.species[0].tolist()
        frames = []
        for k, positions in enumerate(x):
            atoms = Atoms(numbers=species, positions=positions)
            atoms.info |= {name: float(v[k]) for name, v in values.items()}
            frames.append(atoms)
        with replacing(folder / "samples.extxyz") as temporary:
            write(temporary, frames, format="extxyz")


def judge_run(
    config, folder: Path, sampler: DiffusionSampler, target: Target, past: dict
) -> Outcome:
    """Draw, judge, and leave ``summary.json``, ``report.html`` and the samples. ``past``: seconds
    and evaluations of the run's stages."""
    settings = config.evaluation
    energy = Counted(target.energy)
    pipe = Pipeline(folder, energy.counts, {"target": with_all_keys(config.energy)})
    reference = None
    if settings.reference:
        reference = pipe.take(Reference(settings, target, energy))

    with energy.stage("evaluation"):
        drawn = draw(sampler, energy, settings.paths, settings.seed, settings.batch)
        if reference is not None:
            part = slice(settings.paths_back)
            few = replace(reference, x=reference.x[part], energy=reference.energy[part])
            back = backward_weights(sampler, energy, few, settings.seed + 1, settings.batch)
            drawn = replace(drawn, backward_log_weight=back)
        if config.objective.learns_log_z and config.balance_steps:
            drawn = replace(drawn, log_z_parameter=sampler.log_z.item())
        verdict = judge(energy, drawn, reference, torsions=target.torsions)
    write_samples(folder, target, drawn)
    counts = {
        **past["evaluations"],
        **{k: (c.energy, c.gradient) for k, c in energy.counts.items()},
    }
    seconds = {**past["seconds"], **pipe.seconds}
    weights = {k: v.cpu().numpy().tobytes() for k, v in sampler.state_dict().items()}
    digest = hashlib.sha256(b"".join(weights[k] for k in sorted(weights))).hexdigest()[:12]
    summary = {
        "config": config.resolved(),
        "verdict": verdict.to_dict(),
        "evaluations": counts,
        "seconds": seconds,
        "weights": digest,
    }
    with replacing(folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n")
    title = f"{config.energy.name.replace('_', ' ')}: sampled from its energy"
    page = write_report(
        folder,
        title,
        verdict,
        drawn,
        reference,
        counts=counts,
        seconds=seconds,
        settings=config.resolved(),
    )
    return Outcome(folder, verdict, [*verdict.lines(), f"report: {page}"])
