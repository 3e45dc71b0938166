"""Protein backbones by flow matching with a plain transformer (the recipe of Proteina, arXiv
2503.00710, in small) and the orbit targets of Orbit Diffusion (arXiv 2502.09890) over all
rotations: one binding for Cα and for N-Cα-C."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, TypeAdapter, ValidationError, model_validator
from torch import nn

from orbitwise.data.folder import replacing, writable_folder
from orbitwise.errors import InputError
from orbitwise.groups.so3 import SO3
from orbitwise.methods.proteins.page import write as write_page
from orbitwise.methods.proteins.sampling import (
    NPZ,
    ProteinSamplingConfig,
    draw,
    load_chains,
    save_chains,
)
from orbitwise.networks.seeded import seeded
from orbitwise.objectives import Denoiser, Denoising, coordinate_scale
from orbitwise.processes.gaussian import GaussianProcess
from orbitwise.proteins import ResidueTransformer
from orbitwise.proteins.chain import ATOMS, LONGEST, ChainBatch, chain_batch
from orbitwise.proteins.designability import Designability, DesignabilityConfig, designability
from orbitwise.proteins.judge import JudgeConfig, ProteinVerdict, judge
from orbitwise.proteins.split import ProteinData, read_data
from orbitwise.runs.config import Config, Plan, load_run
from orbitwise.runs.folder import training, works_in
from orbitwise.runs.horizontal import HorizontalConfig
from orbitwise.runs.outcome import Outcome
from orbitwise.runs.own import OrOwn, OwnNetwork, check_parts
from orbitwise.runs.provenance import commit, device, versions
from orbitwise.runs.training import in_words, train_run, unfinished
from orbitwise.training import TrainConfig, load_weights
from orbitwise.training import train as fit
from orbitwise.training.checkpoint import NAME
from orbitwise.training.device import device_for

# settings that may change between training and use
AFTERWARDS = ("sampling", "judge", "designability")
SUMMARY = "summary.json"


class ProteinNetworkConfig(Config):
    """``hidden`` channels per residue, ``layers``, ``heads`` of the attention, and ``expand`` of
    the feed-forward."""

    hidden: int = Field(128, ge=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(8, ge=1)
    expand: int = Field(2, ge=1)

    def build(self, atoms: int, seed: int) -> nn.Module:
        """Weights drawn from ``seed``; the caller's random stream stays as it was."""
        with seeded(seed):
            return ResidueTransformer(atoms, self.hidden, self.layers, self.heads, self.expand)


class OwnProteinNetwork(OwnNetwork):
    """One with a parameter ``atoms`` gets how many there are of a residue."""

    def build(self, atoms: int, seed: int) -> nn.Module:  # type: ignore[override]
        """As ``ProteinNetworkConfig.build``."""
        return super().build(seed, atoms=atoms)


class ProteinBackbonesConfig(HorizontalConfig):
    """``data``: chains (.npz, .pdb, .cif, or a folder of files); ``mode``: Cα alone, or N, Cα and C
    of every residue; ``shortest`` and ``longest`` chains in residues; ``held_out``: share of the
    chains to judge by where the file has no splits; ``skip_bad``: leave out chains that cannot be
    used, and count them; ``noise_scale`` in Å of the noise at t = 0;
    ``horizontal``: predictions and the sampler's noise turn nothing."""

    data: Path
    mode: Literal["ca", "backbone"] = "ca"
    shortest: int = Field(20, ge=4)
    longest: int = Field(64, ge=4, le=LONGEST)
    held_out: float = Field(0.1, gt=0, lt=1)
    skip_bad: bool = False
    target: Literal["augmentation", "aligned", "snis", "exact"] = "exact"
    proposals: int = Field(256, ge=1)
    times: Literal["late", "lognormal", "uniform"] = "late"
    noise_scale: float = Field(10.0, gt=0)
    horizontal: bool = False
    network: Annotated[ProteinNetworkConfig, OrOwn(OwnProteinNetwork)] = ProteinNetworkConfig()
    train: TrainConfig = TrainConfig()
    sampling: ProteinSamplingConfig = ProteinSamplingConfig()
    judge: JudgeConfig = JudgeConfig()
    designability: DesignabilityConfig | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ProteinBackbonesConfig:
        if self.shortest > self.longest:
            raise ValueError(f"shortest ({self.shortest}) is more than longest ({self.longest})")
        if self.designability is not None and self.mode == "ca":
            raise ValueError("designability needs N, Cα and C atoms, that is mode=backbone")
        return self


@dataclass(frozen=True)
class Parts:
    """What a configuration stands for."""

    data: ProteinData
    batch: ChainBatch
    denoiser: Denoiser
    objective: Denoising


def parts(config: ProteinBackbonesConfig) -> Parts:
    """Data, network and objective, with weights drawn from ``train.seed``. Raises
    ``InputError``."""
    data = _data(config)
    batch = chain_batch(data.training)
    process = GaussianProcess.flow(config.noise_scale, zero_com=True)
    network = config.network.build(len(ATOMS[config.mode]), config.train.seed)
    scale = coordinate_scale(batch.x, batch.mask)
    denoiser = Denoiser(network, process, scale, horizontal=config.horizontal)
    return Parts(
        data,
        batch,
        denoiser,
        Denoising(process, SO3(), config.target, config.proposals, config.times),
    )


