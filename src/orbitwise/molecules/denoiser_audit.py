"""The audit of a trained diffusion model: how well it denoises held-out frames in every
orientation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from rdkit import Chem

from orbitwise.audit import AuditBatch
from orbitwise.audit.subject import ROTATIONS, AuditRequest, AuditSubject
from orbitwise.errors import InputError
from orbitwise.groups.automorphism import Automorphism
from orbitwise.groups.base import Group
from orbitwise.molecules.molecule import to_batch
from orbitwise.objectives import Denoiser
from orbitwise.processes.gaussian import GaussianProcess

LEVELS = (0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)
_BATCH = 16


def denoiser_subject(
    title: str,
    denoiser: Denoiser,
    mol: Chem.Mol,
    held_out: np.ndarray,
    request: AuditRequest,
    device: str,
) -> AuditSubject:
    """``x_t`` from held-out frames ``(F, N, 3)`` of a molecule at every level t; the target is the
    frame itself.

    All levels see the same frames and the same noise, so that they can be compared. Raises
    ``InputError`` for levels outside (0, 1).
    """
    levels = LEVELS if request.levels is None else request.levels
    if not levels or not all(0 < t < 1 for t in levels):
        raise InputError(
            f"levels: noise levels lie between 0 (noise) and 1 (data), got {list(levels)}"
        )

    denoiser = denoiser.to(device).eval()
    order = np.random.default_rng(request.seed).permutation(len(held_out))[: request.items]
    frames = to_batch(mol, held_out[order], dtype=torch.float32).to(device)
    process = denoiser.process
    x1 = process.project(frames.x, frames.mask)
    noised = {}
    for t in levels:
        generator = torch.Generator(device).manual_seed(request.seed + 1)
        times = torch.full((len(x1),), t, device=device)
        noised[t] = times, process.perturb(x1, times, generator=generator, mask=frames.mask)

    batches = []
    for start in range(
        0, len(x1), _BATCH
    ):  # level after level within, so that a budget cuts all of them alike
        part = slice(start, start + _BATCH)
        for t, (times, xt) in noised.items():
            labels = frames[part]
            batches.append(
                AuditBatch(xt[part], x1[part], (times[part], labels), labels.mask, level=t)
            )

    return AuditSubject(
        title=title,
        model=denoiser,
        group=_group(request.group, mol, held_out[0]),
        batches=batches,
        outputs="vector",
        units={"prediction": "Å"},
        what="the error of the denoised structure",
        parameters=sum(p.numel() for p in denoiser.parameters()),
        levels="noise level t",
        answer="denoised structure",
        notes=(_noise(process, levels),),
        chunk=256,
    )


def _group(name: str, mol: Chem.Mol, frame: np.ndarray) -> Group:
    """Permutations of a molecule are those that its graph and handedness allow."""
    if name in ROTATIONS:
        return ROTATIONS[name]()
    group = Automorphism.from_mol(mol, frame)
    if group.order == 1:
        raise InputError(
            "this molecule has no automorphisms to permute its atoms by; audit so3 or o3"
        )
    return group


def _noise(process: GaussianProcess, levels: Sequence[float]) -> str:
    t = torch.tensor(levels, dtype=torch.float64)
    ratio = (process.sigma(t) / process.alpha(t)).tolist()
    text = ", ".join(
        f"{level:g}: {value:.3g} Å" for level, value in zip(levels, ratio, strict=True)
    )
    return f"Noise against signal, σ/α, at t = {text}."
