"""The learner of `orbitwise conformers` as a sampler in its own right: paths with exact importance
weights.

The learner is equivariant, so rotations and exchanges of equal atoms leave the weights alone; it
tells mirror images apart, so handedness does not. What is weighed is the learner with every path
refused that ends at another stereoisomer or at an infinite energy: its density is the learner's
over the share that is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.methods.conformers.clock import Clock, shown
from orbitwise.methods.conformers.diffusion.draw import CHUNK, renumber
from orbitwise.methods.conformers.exchange.found import Found
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.metrics.evidence import Evidence, evidence
from orbitwise.molecules.handedness import stereo_elements
from orbitwise.molecules.molecule import to_batch
from orbitwise.objectives.denoiser import Denoiser
from orbitwise.objectives.paths.ancestral_paths import (
    AncestralSampler,
    ancestral_paths,
    noised_paths,
)
from orbitwise.objectives.paths.path import log_weight
from orbitwise.processes.sampling import edm_grid
from orbitwise.runs.stages import Kept, Pipeline, Step

STEPS, SMALLEST, LARGEST = 60, 0.007, 20.0  # of a path, and the noise levels in Å that it spans
FITTED = 64  # frames that the variances of the steps are fitted to
ENOUGH = 50.0  # effective paths below which weighted populations are not called usable


@dataclass(frozen=True)
class Weighed(Kept):
    """``x: (M, N, 3)`` where those paths end that are kept, ``log_weight: (M,)``, of ``paths`` that
    were drawn; ``backward: (m,)`` log weights of paths back from frames of the search. Both hold
    the share that is kept."""

    x: Tensor
    log_weight: Tensor
    backward: Tensor
    paths: int


@dataclass(frozen=True)
class Worth:
    """``evidence`` of the weights (None below two kept paths), and whether populations may be made
    of them."""

    evidence: Evidence | None
    usable: bool

    @property
    def effective(self) -> float:
        """Number of independent samples that the paths are worth (Kish)."""
        return 0.0 if self.evidence is None else self.evidence.ess * self.evidence.paths


def network_evaluations(paths: int) -> int:
    """Of ``weigh``: forwards, backwards, and to fit the variances."""
    return STEPS * (paths + paths // 2 + FITTED)


def weigh(system: System, effort: Effort, learner: Denoiser, found: Found, seed: int) -> Weighed:
    """``effort.weigh_paths`` paths of the learner with one energy each, and half as many back from
    frames of the search that are spread over its chains and its time."""
    generator = system.generator(seed)
    learner = learner.eval().to(system.device)
    like, total = found.x[0, 0], effort.weigh_paths
    label = to_batch(system.mol, like[None].to(system.device), dtype=torch.float32)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        batch = label[torch.zeros(len(x), dtype=torch.long, device=x.device)]
        return learner(x.float(), t.float(), batch)

    def energy(x: Tensor) -> Tensor:
        return system.energy(x.to(system.dtype)).to(x.dtype)

    grid = edm_grid(learner.process, STEPS, noise_min=SMALLEST, noise_max=LARGEST).to(system.device)
    sampler = AncestralSampler(
        denoise, learner.process, grid, float(learner.data_scale), tuple(like.shape)
    )
    frames, energies = found.x.flatten(0, 1), found.energy.flatten()
    chosen = torch.linspace(
        0, len(frames) - 1, FITTED + max(2, total // 2), device=frames.device
    ).long()
    fit = torch.zeros_like(chosen, dtype=torch.bool)
    fit[torch.linspace(0, len(chosen) - 1, FITTED, device=fit.device).long()] = True
    elements = stereo_elements(system.mol)
    parts: list[tuple[Tensor, Tensor]] = []
    with system.energy.stage("weighing"), shown("weigh") as show:
        clock = Clock(show, total)
        sampler = sampler.fitted(frames[chosen[fit]], generator)
        for first in range(0, total, CHUNK):
            paths = ancestral_paths(sampler, energy, min(CHUNK, total - first), generator)
            x, sound = renumber(system, paths.x[-1], like, elements)
            keep = sound & torch.isfinite(paths.energy)
            parts.append((x[keep], log_weight(paths)[keep].double()))
            clock(min(first + CHUNK, total))
    x, weights = (torch.cat(part) for part in zip(*parts, strict=True))
    back = chosen[~fit]
    backward = [
        log_weight(noised_paths(sampler, frames[rows], energies[rows], generator)).double()
        for rows in back.split(CHUNK)
    ]
    kept = math.log(max(len(x), 1) / total)
    return Weighed(x, weights + kept, torch.cat(backward) + kept, total)


@dataclass(frozen=True)
class Weigh(Step[Weighed]):
    """``weigh`` as a stage."""

    system: System
    seed: int

    name, makes = "weigh", Weighed

    def make(self, pipe: Pipeline) -> Weighed:
        return weigh(self.system, pipe[Effort], pipe[Denoiser], pipe[Found], self.seed)


def worth(weighed: Weighed, independent: float) -> Worth:
    """``independent``: samples that the frames of the search are worth."""
    if len(weighed.x) < 2:
        return Worth(None, False)
    seen = (
        max(2, min(len(weighed.backward), int(independent))) if math.isfinite(independent) else None
    )
    found = evidence(weighed.log_weight.cpu(), weighed.backward.cpu(), independent=seen)
    return Worth(found, found.trusted and found.ess * found.paths >= ENOUGH)


def words(weighed: Weighed, result: Worth) -> str:
    """What the weights say, in one sentence."""
    found = result.evidence
    if found is None:
        return (
            f"Of {weighed.paths} paths of the learner fewer than two ended at a molecule: its"
            " importance weights are unusable."
        )
    share = (
        f"{result.effective:.1f} effective of {found.paths:,} paths (ESS {100 * found.ess:.2g} %)"
    )
    gap = f"the bounds on log Z are {found.gap:.3g} ± {found.gap_error:.2g} nats apart"
    if result.usable:
        return f"The learner's importance weights are usable: {share}; {gap}."
    return (
        f"The learner's importance weights degenerate and are unusable: {share}; {gap}. No"
        " populations are made of them."
    )


def told(weighed: Weighed, result: Worth) -> dict:
    """The same for summary.json."""
    found = result.evidence
    base = {"paths": weighed.paths, "kept": len(weighed.x), "steps": STEPS, "usable": result.usable}
    base["effective_paths"] = result.effective
    if found is None:
        return base
    names = ("elbo", "elbo_error", "eubo", "eubo_error", "gap", "gap_error", "log_z", "log_z_error")
    names += (
        "log_z_bridge",
        "log_z_bridge_error",
        "ess",
        "ess_error",
        "ess_backward",
        "largest_share",
    )
    values = {name: getattr(found, name) for name in names}
    values = {k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}
    return (
        base | values | {"reference_paths": found.reference_paths, "cautions": list(found.cautions)}
    )
