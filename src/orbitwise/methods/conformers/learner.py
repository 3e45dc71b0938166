"""The learner of `orbitwise conformers`: network, symmetry and objective for the frames of one
molecule."""

from __future__ import annotations

import torch
from torch import Tensor

from orbitwise.data.batch import PointBatch
from orbitwise.groups.base import Group
from orbitwise.groups.so3 import SO3
from orbitwise.molecules.molecule import to_batch
from orbitwise.networks import EGNN
from orbitwise.objectives.denoiser import Denoiser, coordinate_scale
from orbitwise.objectives.denoising import Denoising
from orbitwise.processes.gaussian import GaussianProcess

# a small network learns more in minutes than a large one
NETWORK = {"hidden": 64, "vectors": 16, "layers": 4, "pair": 24, "radial": 16}


def build_learner(batch: PointBatch, group: Group, seed: int) -> tuple[Denoiser, Denoising]:
    """The network and its objective, for frames of one molecule."""
    process = GaussianProcess.edm(zero_com=True)
    with torch.random.fork_rng(devices=[]):  # torch initialises layers from its global stream
        torch.manual_seed(seed)
        network = EGNN(**NETWORK)
    learner = Denoiser(network, process, coordinate_scale(batch.x, batch.mask))
    return learner, Denoising(process, group, target="exact")


def network_size() -> int:
    """Trainable parameters of the learner."""
    return sum(p.numel() for p in EGNN(**NETWORK).parameters())


def restore(mol, frame: Tensor, seed: int, weights: dict[str, Tensor]) -> Denoiser:
    """The learner with weights from disk; ``frame: (N, 3)`` any geometry of the molecule."""
    learner, _ = build_learner(to_batch(mol, frame[None].cpu(), dtype=torch.float32), SO3(), seed)
    learner.load_state_dict(weights)
    return learner
