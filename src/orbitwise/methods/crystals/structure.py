"""Crystal structure prediction: coordinates and cell from the composition, with exact orbit
targets.

DiffCSP (Jiao 2309.04475) with the score target of Orbit Diffusion (2502.09890), over periodic
translations and permutations of equal atoms; the parts are ``CrystalProcess``, ``CSPNet``,
``CrystalDenoising``, ``PredictorCorrector``.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field, model_validator

from orbitwise.crystals.crystal import crystal_batch
from orbitwise.crystals.denoising import CrystalDenoising
from orbitwise.crystals.domain import Domain
from orbitwise.crystals.files.read import CrystalFile, read_crystals
from orbitwise.crystals.text.encoder import SIZE
from orbitwise.crystals.text.told import CrystalSet, with_texts
from orbitwise.crystals.text.words import check_form
from orbitwise.data.folder import writable_folder
from orbitwise.errors import InputError
from orbitwise.methods.crystals.evaluation import evaluate_run
from orbitwise.methods.crystals.guesses import GuessedCrystals, guess
from orbitwise.methods.crystals.model import load_model
from orbitwise.methods.crystals.parts import CrystalModelConfig, CrystalSamplingConfig
from orbitwise.runs.config import Config, Plan, load_run
from orbitwise.runs.folder import training, works_in
from orbitwise.runs.outcome import Outcome
from orbitwise.runs.own import check_parts
from orbitwise.runs.training import in_words, train_run, unfinished
from orbitwise.training import TrainConfig
from orbitwise.training import train as fit
from orbitwise.training.checkpoint import NAME, read_checkpoint
from orbitwise.training.device import device_for

Prompt = Annotated[str, AfterValidator(check_form)]

# settings that may change between training and use, and those of texts where there are none
AFTERWARDS = {
    "sampling",
    "guesses",
    "test_data",
    "test_split",
    "test_items",
    "workers",
    "generation_items",
}
TEXTS = {"prompt", "prompt_dropout"}


class CrystalStructureConfig(Config):
    """``data``: crystals to learn from (.csv, .npz, .cif, a folder); ``splits`` of its column
    ``split`` to train on, empty for all; ``test_data`` (default: the same file) and ``test_split``:
    whose compositions are guessed.

    ``test_items``: only so many of them, drawn at random; ``guesses`` for each. ``skip_bad``: leave
    out records that cannot be used, and say how many. Target and ``times``: see
    ``CrystalDenoising``. ``workers`` processes match the guesses; ``generation_items`` of them also
    get the metrics of CDVAE.

    ``prompt``: ``none``, or the text that goes with each crystal, in training and in guessing:
    ``short`` or ``long`` (made from its structure), ``column:NAME`` of the file; ``prompt_dropout``
    of them are left out in training.
    """

    data: Path
    splits: tuple[str, ...] = ()
    test_data: Path | None = None
    test_split: str | None = None
    test_items: int | None = Field(None, ge=1)
    guesses: int = Field(1, ge=1)
    skip_bad: bool = False
    max_atoms: int = Field(64, ge=1)
    model: CrystalModelConfig = CrystalModelConfig()
    target: Literal["augmentation", "snis_uniform", "snis_wrapped", "translations", "exact"] = (
        "exact"
    )
    proposals: int = Field(1000, ge=1)
    max_order: int = Field(24, ge=1)
    beyond: Literal["gibbs", "mode", "translations"] = "translations"
    states: int = Field(32, ge=1)
    times: Literal["uniform", "choosing"] = "choosing"
    mirror: bool = True
    prompt: Prompt = "none"
    prompt_dropout: float = Field(0.1, ge=0, lt=1)
    cell_weight: float = Field(1.0, ge=0)
    train: TrainConfig = TrainConfig(batch_size=256, learning_rate=1e-3, weight_decay=0.01)
    sampling: CrystalSamplingConfig = CrystalSamplingConfig()
    workers: int = Field(2, ge=1)
    generation_items: int = Field(300, ge=0)

    @model_validator(mode="after")
    def _texts(self) -> CrystalStructureConfig:
        if self.model.prompt not in (0, self.network.prompt):
            raise ValueError(f"model.prompt follows from prompt={self.prompt}; leave it out")
        if self.sampling.guidance is not None and self.prompt == "none":
            raise ValueError("sampling.guidance needs a prompt")
        return self

    @property
    def network(self) -> CrystalModelConfig:
        """The model, with room for the texts."""
        return self.model.model_copy(update={"prompt": 0 if self.prompt == "none" else SIZE})


def training_set(config: CrystalStructureConfig) -> CrystalSet:
    """What is learned from. Raises ``InputError`` naming file and record."""
    return _read(config, config.data, config.splits or None)


def test_set(config: CrystalStructureConfig) -> CrystalSet:
    """Whose compositions are guessed; ``test_items`` of them, drawn with the seed of the
    training."""
    if config.test_data is None and config.test_split is None:
        raise InputError(
            "there is nothing to guess: give test_split=NAME (of the column 'split') or"
            " test_data=FILE"
        )
    whole = _read(config, config.test_data or config.data, config.test_split)
    if config.test_items is None or config.test_items >= len(whole.crystals):
        return whole
    generator = torch.Generator().manual_seed(config.train.seed)
    keep = (
        torch.randperm(len(whole.crystals), generator=generator)[: config.test_items].sort().values
    )
    file = CrystalFile(
        [whole.crystals[i] for i in keep],
        whole.file.skipped,
        {name: values[keep.numpy()] for name, values in whole.file.columns.items()},
        whole.file.notes,
    )
    return CrystalSet(file, whole.batch[keep])


def _read(config: CrystalStructureConfig, path: Path, split) -> CrystalSet:
    file = read_crystals(path, split=split, skip_bad=config.skip_bad, max_atoms=config.max_atoms)
    return CrystalSet(file, crystal_batch(file.crystals))


def objective(config: CrystalStructureConfig) -> CrystalDenoising:
    """The loss of a configuration."""
    return CrystalDenoising(
        config.model.process(),
        target=config.target,
        proposals=config.proposals,
        cell_weight=config.cell_weight,
        max_order=config.max_order,
        beyond=config.beyond,
        states=config.states,
        times=config.times,
        mirror=config.mirror,
        prompt_dropout=config.prompt_dropout,
    )


def plan(config: CrystalStructureConfig) -> Plan:
    """No energy is called; ``model_calls`` are those of the sampling, per structure times
    structures."""
    denoiser = config.network.denoiser(torch.zeros(6), torch.ones(6))
    guessed = config.test_data is not None or config.test_split is not None
    items = len(test_set(config).crystals) * config.guesses if guessed else 0
    calls = items * config.sampling.evaluations
    return Plan(sum(p.numel() for p in denoiser.parameters()), 0, calls)


@works_in("out", training)
def train(config: CrystalStructureConfig, out: str | Path) -> Outcome:
    """Train in the folder ``out``, or finish what was begun there."""
    check_parts(config)
    out = writable_folder(out)
    config = config.model_copy(update={"model": config.network})
    data, lines = with_texts(training_set(config), config.prompt, out)
    denoiser = config.model.fitted(data.batch, config.train.seed)
    words = f"{config.data.name}" + (f" ({', '.join(config.splits)})" if config.splits else "")

    result = train_run(
        config,
        out,
        partial(fit, denoiser, objective(config), data.batch, config.train),
        begun=(out / NAME).exists(),
        apart_from=AFTERWARDS | (TEXTS if config.prompt == "none" else set()),
        facts={"domain": asdict(Domain.of(data.crystals, words))},
    )

    lines += [in_words(out, result)]
    for told, what in ((data.file.skipped, "left out"), (data.file.notes, "read with a note")):
        if told:
            lines.append(f"{len(told)} records were {what}, such as {told[0]}")
    return Outcome(out, result, lines)


@works_in("run")
def sample(run: str | Path, n: int | None = None, seed: int = 0, *, trust: bool = False) -> Outcome:
    """``n`` guesses (default: the configuration's) for every test composition, into
    ``RUN/guesses``; those that are there already are kept. ``sampling`` in ``RUN/config.yaml`` may
    be changed after the training."""
    config, run = _config(run, trust), writable_folder(run)
    model = load_model(run, trust=trust)
    data, lines = with_texts(test_set(config), config.prompt, run)
    where = device_for(config.train.accelerator)
    found = guess(model, data.batch, n or config.guesses, seed, run / "guesses", where)
    lines += [
        f"{run}: {found.guesses} guesses for {len(data.crystals)} compositions, {found.evaluations}"
        " network calls each",
        *unfinished(read_checkpoint(run / NAME).step, config.train.steps),
    ]
    return Outcome(run, found, lines)


@works_in("run")
def evaluate(run: str | Path, *, trust: bool = False) -> Outcome:
    """Match rate and RMSE of the guesses; writes ``summary.json`` and ``report.html``."""
    config, run = _config(run, trust), writable_folder(run)
    data = test_set(config)
    found = GuessedCrystals.load(run / "guesses", data.batch)
    trained = training_set(config)
    return evaluate_run(run, config, found, data.file, trained.file)


report = evaluate  # the matches are kept: repeating takes seconds


def _config(run: str | Path, trust: bool) -> CrystalStructureConfig:
    config = load_run(run, trust=trust)
    if not isinstance(config, CrystalStructureConfig):
        raise InputError(f"{run}: not a run of crystal structures")
    return config
