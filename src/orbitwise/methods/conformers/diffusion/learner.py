"""Learn: network, symmetry and objective for the frames of one molecule, and their training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from rdkit import Chem
from torch import Tensor

from orbitwise.data.batch import PointBatch
from orbitwise.groups.base import Group
from orbitwise.groups.so3 import SO3
from orbitwise.methods.conformers.clock import shown
from orbitwise.methods.conformers.exchange.found import Found
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.molecules.molecule import to_batch
from orbitwise.molecules.symmetry import symmetry
from orbitwise.networks import EGNN
from orbitwise.networks.seeded import seeded
from orbitwise.objectives.denoiser import Denoiser, coordinate_scale
from orbitwise.objectives.denoising import Denoising
from orbitwise.processes.gaussian import GaussianProcess
from orbitwise.runs.stages import Pipeline, Stage, Step
from orbitwise.training import TrainConfig, train

# a small network learns more in minutes than a large one
NETWORK = {"hidden": 64, "vectors": 16, "layers": 4, "pair": 24, "radial": 16}


def build_learner(batch: PointBatch, group: Group, seed: int) -> tuple[Denoiser, Denoising]:
    """The network and its objective, for frames of one molecule."""
    process = GaussianProcess.edm(zero_com=True)
    with seeded(seed):
        network = EGNN(**NETWORK)
    learner = Denoiser(network, process, coordinate_scale(batch.x, batch.mask))
    return learner, Denoising(process, group, target="exact")


def network_size() -> int:
    """Trainable parameters of the learner."""
    return sum(p.numel() for p in EGNN(**NETWORK).parameters())


def restore(mol: Chem.Mol, frame: Tensor, seed: int, weights: dict[str, Tensor]) -> Denoiser:
    """The learner with weights from disk; ``frame: (N, 3)`` any geometry of the molecule."""
    learner, _ = build_learner(to_batch(mol, frame[None].cpu(), dtype=torch.float32), SO3(), seed)
    learner.load_state_dict(weights)
    return learner


def learn(system: System, effort: Effort, found: Found, seed: int, folder: Path) -> Denoiser:
    """Train on the frames of the search with exact orbit targets; continues a training that was
    begun."""
    x = found.x.flatten(0, 1)
    batch = to_batch(system.mol, x - x.mean(-2, keepdim=True), dtype=torch.float32)
    learner, objective = build_learner(batch, symmetry(system.mol, x[0]), seed)
    config = TrainConfig(
        steps=effort.train_steps,
        batch_size=effort.batch_size,
        learning_rate=3e-3,
        ema_decay=max(0.9, min(0.999, 1 - 10 / effort.train_steps)),
        seed=seed,
        checkpoint_every=max(50, effort.train_steps // 20),
    )
    with shown("learn") as show:
        told = {"frames": len(batch)}
        result = train(learner, objective, batch, config, folder, told, on_progress=show)
    return result.ema


@dataclass(frozen=True)
class Learn(Step[Denoiser]):
    """``learn`` as a stage, which keeps the learner's weights."""

    system: System
    seed: int
    folder: Path

    name, makes = "learn", Denoiser

    def make(self, pipe: Pipeline) -> Denoiser:
        # a folder for each set of settings: half-finished training is resumed with its own
        # settings only
        folder = self.folder / "learner" / pipe.digest
        return learn(self.system, pipe[Effort], pipe[Found], self.seed, folder)

    def keep(self, result: Denoiser) -> Stage:
        return Stage(dict(result.state_dict()), {})

    def restore(self, stage: Stage, pipe: Pipeline) -> Denoiser:
        return restore(self.system.mol, pipe[Found].x[0, 0], self.seed, stage.tensors)
