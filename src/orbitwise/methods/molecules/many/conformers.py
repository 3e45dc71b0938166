"""One generative model of conformers over many molecules, with exact orbit targets (2502.09890,
2410.22388).

A denoiser conditioned on the molecular graph and its handedness; SO(3) × automorphisms of each
molecule; Gaussian or harmonic noise. ``train``, ``sample``, ``evaluate`` and ``report`` work on a
run folder.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from orbitwise.data.archive import Array, read_archive
from orbitwise.data.folder import replacing, writable_folder
from orbitwise.errors import InputError
from orbitwise.methods.molecules.many import page as molecule_report
from orbitwise.methods.molecules.many.evaluation import compare
from orbitwise.methods.molecules.many.parts import (
    MoleculeConformersConfig,
    Parts,
    build,
    data_scale,
)
from orbitwise.methods.molecules.many.sampling import draw
from orbitwise.molecules.batch import ConformerData
from orbitwise.molecules.files.conformers import write_conformer_sdf, write_conformer_set
from orbitwise.molecules.files.sets import read_smiles
from orbitwise.runs.config import Plan, load_run
from orbitwise.runs.folder import training, works_in
from orbitwise.runs.outcome import Outcome
from orbitwise.runs.own import check_parts
from orbitwise.runs.training import in_words, train_run, unfinished
from orbitwise.training import load_weights
from orbitwise.training import train as fit
from orbitwise.training.checkpoint import NAME
from orbitwise.training.device import device_for
from orbitwise.training.progress import Progress, ProgressBar

__all__ = ["MoleculeConformersConfig", "evaluate", "plan", "report", "sample", "train"]


def plan(config: MoleculeConformersConfig) -> Plan:
    """No energy is ever called; the figure is the network's calls in training."""
    config.read("train")
    made = build(config, 1.0)
    parameters = sum(p.numel() for p in made.denoiser.parameters())
    return Plan(parameters, 0, config.train.steps * config.train.batch_size)


@works_in("out", training)
def train(config: MoleculeConformersConfig, out: str | Path) -> Outcome:
    """Train in the folder ``out``, or finish what was begun there."""
    check_parts(config)
    found = config.read("train")
    data = ConformerData(found.molecules, max_group=config.max_group, buckets=config.buckets)
    out = writable_folder(out)
    made = build(config, data_scale(data, config.prior))

    result = train_run(
        config,
        out,
        partial(fit, made.denoiser, made.objective, data, config.train),
        begun=(out / NAME).exists(),
        apart_from=["sampling"],
        facts={"data": _digest(data)},
    )

    text = [
        in_words(out, result),
        f"{len(data)} conformers of {len(found)} molecules",
    ]
    if found.skipped:
        text.append(f"{len(found.skipped)} records were skipped; the first: {found.skipped[0]}")
    left = sum(m.other_isomers for m in found.molecules)
    if left:
        text.append(
            f"{left} conformers are another stereoisomer than the first of their molecule and were"
            " left out"
        )
    return Outcome(out, result, text)


def _digest(data: ConformerData) -> str:
    found = hashlib.sha256(data.x.numpy().tobytes())
    found.update("".join(m.smiles for m in data.molecules).encode())
    return found.hexdigest()


def load(run: str | Path, *, trust: bool = False) -> tuple[MoleculeConformersConfig, Parts, int]:
    """The configuration of a run, its parts with the averaged weights, and the step they stand
    at."""
    config = load_run(run, trust=trust)
    saved = build(config, 1.0).denoiser
    step = load_weights(Path(run) / NAME, saved).step
    made = build(
        config, float(saved.data_scale)
    )  # the prior has the scale that is saved beside the weights
    made.denoiser.load_state_dict(saved.state_dict())
    return config, made, step


