"""Structures guessed for many compositions, one file for each draw, kept as they are finished."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from orbitwise.crystals.crystal import Crystal, CrystalBatch
from orbitwise.crystals.matching.consensus import chosen, picked
from orbitwise.data.record import record_of
from orbitwise.errors import InputError
from orbitwise.methods.crystals.model import CrystalModel
from orbitwise.runs.stages import Stage, Stages, read_stage
from orbitwise.training.order import mix
from orbitwise.training.progress import Progress, ProgressBar


@dataclass(frozen=True)
class GuessedCrystals:
    """``frac: (G, B, N, 3)``, ``lattice: (G, B, 3, 3)`` in Å of G guesses for the B crystals of
    ``batch``; ``evaluations``: network calls for each; ``seed``; ``consensus``: draws for each, of
    which they are chosen."""

    batch: CrystalBatch
    frac: Tensor
    lattice: Tensor
    evaluations: int
    seed: int
    seconds: float
    consensus: int = 1

    @property
    def guesses(self) -> int:
        return len(self.frac)

    def crystals(self) -> list[list[Crystal | None]]:
        """``[B][G]`` structures; None for one that is not finite or has no volume."""
        rounds = []
        for frac, lattice in zip(self.frac, self.lattice, strict=True):
            sound = frac.isfinite().all((1, 2)) & (torch.linalg.det(lattice.double()).abs() > 1e-3)
            some = CrystalBatch(
                frac[sound], lattice[sound], self.batch.species[sound], self.batch.mask[sound]
            )
            made = iter(some.crystals())
            rounds.append([next(made) if ok else None for ok in sound.tolist()])
        return [list(row) for row in zip(*rounds, strict=True)]

    @classmethod
    def load(cls, folder: str | Path, batch: CrystalBatch) -> GuessedCrystals:
        """All that were finished, of several draws for each guess those that represent them;
        ``InputError`` where there are none, they
        belong to other crystals, or a file is damaged."""
        folder = Path(folder)
        files = sorted((folder / "stages").glob("draw-*.safetensors"))
        if not files:
            raise InputError(
                f"{folder.parent}: there are no guesses yet; draw some with: orbitwise sample"
                f" {folder.parent}"
            )
        try:
            rounds = [read_stage(file)[0].tensors for file in files]
            species = rounds[-1]["species"]
        except InputError as error:
            raise InputError(f"{error}; delete the file and sample again") from error
        if species.shape != batch.species.shape or not torch.equal(species, batch.species):
            raise InputError(
                f"{folder}: these guesses are for other compositions; delete the folder and sample"
                " again"
            )
        keep = [r for r in rounds if r["seed"].item() == rounds[-1]["seed"].item()]
        draws = [batch.with_structure(r["frac"], r["lattice"]) for r in keep]
        consensus = int(keep[-1]["consensus"])
        guesses = max(1, len(draws) // consensus)
        return cls(
            batch,
            *picked(draws, chosen(draws, guesses)),
            int(keep[-1]["evaluations"]),
            int(keep[-1]["seed"]),
            float(sum(r["seconds"] for r in keep)),
            consensus,
        )


def guess(
    model: CrystalModel,
    batch: CrystalBatch,
    guesses: int,
    seed: int,
    folder: str | Path,
    device: str = "cpu",
) -> GuessedCrystals:
    """Draw ``guesses`` times ``consensus`` structures for every crystal of ``batch`` into
    ``folder``, a file each: an interrupted command goes on where it stopped. Those ``guesses`` of
    them that represent all are the guesses, the first one best. ``batch_size`` of the sampling
    bounds the memory."""
    stages = Stages(folder)
    weights = [float(p.detach().double().abs().sum()) for p in model.denoiser.parameters()]
    settings = {
        "weights": sum(weights),
        "sampling": model.sampling.model_dump(mode="json", exclude_none=True),
        "species": batch.species.tolist(),
        "seed": seed,
    }
    if batch.prompt is not None:
        settings["texts"] = sha256(batch.prompt.numpy().tobytes()).hexdigest()

    draws = guesses * model.sampling.consensus
    later = sorted((Path(folder) / "stages").glob("draw-*.safetensors"))[draws:]
    for k, file in enumerate(later, draws):
        if not stages.made_otherwise(file.stem, settings | {"round": k}):
            raise InputError(
                f"{folder} holds {(draws + len(later)) // model.sampling.consensus} guesses of this"
                f" model, more than the {guesses} asked for, which would be lost; ask for as many,"
                " or delete the folder"
            )

    model.denoiser.to(device).eval()
    with ProgressBar("guessing") as bar:
        for k in range(draws):
            key, name = settings | {"round": k}, f"draw-{k:05d}"

            def progress(done: int, k: int = k) -> None:
                bar(Progress(k * len(batch) + done, draws * len(batch)))

            if stages.load(name, key) is None:
                drawn = _round(model, batch, mix(seed, k), seed, device, progress)
                stages.save(name, key, drawn.tensors, drawn.info)
            progress(len(batch))

    for file in later:  # of other weights or another seed
        record = record_of(file)
        if record is not None and record.owns(file):
            file.unlink()
    return GuessedCrystals.load(folder, batch)


def _round(
    model: CrystalModel,
    batch: CrystalBatch,
    number: int,
    seed: int,
    device: str,
    progress: Callable[[int], None],
) -> Stage:
    """One draw for every crystal, those of one size together; ``number`` seeds it."""
    begin = time.perf_counter()
    frac, lattice = torch.zeros_like(batch.frac), torch.zeros_like(batch.lattice)
    generator = torch.Generator(device).manual_seed(number)
    order, done = batch.atoms.argsort(stable=True), 0
    for part in order.split(model.sampling.batch_size):
        some = batch[part].to(device)
        drawn = model.draw_once(some, generator)
        frac[part, : some.frac.shape[1]] = drawn.frac.cpu()
        lattice[part] = drawn.lattice.cpu()
        done += len(part)
        progress(done)

    numbers = {
        "seed": seed,
        "evaluations": model.sampling.evaluations,
        "consensus": model.sampling.consensus,
        "seconds": time.perf_counter() - begin,
    }
    tensors = {"frac": frac, "lattice": lattice, "species": batch.species}
    tensors |= {name: torch.tensor(float(value)) for name, value in numbers.items()}
    return Stage(tensors, numbers)
