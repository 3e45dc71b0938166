"""Parts by name in a configuration: group, process, network and sampler, each with ``build``.

Bindings for molecules share these, so that a key means the same in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from rdkit import Chem
from torch import nn

from orbitwise.errors import InputError
from orbitwise.groups.automorphism import Automorphism
from orbitwise.groups.base import Group
from orbitwise.groups.product import Product
from orbitwise.groups.so3 import O3, SO3
from orbitwise.molecules.molecule import to_batch
from orbitwise.networks import EGNN, PointTransformer
from orbitwise.networks.seeded import seeded
from orbitwise.processes.gaussian import GaussianProcess
from orbitwise.processes.sampling import STEPPERS, edm_grid
from orbitwise.processes.sampling import sample as integrate
from orbitwise.runs.config import Config
from orbitwise.runs.named import Kind
from orbitwise.runs.own import OrOwn, Own, OwnGroup, OwnNetwork
from orbitwise.training.progress import Progress, ProgressBar

ROTATIONS = {"so3": SO3, "o3": O3}
GAUSSIAN = Kind("an orbitwise GaussianProcess", (GaussianProcess,))
NETWORKS = {"egnn": EGNN, "transformer": PointTransformer}


class GroupConfig(Config):
    """``automorphisms``: those of the molecule that keep the handedness of the frames, or none."""

    rotations: Literal["so3", "o3"] = "so3"
    automorphisms: Literal["handed", "none"] = "handed"

    def build(self, mol: Chem.Mol, positions: np.ndarray, *, exact: bool) -> Product:
        """For a molecule in a reference geometry ``(N, 3)``; ``exact``: all elements will be
        enumerated."""
        rotations = ROTATIONS[self.rotations]()
        if self.automorphisms == "none":
            return Product(rotations)
        renamings = Automorphism.from_mol(mol, positions)
        if exact and not renamings.finite:
            raise InputError(
                f"the molecule has {renamings.order:,} automorphisms, more than the exact target"
                f" can enumerate ({renamings.max_order:,}); set target=snis, or"
                " group.automorphisms=none"
            )
        return Product(rotations, renamings)


class OwnMoleculeGroup(OwnGroup):
    """One with a parameter ``mol`` or ``positions`` gets the molecule, or its reference
    geometry."""

    def build(self, mol: Chem.Mol, positions: np.ndarray, *, exact: bool) -> Group:
        """As ``GroupConfig.build``."""
        return self.part(mol=Chem.Mol(mol), positions=positions.copy())


class ProcessConfig(Config):
    """A Gaussian process by its name, with its numbers as ``GaussianProcess.named`` takes them;
    Å."""

    name: str = "edm"
    numbers: dict[str, float] = Field(default_factory=dict)

    def build(self) -> GaussianProcess:
        """At zero centre of mass."""
        return GaussianProcess.named(self.name, zero_com=True, **self.numbers)


class OwnGaussianProcess(Own):
    """A process of one's own, at zero centre of mass: one with a parameter ``zero_com`` is made
    so."""

    role: ClassVar[str] = "process"
    kind: ClassVar[Kind] = GAUSSIAN

    def build(self) -> GaussianProcess:
        made = self.part(zero_com=True)
        if not made.zero_com:
            raise InputError(
                f"process {self.name}: has zero_com = False; molecules need one at zero centre of"
                " mass"
            )
        return made


class NetworkConfig(Config):
    """``hidden`` channels per atom and ``layers``."""

    name: Literal["egnn", "transformer"] = "egnn"
    hidden: int = Field(96, ge=8)
    layers: int = Field(4, ge=1)

    def build(self, seed: int) -> nn.Module:
        """Weights drawn from ``seed``; the caller's random stream stays as it was."""
        with seeded(seed):
            return NETWORKS[self.name](hidden=self.hidden, layers=self.layers)


AnyGroup = Annotated[GroupConfig, OrOwn(OwnMoleculeGroup)]
AnyProcess = Annotated[ProcessConfig, OrOwn(OwnGaussianProcess)]
AnyNetwork = Annotated[NetworkConfig, OrOwn(OwnNetwork)]


@dataclass(frozen=True)
class Drawn:
    """``positions_angstrom: (n, N, 3)`` float64, and network calls per sample."""

    positions_angstrom: np.ndarray
    evaluations: int


class SamplingConfig(Config):
    """``noise_min``: noise in Å at which the last denoising step stands; ``batch_size`` bounds the
    memory."""

    stepper: Literal["heun", "euler", "ancestral"] = "heun"
    steps: int = Field(30, ge=2)
    noise_min: float = Field(0.005, gt=0)
    batch_size: int = Field(512, ge=1)

    def draw(
        self,
        denoiser: nn.Module,
        mol: Chem.Mol,
        n: int,
        seed: int,
        device: str,
        *,
        horizontal: bool = False,
    ) -> Drawn:
        """``n`` samples of a molecule from ``denoiser(x_t, t, batch)``, which has a ``process``;
        ``horizontal`` as in ``processes.sample``."""
        if n < 1:
            raise InputError(f"n must be at least 1, got {n}")
        denoiser = denoiser.to(device).eval()
        generator = torch.Generator(device).manual_seed(seed)
        grid = edm_grid(denoiser.process, self.steps, noise_min=self.noise_min)
        found, calls = [], 0
        with ProgressBar("sampling") as bar:
            for start in range(0, n, self.batch_size):  # chunks of memory
                size = min(self.batch_size, n - start)
                batch = to_batch(mol, torch.zeros(size, mol.GetNumAtoms(), 3, device=device))
                done = integrate(
                    lambda xt, t, batch=batch: denoiser(xt, t, batch),
                    denoiser.process,
                    batch.x.shape,
                    grid=grid,
                    stepper=STEPPERS[self.stepper](),
                    mask=batch.mask,
                    generator=generator,
                    dtype=batch.x.dtype,
                    horizontal=horizontal,
                    progress=lambda k, of, start=start, size=size: bar(
                        Progress(start + size * k // of, n)
                    ),
                )
                found.append(done.x.double().cpu().numpy())
                calls = done.evaluations
        return Drawn(np.concatenate(found), calls)
