"""A training as a run: from its first step on, its folder says which configuration it has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from orbitwise.runs.config import Config, save_run


class Trained(Protocol):
    """What a training left; ``training.TrainResult`` is one."""

    @property
    def steps(self) -> int: ...
    @property
    def loss(self) -> float | None: ...
    @property
    def seconds(self) -> float: ...


Result = TypeVar("Result", bound=Trained)


def train_run(
    config: Config,
    out: Path,
    fit: Callable[[Path, dict[str, Any]], Result],
    *,
    begun: bool,
    apart_from: Collection[str] = (),
    facts: Mapping[str, Any] | None = None,
) -> Result:
    """``fit(out, key)``, with the configuration in ``out/config.yaml`` before and after.

    The key says what the weights depend on, and a training is resumed only under the key that it
    was begun with: the configuration without ``train`` (which the checkpoint compares on its own)
    and ``apart_from``, and ``facts`` that it does not hold, such as a digest of the data.
    ``begun``: there is a checkpoint. Paths are saved as absolute ones, so that a run can be used
    from any folder.
    """
    config = config.model_copy(update=_absolute(config))
    if not begun:  # a checkpoint of another configuration is refused below, and its file kept
        save_run(config, out)

    key = config.model_dump(mode="json", exclude={"train", *apart_from}) | dict(facts or {})
    result = fit(out, key)

    save_run(config, out)
    return result


def _absolute(config: Config) -> dict[str, Any]:
    """The paths of a configuration, in full."""
    found: dict[str, Any] = {}
    for name, value in config:
        if isinstance(value, Path):
            found[name] = value.resolve()
        elif isinstance(value, tuple) and any(isinstance(part, Path) for part in value):
            found[name] = tuple(part.resolve() for part in value)
    return found


def in_words(out: Path, result: Trained) -> str:
    """What a training came to."""
    loss = "" if result.loss is None else f", loss {result.loss:.4g}"
    return f"{out}: {result.steps} steps{loss}, {result.seconds:.0f} s of training"


def unfinished(step: int, steps: int) -> list[str]:
    """What to say of samples whose weights stand at ``step`` of a training of ``steps``."""
    return [f"warning: the training stands at step {step} of {steps}"] if step < steps else []
