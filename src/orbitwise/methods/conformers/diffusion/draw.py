"""Draw: independent samples of the learner, named as the molecule's atoms are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from orbitwise.methods.conformers.clock import Clock, shown
from orbitwise.methods.conformers.exchange.found import Found
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.molecules.handedness import StereoElements, relabel, stereo_elements
from orbitwise.molecules.molecule import to_batch
from orbitwise.objectives.denoiser import Denoiser
from orbitwise.processes.sampling import Heun, edm_grid, sample
from orbitwise.runs.stages import Kept, Pipeline, Step

CHUNK = 500  # samples drawn at a time


@dataclass(frozen=True)
class Drawn(Kept):
    """All samples of the learner as they came: ``x: (M, N, 3)``, ``energy: (M,)``, ``usable: (M,)``
    (finite energy and the right stereochemistry), network evaluations per sample."""

    x: Tensor
    energy: Tensor
    usable: Tensor
    evaluations: int

    kept_as: ClassVar = {"evaluations": "evaluations_of_network"}


def draw(
    system: System, effort: Effort, learner: Denoiser, like: Tensor, n: int, seed: int
) -> Drawn:
    """Samples until ``n`` are usable, at most about three times as many; ``like: (N, 3)`` a frame
    of the right stereochemistry."""
    generator = system.generator(seed)
    learner = learner.eval().to(system.device)
    label = to_batch(system.mol, like[None].to(system.device), dtype=torch.float32)
    grid = edm_grid(learner.process, effort.denoise_steps, noise_min=0.01, noise_max=20.0)
    elements = stereo_elements(system.mol)
    wanted = n + max(5, n // 50)  # a few may not survive the relaxation
    parts, energies, usable, enough = [], [], [], 0
    with shown("draw") as show, system.energy.stage("samples"):
        clock = Clock(show, wanted)
        while enough < wanted and len(parts) * CHUNK < 3 * n + CHUNK:
            size = min(CHUNK, max(50, wanted - enough))
            batch = label[torch.zeros(size, dtype=torch.long, device=system.device)]
            drawn = sample(
                lambda x, t, batch=batch: learner(x, t, batch),
                learner.process,
                (size, *like.shape),
                grid=grid,
                stepper=Heun(),
                mask=batch.mask,
                generator=generator,
                device=system.device,
                dtype=torch.float32,
            )
            x, same = renumber(system, drawn.x, like, elements)
            parts.append(x)
            energies.append(system.energy(x))
            usable.append(torch.isfinite(energies[-1]) & same)
            enough += int(usable[-1].sum())
            clock(min(enough, wanted))
    return Drawn(torch.cat(parts), torch.cat(energies), torch.cat(usable), drawn.evaluations)


def renumber(
    system: System, x: Tensor, like: Tensor, elements: StereoElements
) -> tuple[Tensor, Tensor]:
    """Equal atoms of a sample come with random labels: each gets those of ``like: (N, 3)``, or it
    is another isomer. Positions in the system's precision, and which of them are sound molecules of
    this isomer ``(M,)``."""
    named = relabel(system.mol, x.cpu().double().numpy(), like.cpu().double().numpy())
    same = torch.as_tensor(named.same_isomer & elements.enclosed(named.positions))
    moved = torch.as_tensor(named.positions).to(device=system.device, dtype=system.dtype)
    return moved, same.to(system.device)


@dataclass(frozen=True)
class Draw(Step[Drawn]):
    """``draw`` as a stage."""

    system: System
    n: int
    seed: int

    name, makes = "draw", Drawn

    @property
    def key(self) -> dict:
        return {"n": self.n}

    def make(self, pipe: Pipeline) -> Drawn:
        like = pipe[Found].x[0, 0]
        return draw(self.system, pipe[Effort], pipe[Denoiser], like, self.n, self.seed)
