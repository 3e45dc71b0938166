"""Finished stages of a pipeline on disk: kept through crashes and interruptions, reused by the next
run."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from orbitwise.data.folder import replacing
from orbitwise.energies.counted import Count
from orbitwise.errors import InputError


@dataclass(frozen=True)
class Stage:
    """What a stage left: tensors and a small JSON-able dictionary."""

    tensors: dict[str, Tensor]
    info: dict


class Stages:
    """Stages of one output folder, each in ``FOLDER/stages/NAME.safetensors``.

    A stage belongs to a *key*: the settings that it and the stages before it depend on. A stage
    with another key is not reused. Files are written to a temporary name and moved, so a killed
    process never leaves half a stage.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder) / "stages"
        self.reused: list[str] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / ".writable"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"cannot write to the output folder {Path(folder)} ({error.strerror}); choose"
                " another with --out"
            ) from error

    @staticmethod
    def digest(key: dict) -> str:
        return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()

    def load(self, name: str, key: dict) -> Stage | None:
        """The stage, or None where it is missing, unreadable, or was made with other settings."""
        path = self.folder / f"{name}.safetensors"
        try:
            with safe_open(path, framework="pt") as file:
                meta = file.metadata() or {}
                if meta.get("key") != self.digest(key):
                    return None
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError):
            return None
        self.reused.append(name)
        return Stage(tensors, json.loads(meta["info"]))

    def save(self, name: str, key: dict, tensors: dict[str, Tensor], info: dict) -> Stage:
        """Keep a finished stage; raises ``InputError`` where the disk does not take it."""
        path = self.folder / f"{name}.safetensors"
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        about = {"key": self.digest(key), "info": json.dumps(info)}
        try:
            with replacing(path, durable=True) as temporary:
                save_file(tensors, temporary, metadata=about)
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot write {path}: {error}; earlier stages are kept") from error
        return Stage(tensors, info)


class Pipeline:
    """Stages in order, each computed once and kept with its time and its evaluations.

    ``counts``: those of the run's ``Counted`` energy; what a reused stage spent is added to them.
    ``key``: the settings that the coming stages depend on, which may grow on the way; ``seconds``
    by stage.
    """

    def __init__(self, stages: Stages, counts: dict[str, Count], key: dict):
        self.stages, self.counts, self.key = stages, counts, key
        self.seconds: dict[str, float] = {}

    def stage(self, name: str, make: Callable[[], tuple[dict[str, Tensor], dict]]) -> Stage:
        """``make() -> (tensors, info)`` unless the stage is there; later stages depend on this
        one."""
        found = self.stages.load(name, self.key)
        if found is None:
            before = {k: (c.energy, c.gradient) for k, c in self.counts.items()}
            begin = time.monotonic()
            tensors, info = make()
            spent = {
                k: (c.energy - before.get(k, (0, 0))[0], c.gradient - before.get(k, (0, 0))[1])
                for k, c in self.counts.items()
            }
            info = info | {"seconds": time.monotonic() - begin, "evaluations": spent}
            found = self.stages.save(name, self.key, tensors, info)
        else:
            for k, (energy, gradient) in found.info["evaluations"].items():
                count = self.counts[k]
                self.counts[k] = Count(count.energy + energy, count.gradient + gradient)
        self.seconds[name] = found.info["seconds"]
        return found
