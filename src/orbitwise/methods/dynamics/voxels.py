"""Task ``voxels``: denoising of voxelised molecules at one noise level with a 3-D U-Net (VoxMol,
2306.07473, in small).

Data: molecules of one geometry each (``data.voxels.read_geometries``); those that fit a grid of 16
voxels of 0.6 Å. Audited are the 24 rotations of the cube, which act exactly on grids. Beside them
stand numbers under all rotations, where noise and answer are interpolated
(``audit.interpolation``), with what interpolation alone looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from orbitwise.audit import AuditBatch
from orbitwise.audit.interpolation import TurnedGrids
from orbitwise.data.batch import PointBatch
from orbitwise.data.voxels import VoxelGrid, read_geometries
from orbitwise.errors import InputError
from orbitwise.groups.polyhedral import octahedral
from orbitwise.groups.so3 import SO3
from orbitwise.groups.voxels import VoxelRotations
from orbitwise.methods.dynamics.task import DynamicsConfig, Task, enough, wanted
from orbitwise.networks import UNet3D
from orbitwise.networks.seeded import seeded
from orbitwise.objectives.grid_denoising import GridDenoiser, GridDenoising
from orbitwise.runs.own import OwnNetwork

GRID = VoxelGrid()
SIGMA = 0.7  # norm of an atom's density over sigma: 3.9 as at VoxMol's 0.9 on its finer grid
# all of positions, before they become densities, so that nothing is interpolated
AUGMENTATIONS = {"none": lambda: None, "octahedral": octahedral, "augmentation": SO3}
ORDER = 20  # seed of the order of the molecules: every run holds out the same ones
TURNED = 16  # held-out molecules that are audited under all rotations
PART = 8  # grids per batch of the audit, 24 times as many answers


class InUnits(nn.Module):
    """The answer over the scale of the densities, so that the audited loss is the trained one."""

    def __init__(self, denoiser: GridDenoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, y: Tensor) -> Tensor:
        return self.denoiser(y) / self.denoiser.data_scale


def build(config: DynamicsConfig) -> Task:
    """Data, model and loss. Raises ``InputError``."""
    wanted(config, tuple(AUGMENTATIONS))
    own: object = config.network
    if not isinstance(own, OwnNetwork) and config.network.name != "unet3d":
        raise InputError(
            f"the task voxels needs network.name=unet3d, not {config.network.name}: it reads grids"
        )

    held, data = split(config)
    generator = torch.Generator().manual_seed(config.train.seed)
    some = data[torch.arange(min(len(data), 256))]
    scale = float(GRID.voxelise(GRID.place(some, None, generator)).square().mean().sqrt())
    elements = len(GRID.elements)
    if isinstance(own, OwnNetwork):
        network: nn.Module = own.build(config.train.seed, channels=elements)
    else:
        with seeded(config.train.seed):
            network = UNet3D(elements, config.network.hidden)

    return Task(
        model=GridDenoiser(network, SIGMA, scale),
        objective=GridDenoising(GRID, AUGMENTATIONS[config.target]()),
        data=data,
        group=VoxelRotations(),
        batches=_noised(held, scale),
        nodes=None,  # all 24
        outputs="field",
        audited=InUnits,
        numbers=_under_all_rotations(
            TurnedGrids(GRID, held[torch.arange(min(len(held), TURNED))], SIGMA)
        ),
        units="the root mean square of the densities",
        notes=(
            (
                "percent_all_rotations holds interpolation, which makes percent_identity and"
                " percent_smoothing all of theirs: the exact figure is that of the 24 rotations"
            ),
        ),
    )


def split(config: DynamicsConfig) -> tuple[PointBatch, PointBatch]:
    """Held-out molecules, and those to train on: a smaller training set is part of a larger one."""
    molecules = read_geometries(config.data)
    fitting = molecules[GRID.fits(molecules)]
    if len(fitting) <= config.held_out:
        raise InputError(
            f"{config.data}: {len(fitting)} molecules fit the grid, {config.held_out} are held out;"
            " lower held_out or give more molecules"
        )
    order = torch.randperm(len(fitting), generator=torch.Generator().manual_seed(ORDER))
    held, rest = order[: config.held_out], order[config.held_out :]
    return fitting[held], fitting[rest[: enough(config, len(rest))]]


def _noised(held: PointBatch, scale: float) -> list[AuditBatch]:
    """With fixed places and noise, in the orientation of the data."""
    generator = torch.Generator().manual_seed(ORDER)
    found = []
    for index in torch.arange(len(held)).split(PART):
        clean = GRID.voxelise(GRID.place(held[index], None, generator))
        noise = torch.randn(clean.shape, generator=generator)
        found.append(AuditBatch(clean + SIGMA * noise, clean / scale))
    return found


def _under_all_rotations(turned: TurnedGrids) -> Mapping[str, Callable[[nn.Module], float]]:
    """What interpolation alone does is measured once; nothing is computed before the first
    audit."""
    return {
        "percent_all_rotations": lambda model: turned.audit(model.eval()).percent.value,
        "percent_identity": lambda model: turned.identity.percent.value,
        "percent_smoothing": lambda model: turned.smoothing.percent.value,
        "interpolated_answer": lambda model: (
            turned.perfect.equivariance.value / float(model.data_scale) ** 2
        ),
        "round_trip_clean": lambda model: turned.round_trip(turned.clean),
        "round_trip_noisy": lambda model: turned.round_trip(turned.noisy),
        "noise_kept": lambda model: turned.noise_kept,
    }