def _data(config: ProteinBackbonesConfig) -> ProteinData:
    return read_data(
        config.data,
        config.mode,
        shortest=config.shortest,
        longest=config.longest,
        held_out=config.held_out,
        skip_bad=config.skip_bad,
        seed=config.train.seed,
    )


def plan(config: ProteinBackbonesConfig) -> Plan:
    """No energy is called."""
    return Plan(sum(p.numel() for p in parts(config).denoiser.parameters()), 0)


@works_in("out", training)
def train(config: ProteinBackbonesConfig, out: str | Path) -> Outcome:
    """Train in the folder ``out``, or finish what was begun there."""
    check_parts(config)
    made, out = parts(config), writable_folder(out)
    result = train_run(
        config,
        out,
        partial(fit, made.denoiser, made.objective, made.batch, config.train),
        begun=(out / NAME).exists(),
        apart_from=AFTERWARDS,
        facts={"data": made.data.digest},
    )
    return Outcome(out, result, [in_words(out, result), *made.data.lines])


@works_in("run")
def sample(run: str | Path, n: int = 1000, seed: int = 0, *, trust: bool = False) -> Outcome:
    """Draw ``n`` backbones with the averaged weights: ``samples.npz`` and
    ``samples/sample_0001.pdb``, ..."""
    config, run = load_run(run, trust=trust), writable_folder(run)
    made = parts(config)
    reached = load_weights(run / NAME, made.denoiser).step
    where = device_for(config.train.accelerator)
    lengths = [len(c) for c in made.data.training]
    drawn = draw(
        made.denoiser, config.sampling, lengths, n, seed, where, horizontal=config.horizontal
    )
    save_chains(run, drawn)
    text = [
        f"{run}: {n} backbones in samples/*.pdb and samples.npz, {drawn.evaluations} network calls"
        " each",
        *unfinished(reached, config.train.steps),
    ]
    return Outcome(run, drawn, text)


@dataclass(frozen=True)
class Evaluation:
    """What ``summary.json`` holds of a result; ``samples``: digest of the file that was judged."""

    verdict: ProteinVerdict
    designability: Designability | None
    samples: str


@works_in("run")
def evaluate(run: str | Path, *, trust: bool = False) -> Outcome:
    """Compare the run's samples with its held-out chains; writes ``summary.json`` and
    ``report.html``."""
    config, run = load_run(run, trust=trust), writable_folder(run)
    if config.designability is not None:  # said before the work, not after it
        config.designability.may_run()
    drawn, data = load_chains(run), _data(config)
    verdict = judge(
        drawn.chains,
        data.held_out,
        data.training,
        config=config.judge,
        evaluations=drawn.evaluations,
        seed=config.train.seed,
    )
    design = None
    if config.designability is not None:
        design = designability(drawn.chains, config.designability, run / "designability")
    found = Evaluation(verdict, design, _digest(run))
    where = {"commit": commit(), "versions": versions(), "device": device(torch.device("cpu"))}
    with replacing(run / SUMMARY) as temporary:
        text = json.dumps(
            {"config": config.resolved(), "provenance": where, **asdict(found)}, indent=1
        )
        temporary.write_text(text, encoding="utf-8")
    return _page(run, config, found)


@works_in("run")
def report(run: str | Path, *, trust: bool = False) -> Outcome:
    """Write ``report.html`` again from ``summary.json`` and the samples."""
    config, run = load_run(run, trust=trust), writable_folder(run)
    try:
        held = json.loads((run / SUMMARY).read_text(encoding="utf-8"))
        found = TypeAdapter(Evaluation).validate_python(
            {k: held[k] for k in Evaluation.__dataclass_fields__}
        )
    except (OSError, ValueError, KeyError, ValidationError):
        raise InputError(
            f"{run}: there is no evaluation to report; make one with: orbitwise evaluate {run}"
        ) from None
    if found.samples != _digest(run):
        raise InputError(
            f"{run}: the samples changed after the evaluation; repeat: orbitwise evaluate {run}"
        )
    return _page(run, config, found)


def _page(run: Path, config: ProteinBackbonesConfig, found: Evaluation) -> Outcome:
    drawn, data = load_chains(run), _data(config)
    page = write_page(
        run, config, drawn.chains, data.held_out, found.verdict, found.designability, data.lines
    )
    lines = found.verdict.lines()
    if (design := found.designability) is not None:
        lines.append(
            f"designable (scRMSD < 2 Å): {design.share:.0%} of {len(design.sc_rmsd)} samples"
        )
    return Outcome(run, found, [*lines, f"report: {page}"])


def _digest(run: Path) -> str:
    load_chains(run)  # its message where there is nothing
    return hashlib.sha256((run / NPZ).read_bytes()).hexdigest()[:16]