@works_in("run")
def sample(
    run: str | Path,
    n: int | None = None,
    seed: int = 0,
    molecules: Path | None = None,
    *,
    trust: bool = False,
) -> Outcome:
    """Conformers of the held-out molecules, or of the SMILES in the file ``molecules``:
    ``samples.npz``, ``.sdf``.

    ``n`` samples of each molecule; without it ``sampling.per_reference`` for each reference
    conformer, or ``sampling.count``. Raises ``InputError`` for a SMILES that cannot be used, with
    its line.
    """
    run = writable_folder(run)
    config, made, step = load(run, trust=trust)
    if n is not None and n < 1:
        raise InputError(f"n must be at least 1, got {n}")
    asked = config.read("test").molecules if molecules is None else read_smiles(molecules, seed)
    per = config.sampling.per_reference
    default = [per * len(m) if molecules is None else config.sampling.count for m in asked]
    counts = [n or count for count in default]

    with ProgressBar("sampling") as bar:
        drawn = draw(
            made.denoiser,
            asked,
            counts,
            config.sampling,
            seed=seed,
            device=device_for(config.train.accelerator),
            progress=lambda k, of: bar(Progress(k, of)),
            horizontal=config.horizontal,
        )
    result = [
        replace(m, positions_angstrom=x.astype(np.float32))
        for m, x in zip(asked, drawn.positions, strict=True)
    ]
    write_conformer_set(run / "samples.npz", result)
    write_conformer_sdf(run / "samples.sdf", result)
    about = {
        "evaluations": drawn.evaluations,
        "seed": seed,
        "held_out": molecules is None,
        "counts": counts,
        "molecules": [m.smiles for m in asked],
    }
    with replacing(run / "samples.json") as temporary:
        temporary.write_text(json.dumps(about, indent=1), encoding="utf-8")
    text = [
        f"{run}: {sum(counts)} samples of {len(asked)} molecules in samples.sdf and samples.npz, "
        f"{drawn.evaluations} network calls each",
        *unfinished(step, config.train.steps),
    ]
    large = [m.smiles for m in asked if m.atoms > config.max_atoms]
    if large:
        text.append(
            f"warning: {len(large)} molecules are larger than any the model has seen"
            f" ({config.max_atoms} atoms), the first: {large[0]}"
        )
    return Outcome(run, drawn, text)


@works_in("run")
def evaluate(run: str | Path, *, trust: bool = False) -> Outcome:
    """Coverage and AMR of the run's samples and of as many ETKDGv3 embeddings: ``summary.json``,
    ``report.html``."""
    config, run = load_run(run, trust=trust), writable_folder(run)
    if not (run / "samples.npz").is_file() or not (run / "samples.json").is_file():
        raise InputError(f"{run}: there are no samples yet; draw some with: orbitwise sample {run}")
    about = json.loads((run / "samples.json").read_text(encoding="utf-8"))
    if not about["held_out"]:
        raise InputError(
            f"{run}: the samples there are of molecules without reference conformers; draw those of"
            f" the held-out molecules with: orbitwise sample {run}"
        )
    references = config.read("test").molecules
    if [m.smiles for m in references] != about["molecules"]:
        raise InputError(
            f"{run}: the data have changed since the samples were drawn; draw them again"
        )
    found = read_archive(run / "samples.npz", {"positions": Array("f", "points 3", finite=True)})
    flat = found["positions"].astype(np.float64)
    sizes = np.array([m.atoms for m in references]) * np.array(about["counts"])
    pieces = np.split(flat, np.cumsum(sizes)[:-1])
    samples = [x.reshape(-1, m.atoms, 3) for x, m in zip(pieces, references, strict=True)]
    with ProgressBar("comparing") as bar:
        show = lambda k, of: bar(Progress(k, of))  # noqa: E731
        result = compare(references, samples, about["evaluations"], about["seed"], show)
    page = molecule_report.write(run, config, result, about["seed"])
    return Outcome(run, result, [*result.lines(), f"report: {page}"])


report = evaluate  # the page is made from the comparison
