"""A trained crystal model as it is used: loaded from a run or a packaged checkpoint, drawing
structures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from orbitwise.crystals.crystal import Crystal, CrystalBatch
from orbitwise.crystals.denoiser import CrystalDenoiser
from orbitwise.crystals.domain import Domain
from orbitwise.crystals.matching.consensus import chosen, picked
from orbitwise.crystals.sampling import CrystalEstimate, Estimator
from orbitwise.data.folder import replacing
from orbitwise.data.tensors import intact, sealed
from orbitwise.errors import InputError
from orbitwise.methods.crystals.parts import CrystalModelConfig, CrystalSamplingConfig
from orbitwise.networks.former import upgraded
from orbitwise.runs.config import load_run, validate
from orbitwise.runs.said import Stored
from orbitwise.training.checkpoint import NAME, check_finite, check_weights, read_checkpoint

FORMAT = "orbitwise-crystal-model-1"
SHIPPED = Path(__file__).parents[1] / "checkpoints" / "perov5.safetensors"


@dataclass(frozen=True)
class CrystalModel:
    """A trained denoiser with what is needed to use it."""

    denoiser: CrystalDenoiser
    sampling: CrystalSamplingConfig
    domain: Domain

    def draw(
        self,
        batch: CrystalBatch,
        generator: torch.Generator,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[CrystalBatch, int]:
        """New structures for the atoms of ``batch`` (its coordinates and cells are not looked at),
        and network calls per sample. Raises ``InputError`` for texts that the model does not
        take."""
        times = self.sampling.consensus
        parts = [None if progress is None else _part(progress, k, times) for k in range(times)]
        rounds = [self.draw_once(batch, generator, part) for part in parts]
        frac, lattice = picked(rounds, chosen(rounds, 1))
        return batch.with_structure(frac[0], lattice[0]), self.sampling.evaluations

    def draw_once(
        self,
        batch: CrystalBatch,
        generator: torch.Generator,
        progress: Callable[[int, int], None] | None = None,
    ) -> CrystalBatch:
        """As ``draw`` without a consensus."""
        den = self.denoiser
        done = self.sampling.build().sample(
            self._estimator(batch),
            den.process,
            batch.mask,
            self.sampling.grid(),
            generator=generator,
            progress=progress,
        )
        return batch.with_structure(done.frac, den.lattice(done.cell, batch.atoms))

    def _estimator(self, batch: CrystalBatch) -> Estimator:
        """The denoiser for the atoms and texts of ``batch``, with guidance where it is asked
        for."""
        den, w = self.denoiser, self.sampling.guidance
        if batch.prompt is not None and not den.prompted:
            raise InputError("this model was trained without texts; leave the prompt out")
        if batch.prompt is not None and batch.prompt.shape[-1] != den.prompt_mean.shape[-1]:
            raise InputError(
                f"texts have {batch.prompt.shape[-1]} numbers, the model takes"
                f" {den.prompt_mean.shape[-1]}"
            )
        if w is None:
            return lambda frac, cell, t: den(frac, cell, t, batch)
        if batch.prompt is None:
            raise InputError("sampling.guidance needs a prompt; leave it out")
        silent = batch.with_prompt(None)

        def guided(frac: Tensor, cell: Tensor, t: Tensor) -> CrystalEstimate:
            pairs = zip(den(frac, cell, t, silent), den(frac, cell, t, batch), strict=True)
            return CrystalEstimate(*((1 - w) * without + w * with_ for without, with_ in pairs))

        return guided

    def draw_crystals(
        self,
        species: np.ndarray,
        n: int,
        seed: int = 0,
        *,
        prompt: Tensor | None = None,
        device: str = "cpu",
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Crystal]:
        """``n`` structures of a cell with the atomic numbers ``species: (N,)``; ``prompt: (1 + N,
        P)`` embeddings of a text and of what it says about each atom
        (``crystal_text.text_vectors``), or ``(P,)`` of the text alone.

        Structures that are not finite are left out. Raises ``InputError`` for an element outside
        the domain.
        """
        unknown = sorted(set(map(int, species)) - set(self.domain.elements))
        if unknown:
            raise InputError(f"the model has never seen atomic numbers {unknown}")
        atoms = torch.as_tensor(np.asarray(species, dtype=np.int64), device=device).expand(n, -1)
        batch = CrystalBatch(
            torch.zeros(*atoms.shape, 3, device=device),
            torch.eye(3, device=device).expand(n, 3, 3),
            atoms,
            torch.ones_like(atoms, dtype=torch.bool),
            (
                None
                if prompt is None
                else prompt.to(device).view(-1, prompt.shape[-1]).expand(n, -1, -1)
            ),
        )
        self.denoiser.to(device).eval()
        drawn, _ = self.draw(batch, torch.Generator(device).manual_seed(seed), progress)
        whole = (
            drawn.frac.isfinite().all((1, 2)) & drawn.lattice.isfinite().all((1, 2))
        ).nonzero()[:, 0]
        return drawn[whole].crystals() if len(whole) else []


def _part(progress: Callable[[int, int], None], k: int, of: int) -> Callable[[int, int], None]:
    """Progress of the k-th of several equal parts."""
    return lambda done, steps: progress(k * steps + done, of * steps)


def load_model(path: str | Path | None = None, *, trust: bool = False) -> CrystalModel:
    """From a run folder (its averaged weights) or a packaged file; none: the one that comes with
    the package. A network of one's own that the file names is made with ``trust`` only. Raises
    ``InputError`` for anything else."""
    if path is None and not SHIPPED.is_file():
        raise InputError(
            "this installation has no packaged crystal model; give a trained run with --run FOLDER"
        )
    path = Path(path or SHIPPED)
    if path.is_dir():
        saved = read_checkpoint(path / NAME)
        # how to sample may be changed in config.yaml after the training
        run = load_run(path, trust=trust)
        there = saved.config.get("run")
        header = there if isinstance(there, dict) else {}
        header = header | {"sampling": run.resolved().get("sampling")}
        weights, path = saved.ema, path / NAME
    else:
        header, weights = _packaged(path)
    if any(not isinstance(header.get(part), dict) for part in ("domain", "model", "sampling")):
        raise InputError(f"{path}: this run is not one of crystal structures")
    stored = Stored(str(path), trust)
    config = validate(CrystalModelConfig, header["model"], stored=stored)
    sampling = validate(CrystalSamplingConfig, header["sampling"], stored=stored)
    denoiser = config.denoiser(torch.zeros(6), torch.ones(6))
    weights = upgraded(denoiser, weights)
    check_weights(path, weights, denoiser)
    check_finite(path, weights)
    denoiser.load_state_dict(weights)
    return CrystalModel(denoiser.eval(), sampling, _domain(path, header["domain"]))


def _packaged(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and weights of what ``package`` wrote."""
    try:
        with safe_open(str(path), framework="pt") as file:
            told = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        if told.get("format") != FORMAT:
            raise InputError(f"{path}: not a packaged crystal model")
        header = json.loads(told["header"])
        sound = intact(weights, told)
    except KeyError as error:
        raise InputError(f"{path}: a packaged crystal model has a {error} in its header") from error
    except (*(SafetensorError, OSError, RuntimeError), *(ValueError, RecursionError)) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as a crystal model ({error})") from error
    if not sound or not isinstance(header, dict):
        raise InputError(f"{path}: the file is damaged (its content is not what was written)")
    return header, {key: value.float() for key, value in weights.items()}


def _domain(path: Path, told: dict[str, Any]) -> Domain:
    try:
        ratios = tuple(tuple(map(int, ratio)) for ratio in told["ratios"])
        elements = tuple(map(int, told["elements"]))
        counts = {key: int(told[key]) for key in ("smallest", "largest", "crystals")}
        return Domain(**told | counts | {"ratios": ratios, "elements": elements})
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{path}: its header's 'domain' is none ({error})") from error


def package(model: CrystalModel, config: CrystalModelConfig, path: str | Path) -> Path:
    """Write the weights in half precision with all that ``load_model`` needs; raises ``InputError``
    on a full disk."""
    header = {
        "model": config.model_dump(mode="json"),
        "sampling": model.sampling.model_dump(mode="json"),
        "domain": asdict(model.domain),
    }
    weights = {k: v.half().contiguous() for k, v in model.denoiser.state_dict().items()}
    with replacing(path) as temporary:
        told = {"format": FORMAT, "header": json.dumps(header)}
        save_file(weights, temporary, metadata=sealed(weights, told))
    return Path(path)
