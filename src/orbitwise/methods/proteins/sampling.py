"""Draw backbones: lengths, noise, integration, and the files they are left in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from orbitwise.data.archive import Array, read_archive
from orbitwise.data.folder import replacing
from orbitwise.data.record import record_of
from orbitwise.errors import InputError
from orbitwise.processes.sampling import STEPPERS, edm_grid
from orbitwise.processes.sampling import sample as integrate
from orbitwise.proteins.chain import LONGEST, Chain, blank_batch
from orbitwise.proteins.files import write_pdb
from orbitwise.runs.config import Config
from orbitwise.training.progress import Progress, ProgressBar

NPZ, FOLDER = "samples.npz", "samples"
_DRAWN = {
    "positions_angstrom": Array("f", "residues atoms 3", finite=True),
    "lengths": Array("i", "M"),
    "evaluations": Array("i", ""),
}


class ProteinSamplingConfig(Config):
    """``lengths`` in residues, each drawn equally often (none: as the training chains);
    ``noise_min``: noise in Å at which the last step stands; ``batch_size`` bounds the memory. Fresh
    noise in every step (``ancestral``) lets the model mend its earlier errors: far better samples
    than the flow's own equation at equal network calls."""

    stepper: Literal["heun", "euler", "ancestral"] = "ancestral"
    steps: int = Field(100, ge=2)
    noise_min: float = Field(0.02, gt=0)
    lengths: tuple[int, ...] = ()
    batch_size: int = Field(64, ge=1)


@dataclass(frozen=True)
class DrawnChains:
    """Sampled chains, and network evaluations per sample."""

    chains: list[Chain]
    evaluations: int


def draw(
    denoiser: nn.Module,
    config: ProteinSamplingConfig,
    training_lengths: Sequence[int],
    n: int,
    seed: int,
    device: str,
    *,
    horizontal: bool = False,
) -> DrawnChains:
    """``n`` backbones from ``denoiser(x_t, t, chain)``, which has a ``process`` and a ``network``
    with ``atoms``; ``horizontal`` as in ``processes.sample``.

    Raises ``InputError`` for lengths that the model cannot have, and where a sample is not finite.
    """
    generator = torch.Generator(device).manual_seed(seed)
    lengths = _lengths(config.lengths, training_lengths, n, seed)
    denoiser = denoiser.to(device).eval()
    grid = edm_grid(denoiser.process, config.steps, noise_min=config.noise_min)
    order = lengths.argsort(stable=True)  # chains of like lengths together: little padding
    found: dict[int, np.ndarray] = {}
    calls = 0
    with ProgressBar("sampling") as bar:
        for start in range(0, n, config.batch_size):  # chunks of memory
            own = order[start : start + config.batch_size]
            batch = blank_batch(lengths[own].to(device), denoiser.network.atoms)
            done = integrate(
                lambda xt, t, batch=batch: denoiser(xt, t, batch),
                denoiser.process,
                batch.x.shape,
                grid=grid,
                stepper=STEPPERS[config.stepper](),
                mask=batch.mask,
                generator=generator,
                dtype=batch.x.dtype,
                horizontal=horizontal,
                progress=lambda k, of, at=start, size=len(own): bar(
                    Progress(at + size * k // of, n)
                ),
            )
            if not bool(done.x.isfinite().all()):
                raise InputError(
                    "the samples are not finite: the model is not trained far enough to be sampled"
                )
            x = done.x.unflatten(1, (-1, batch.atoms)).double().cpu().numpy()
            found |= dict(zip(own.tolist(), x, strict=True))
            calls = done.evaluations

    chains = [
        Chain(found[i][:length], "X" * length, f"sample_{i + 1:04d}")
        for i, length in enumerate(lengths.tolist())
    ]
    return DrawnChains(chains, calls)


def _lengths(wanted: Sequence[int], training: Sequence[int], n: int, seed: int) -> Tensor:
    """``n`` lengths: those wanted in turn, or drawn from the training chains."""
    if n < 1:
        raise InputError(f"n must be at least 1, got {n}")
    if wanted:
        if bad := [k for k in wanted if not 4 <= k <= LONGEST]:
            raise InputError(f"sampling.lengths: {bad[0]} residues; give 4 to {LONGEST}")
        return torch.tensor(wanted)[torch.arange(n) % len(wanted)]
    drawn = torch.randint(len(training), (n,), generator=torch.Generator().manual_seed(seed))
    return torch.tensor(list(training))[drawn]


def save_chains(folder: Path, drawn: DrawnChains) -> None:
    """``samples.npz`` (positions one chain after the other) and one PDB file each in
    ``samples/``."""
    with replacing(folder / NPZ) as temporary:
        np.savez(
            temporary,
            positions_angstrom=np.concatenate([c.xyz for c in drawn.chains]),
            lengths=np.array([len(c) for c in drawn.chains]),
            evaluations=drawn.evaluations,
        )
    files = [folder / FOLDER / f"{chain.name}.pdb" for chain in drawn.chains]
    for file, chain in zip(files, drawn.chains, strict=True):
        write_pdb(file, chain)
    record = record_of(folder / NPZ)
    if record is not None:
        record.drop(f"{FOLDER}/*.pdb", but=files)  # of an earlier, larger draw


def load_chains(folder: Path) -> DrawnChains:
    """What ``save_chains`` left; raises ``InputError`` where there is nothing."""
    if not (folder / NPZ).is_file():
        raise InputError(
            f"{folder}: there are no samples yet; draw some with: orbitwise sample {folder}"
        )
    file = read_archive(folder / NPZ, _DRAWN)
    parts = np.split(file["positions_angstrom"], np.cumsum(file["lengths"])[:-1])
    calls = int(file["evaluations"])
    return DrawnChains(
        [Chain(x, "X" * len(x), f"sample_{k:04d}") for k, x in enumerate(parts, 1)], calls
    )
