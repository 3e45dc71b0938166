"""Finished stages of a pipeline on disk: kept through crashes and interruptions, reused by the next
run."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from orbitwise.data.folder import replacing
from orbitwise.data.tensors import intact, read_tensors, sealed
from orbitwise.energies.counted import Count
from orbitwise.errors import InputError


@dataclass(frozen=True)
class Stage:
    """What a stage left: tensors and a small JSON-able dictionary."""

    tensors: dict[str, Tensor]
    info: dict

    def to(self, device: torch.device | str | None) -> Stage:
        return Stage({k: v.to(device) for k, v in self.tensors.items()}, self.info)


class Kept:
    """A dataclass that a stage leaves: its tensors are kept as tensors, its other fields as JSON.

    ``kept_as``: the names on disk of fields that are called otherwise there. A field that an
    earlier version did not keep gets its default.
    """

    kept_as: ClassVar[Mapping[str, str]] = {}

    def stage(self) -> Stage:
        values = {self.kept_as.get(f.name, f.name): getattr(self, f.name) for f in fields(self)}
        tensors = {k: v for k, v in values.items() if isinstance(v, Tensor)}
        return Stage(tensors, {k: v for k, v in values.items() if k not in tensors})

    @classmethod
    def of(cls, stage: Stage) -> Self:
        values = stage.info | stage.tensors
        names = {f.name: cls.kept_as.get(f.name, f.name) for f in fields(cls)}
        return cls(**{name: values[key] for name, key in names.items() if key in values})


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
        """The stage, or None where it is missing, was made with other settings, or is damaged: then
        a line says so."""
        path = self.folder / f"{name}.safetensors"
        try:
            stage, its_key = read_stage(path)
        except FileNotFoundError:
            return None
        except InputError as error:
            _say(f"note: {error}; it is made again")
            return None
        if its_key != self.digest(key):
            return None
        self.reused.append(name)
        return stage

    def made_otherwise(self, name: str, key: dict) -> bool:
        """Whether there is such a stage, undamaged, of other settings."""
        try:
            return read_stage(self.folder / f"{name}.safetensors")[1] != self.digest(key)
        except (OSError, InputError):
            return False

    def save(self, name: str, key: dict, tensors: dict[str, Tensor], info: dict) -> Stage:
        """Keep a finished stage; raises ``InputError`` where the disk does not take it."""
        path = self.folder / f"{name}.safetensors"
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        about = sealed(tensors, {"key": self.digest(key), "info": json.dumps(info)})
        try:
            with replacing(path, durable=True) as temporary:
                save_file(tensors, temporary, metadata=about)
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot write {path}: {error}; earlier stages are kept") from error
        return Stage(tensors, info)


def read_stage(path: Path) -> tuple[Stage, str]:
    """A stage with the digest of its settings. Raises ``FileNotFoundError``, and ``InputError`` for
    what cannot be read or is not what was written."""
    try:
        tensors, told = read_tensors(path)
        info, key = json.loads(told["info"]), told["key"]
        sound = isinstance(info, dict) and intact(tensors, told)
    except FileNotFoundError:
        raise
    except (*(OSError, SafetensorError, RuntimeError), *(ValueError, KeyError)) as error:
        said = f"has no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{path} is damaged ({said})") from error
    if not sound:
        raise InputError(f"{path} is damaged (its content is not what was written)")
    return Stage(tensors, info), key


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """The seconds of a block, under its name."""
    begin = time.monotonic()
    try:
        yield
    finally:
        seconds[name] = time.monotonic() - begin


Result = TypeVar("Result")


class Step(Generic[Result]):
    """One stage of a pipeline: ``name`` of its file, and the type of what it ``makes``.

    ``make`` computes it, from what the stages before it left (``pipe[Type]``); ``keep`` and
    ``restore`` are its way to the disk and back, by default those of its type (``Kept``).
    """

    name: str
    makes: type[Result]
    # work that nobody would like to see replaced because a setting was changed
    precious: ClassVar[bool] = False

    @property
    def key(self) -> dict:
        """Settings that this stage and those after it depend on, beside those of the stages
        before."""
        return {}

    def settles(self, result: Result) -> dict:
        """Settings that the stages after it depend on once it is there, in place of others."""
        return {}

    def make(self, pipe: Pipeline) -> Result:
        raise NotImplementedError

    def finished(self, result: Result) -> bool:
        """Whether a result from the disk is all that is asked for; else ``make`` goes on from it
        (it is ``pipe[self.makes]`` by then)."""
        return True

    def keep(self, result: Result) -> Stage:
        return result.stage()

    def restore(self, stage: Stage, pipe: Pipeline) -> Result:
        return self.makes.of(stage)


class Pipeline:
    """Stages in order, each computed once and kept with its time and its evaluations.

    ``counts``: those of the run's ``Counted`` energy; what a reused stage spent is added to them.
    ``key``: the settings that the coming stages depend on, which grow on the way; ``seconds`` by
    stage. Results are read on ``device``; ``pipe[Type]`` is the latest one of a type.
    """

    def __init__(
        self,
        folder: str | Path,
        counts: dict[str, Count],
        key: dict,
        device: torch.device | str = "cpu",
    ):
        self.stages, self.counts, self.key, self.device = Stages(folder), counts, key, device
        self.seconds: dict[str, float] = {}
        self._results: dict[type, object] = {}
        self._before: dict[str, tuple[int, int]] = {}
        self._begin = time.monotonic()

    def __getitem__(self, kind: type[Result]) -> Result:
        return self._results[kind]

    def get(self, kind: type[Result]) -> Result | None:
        """The latest result of a type, or None where no stage has left one."""
        return self._results.get(kind)

    @property
    def digest(self) -> str:
        """Stands for the settings so far: half-finished work is resumed under the same only."""
        return Stages.digest(self.key)[:8]

    def run(self, steps: Iterable[Step]) -> None:
        """All of them, each computed where it is missing."""
        for step in steps:
            self.take(step)

    def take(self, step: Step[Result]) -> Result:
        """The result of one stage, computed unless it is there; later stages depend on this one."""
        self.key |= step.key
        self._before, self._begin = self._spent(), time.monotonic()
        stage = self.stages.load(step.name, self.key)
        if step.precious:
            self.refuse_loss(step.name, self.key)

        if stage is not None:
            self._taken_up(step, stage)

        if stage is None or not step.finished(self._results[step.makes]):
            stage = self.save(step, step.make(self))
            self._results[step.makes] = step.restore(stage.to(self.device), self)

        self.seconds[step.name] = stage.info["seconds"]
        result = self._results[step.makes]
        self.key |= step.settles(result)
        return result

    def _taken_up(self, step: Step, stage: Stage) -> None:
        """A stage of an earlier command; ``InputError`` where it lacks something."""
        try:
            spent = {k: Count(*map(int, both)) for k, both in stage.info["evaluations"].items()}
            seconds = float(stage.info["seconds"])
            result = step.restore(stage.to(self.device), self)
        except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            if isinstance(error, InputError):
                raise
            said = f"has no {error}" if isinstance(error, KeyError) else error
            raise InputError(
                f"{self.stages.folder / step.name}.safetensors cannot be used ({said}); delete it"
                " and run the same command again"
            ) from error
        for k, more in spent.items():
            count = self.counts[k]
            self.counts[k] = Count(count.energy + more.energy, count.gradient + more.gradient)
        self.seconds[step.name], self._results[step.makes] = seconds, result

    def refuse_loss(self, name: str, key: dict) -> None:
        """``InputError`` where the stage ``name`` is there, and of other settings than ``key``."""
        if self.stages.made_otherwise(name, key):
            raise InputError(
                f"{self.stages.folder.parent} holds a finished {name} of other settings or of"
                " another version, which would be lost; choose another folder with --out"
            )

    def save(self, step: Step[Result], result: Result) -> Stage:
        """Keep what a stage has so far, with its time and its evaluations."""
        made, before = step.keep(result), self._before
        spent = {
            k: (energy - before.get(k, (0, 0))[0], gradient - before.get(k, (0, 0))[1])
            for k, (energy, gradient) in self._spent().items()
        }
        seconds = self.seconds.get(step.name, 0.0) + time.monotonic() - self._begin
        info = made.info | {"seconds": seconds, "evaluations": spent}
        return self.stages.save(step.name, self.key, made.tensors, info)

    def _spent(self) -> dict[str, tuple[int, int]]:
        return {k: (c.energy, c.gradient) for k, c in self.counts.items()}
