"""What a configuration of one model over many molecules stands for: data, noise, network and
objective."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator

from orbitwise.groups.product import Product
from orbitwise.groups.so3 import SO3
from orbitwise.molecules import MoleculeNetwork
from orbitwise.molecules.batch import ConformerData, MoleculeBatch
from orbitwise.molecules.files.sets import ConformerSet, read_conformer_sets
from orbitwise.networks.seeded import seeded
from orbitwise.objectives import Denoiser, Denoising
from orbitwise.objectives.widths import OverParts
from orbitwise.processes import GaussianProcess, HarmonicProcess
from orbitwise.runs.config import Config, Seed
from orbitwise.runs.horizontal import HorizontalConfig
from orbitwise.runs.own import OrOwn, OwnNetwork
from orbitwise.training import TrainConfig


class MoleculeNetworkConfig(Config):
    """``hidden`` scalar and ``vectors`` vector channels per atom (multiples of 8), ``layers``."""

    hidden: int = Field(64, ge=8)
    vectors: int = Field(16, ge=8)
    layers: int = Field(4, ge=1)

    def build(self, seed: int) -> MoleculeNetwork:
        """Weights drawn from ``seed``; the caller's random stream stays as it was."""
        with seeded(seed):
            return MoleculeNetwork(hidden=self.hidden, vectors=self.vectors, layers=self.layers)


class MoleculeSamplingConfig(Config):
    """``steps`` noise levels between ``noise_max`` and ``noise_min``, ratios of noise to data (σ/α,
    in Å); the last answer of the denoiser is the sample. ``per_reference``: samples for each
    reference conformer of a held-out molecule; ``count``: for a molecule without; ``atoms_at_once``
    bounds the memory."""

    stepper: Literal["heun", "euler", "ancestral"] = "heun"
    steps: int = Field(12, ge=2)
    noise_min: float = Field(0.15, gt=0)
    noise_max: float = Field(20.0, gt=0)
    rho: float = Field(5.0, gt=0)
    per_reference: int = Field(2, ge=1)
    count: int = Field(50, ge=1)
    atoms_at_once: int = Field(6000, ge=1)


class MoleculeConformersConfig(HorizontalConfig):
    """``data``: one or several .npz archives, .sdf files or folders of them (``data=a.npz,b.npz``).
    ``max_atoms``: larger molecules are left out, hydrogens counted. ``val_share`` and
    ``test_share`` of the molecules of a file that has no split of its own; ``split_seed`` draws it.
    ``max_group``: elements of the automorphism group that are summed over (a subgroup beyond).
    ``horizontal``: predictions and the sampler's noise turn nothing. ``buckets``: parts of a
    batch, by size."""

    data: tuple[Path, ...] = Field(min_length=1)
    max_atoms: int = Field(30, ge=2)
    val_share: float = Field(0.1, ge=0, lt=1)
    test_share: float = Field(0.2, gt=0, lt=1)
    split_seed: Seed = 0
    skip_bad: bool = False
    prior: Literal["harmonic", "gaussian"] = "harmonic"
    target: Literal["augmentation", "aligned", "snis", "exact"] = "exact"
    proposals: int = Field(200, ge=1)
    max_group: int = Field(36, ge=1)
    times: Literal["lognormal", "fine", "uniform"] = "fine"
    network: Annotated[MoleculeNetworkConfig, OrOwn(OwnNetwork)] = MoleculeNetworkConfig()
    horizontal: bool = False
    buckets: int = Field(3, ge=1)
    train: TrainConfig = TrainConfig()
    sampling: MoleculeSamplingConfig = MoleculeSamplingConfig()

    @field_validator("data", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        if isinstance(value, Path | str):
            return tuple(part.strip() for part in str(value).split(",") if part.strip())
        return value

    def read(self, *splits: str) -> ConformerSet:
        """The molecules of these splits. Raises ``InputError`` as ``read_conformer_set`` does."""
        return read_conformer_sets(
            self.data,
            splits=splits,
            max_atoms=self.max_atoms,
            skip_bad=self.skip_bad,
            seed=self.split_seed,
            shares=(self.val_share, self.test_share),
        )


@dataclass(frozen=True)
class Parts:
    """Network, noise and objective of a configuration; ``data_scale`` in Å (of the whitened
    points)."""

    denoiser: Denoiser
    objective: OverParts


def build(config: MoleculeConformersConfig, data_scale: float) -> Parts:
    """With weights drawn from ``train.seed``. The prior has the scale of the data."""
    flow = GaussianProcess.flow(data_scale, zero_com=True)
    process = HarmonicProcess(flow) if config.prior == "harmonic" else flow
    network = config.network.build(config.train.seed)
    denoiser = Denoiser(network, process, data_scale, horizontal=config.horizontal)
    objective = Denoising(
        process, rotations_and_renamings, config.target, config.proposals, config.times
    )
    return Parts(denoiser, OverParts(objective))


def rotations_and_renamings(batch: MoleculeBatch) -> Product:
    """The symmetry of each molecule of a batch: SO(3) × its automorphisms."""
    return Product(SO3(), batch.renamings)


def data_scale(data: ConformerData, prior: str, chunk: int = 512) -> float:
    """Root mean square of a coordinate of the training conformers in the coordinates in which the
    noise is isotropic, Å, counted in 3(N−1) dimensions."""
    square, freedom = 0.0, 0
    for index in torch.arange(len(data)).split(chunk):  # chunks of memory
        batch = data.batch(index)
        x = (
            HarmonicProcess().on(batch).whiten(batch.x, batch.mask)
            if prior == "harmonic"
            else batch.x
        )
        square += float((x.double().square().sum((-2, -1))).sum())
        freedom += 3 * int((batch.mask.sum(-1) - 1).sum())
    return (square / freedom) ** 0.5
