"""Draw conformers of many molecules at once with one denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from orbitwise.errors import InputError
from orbitwise.methods.molecules.many.parts import MoleculeSamplingConfig
from orbitwise.molecules.batch import Graph, Graphs
from orbitwise.molecules.files.sets import Conformers
from orbitwise.molecules.handedness import relabel, stereo_elements
from orbitwise.processes.sampling import STEPPERS, edm_grid
from orbitwise.processes.sampling import sample as integrate


@dataclass(frozen=True)
class Drawn:
    """``positions: (S, N, 3)`` float64 Å of each molecule, in its atom order, and network calls per
    sample."""

    positions: tuple[np.ndarray, ...]
    evaluations: int


def draw(
    denoiser: nn.Module,
    molecules: Sequence[Conformers],
    counts: Sequence[int],
    config: MoleculeSamplingConfig,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    horizontal: bool = False,
) -> Drawn:
    """``counts[k]`` samples of each molecule; of its ``positions_angstrom`` only the handedness is
    used.

    Molecules of nearly one size share a batch. ``horizontal`` as in ``processes.sample``. Raises
    ``InputError`` for a count below 1 or an unknown element.
    """
    if min(counts, default=0) < 1:
        raise InputError("every molecule needs at least one sample")
    denoiser = denoiser.to(device).eval()
    generator = torch.Generator(device).manual_seed(seed)
    graphs = Graphs.of([Graph.of(m.mol, m.positions_angstrom[0], max_group=1) for m in molecules])
    owner = torch.repeat_interleave(torch.arange(len(molecules)), torch.tensor(list(counts)))
    owner = owner[graphs.size[owner].argsort(stable=True)]
    grid = edm_grid(
        denoiser.process,
        config.steps,
        noise_min=config.noise_min,
        noise_max=config.noise_max,
        rho=config.rho,
    )
    found: list[list[Tensor]] = [[] for _ in molecules]
    done, calls = 0, 0

    while done < len(owner):  # chunks of memory
        size = max(1, config.atoms_at_once // int(graphs.size[owner[done:]].max()))
        index = owner[done : done + size]
        blank = torch.zeros(len(index), int(graphs.size[index].max()), 3)
        batch = graphs.batch(index, blank).to(device)
        process = (
            denoiser.process.on(batch) if hasattr(denoiser.process, "on") else denoiser.process
        )
        result = integrate(
            lambda xt, t, batch=batch: denoiser(xt, t, batch),
            process,
            batch.x.shape,
            grid=grid,
            stepper=STEPPERS[config.stepper](),
            mask=batch.mask,
            generator=generator,
            dtype=batch.x.dtype,
            horizontal=horizontal,
        )
        x = result.x.double().cpu()
        for k in index.unique().tolist():
            found[k].append(x[index == k, : molecules[k].atoms])
        done, calls = done + len(index), result.evaluations
        if progress is not None:
            progress(done, len(owner))
    return Drawn(tuple(torch.cat(part).numpy() for part in found), calls)


@dataclass(frozen=True)
class HandednessKept:
    """Of the samples of one molecule: ``labelled``, the share in which every tetrahedral atom and
    double bond came out as asked, equal hydrogens told apart; ``isomer``, the share that is the
    stereoisomer asked for."""

    labelled: float
    isomer: float


def handedness(molecule: Conformers, samples: np.ndarray) -> HandednessKept:
    """Before any repair; ``samples: (S, N, 3)``."""
    elements = stereo_elements(molecule.mol)
    reference = molecule.positions_angstrom[0].astype(float)
    labelled = (elements.signs(samples) == elements.signs(reference[None])).all(1)
    isomer = relabel(molecule.mol, samples, reference).same_isomer
    return HandednessKept(labelled=float(labelled.mean()), isomer=float(isomer.mean()))
