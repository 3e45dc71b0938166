"""Checkpoints: one safetensors file with the resolved configuration in its header, replaced
atomically.

No pickle anywhere, and no random state either: every random number of a step is a function of the
seed and the step (see ``loop``), so the step number is the state of the random stream, on every
process.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orbitwise.data.folder import replacing
from orbitwise.data.tensors import intact, read_tensors, sealed
from orbitwise.errors import InputError, OrbitwiseError
from orbitwise.networks.former import upgraded

FORMAT = "orbitwise-checkpoint-1"
NAME = "checkpoint.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on. ``optimizer`` maps a parameter's name to its state tensors.

    ``config`` is the resolved configuration of the run; ``seconds`` is the training time so far,
    ``skipped`` the number of steps whose gradient was not finite. ``objective``: what an objective
    remembers between steps.
    """

    step: int
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, dict[str, Tensor]]
    config: dict[str, Any]
    seconds: float = 0.0
    skipped: int = 0
    objective: dict[str, Tensor] = field(default_factory=dict)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically: whatever happens, ``path`` holds the old file or the new one, whole.

    Raises ``OrbitwiseError`` when the file cannot be written (disk full, no permission); the old
    one stays.
    """
    from safetensors.torch import save

    tensors = {f"model/{k}": v for k, v in checkpoint.model.items()}
    tensors |= {f"ema/{k}": v for k, v in checkpoint.ema.items()}
    tensors |= {f"objective/{k}": v for k, v in checkpoint.objective.items()}
    tensors |= {
        f"optimizer/{k}/{s}": v
        for k, state in checkpoint.optimizer.items()
        for s, v in state.items()
    }
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    header = {
        "format": FORMAT,
        "step": str(checkpoint.step),
        "seconds": repr(checkpoint.seconds),
        "skipped": str(checkpoint.skipped),
        "config": json.dumps(checkpoint.config, sort_keys=True),
    }
    _replace(Path(path), save(tensors, metadata=sealed(tensors, header)))


def _replace(path: Path, content: bytes) -> None:
    try:
        with replacing(path, durable=True) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        kept = " The previous checkpoint is intact." if path.exists() else ""
        raise OrbitwiseError(
            f"cannot write the checkpoint {path}: {error.strerror or error}.{kept} Free space or"
            " choose another output folder, then repeat the command to resume."
        ) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what ``write_checkpoint`` wrote. Raises ``InputError`` for a missing or damaged file,
    naming the key of its header that is wrong."""
    from safetensors import SafetensorError

    parts: dict[str, dict[str, Any]] = {"model": {}, "ema": {}, "optimizer": {}, "objective": {}}
    try:
        found, header = read_tensors(path)
        if header.get("format") != FORMAT:
            raise InputError(
                f"{path} is not an Orbitwise checkpoint (format {header.get('format')!r})"
            )
        if not intact(found, header):
            raise InputError(
                f"{path}: the file is damaged (its content is not what was written);"
                " delete it to start anew"
            )
        for key, tensor in found.items():
            part, _, name = key.partition("/")
            if part not in parts or not name or (part == "optimizer" and "/" not in name):
                raise InputError(f"{path}: a checkpoint has no tensor {key!r}")
            if part == "optimizer":
                name, slot = name.rsplit("/", 1)
                parts[part].setdefault(name, {})[slot] = tensor
            else:
                parts[part][name] = tensor
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(
            f"cannot read the checkpoint {path}: {error}. Delete it to start anew."
        ) from error
    config = _told(path, header, "config", json.loads)
    if not isinstance(config, dict):
        raise InputError(f"{path}: the header's 'config' is no table")
    return Checkpoint(
        step=_told(path, header, "step", _count),
        config=config,
        seconds=_told(path, header, "seconds", _seconds),
        skipped=_told(path, header, "skipped", _count),
        **parts,
    )


def _told(path: Path, header: Mapping[str, str], key: str, read: Callable[[str], Any]) -> Any:
    """A value of a checkpoint's header."""
    try:
        return read(header[key])
    except KeyError:
        raise InputError(
            f"{path}: its header has no {key!r}; delete the file to start anew"
        ) from None
    except (ValueError, RecursionError):
        raise InputError(
            f"{path}: its header's {key!r} cannot be {header[key][:40]!r}; delete the file to start"
            " anew"
        ) from None


def _count(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**63:
        raise ValueError(text)
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError(text)
    return number


def load_weights(path: Path, model: nn.Module, averaged: bool = True) -> Checkpoint:
    """Put a checkpoint's weights (the averaged ones by default) into ``model``; returns the
    checkpoint.

    Raises ``InputError`` where names or shapes differ, naming the first ones, and for weights that
    are not finite.
    """
    checkpoint = read_checkpoint(path)
    weights = upgraded(model, checkpoint.ema if averaged else checkpoint.model)
    check_weights(path, weights, model)
    check_finite(path, weights)
    model.load_state_dict(weights)
    return checkpoint


def check_weights(path: Path, weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Raise ``InputError`` unless ``weights`` fit ``model`` by name and shape."""
    have = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    want = {k: tuple(v.shape) for k, v in weights.items()}
    wrong = sorted(k for k in have.keys() | want.keys() if have.get(k) != want.get(k))
    if wrong:
        shown = ", ".join(f"{k} (model {have.get(k)}, file {want.get(k)})" for k in wrong[:3])
        raise InputError(
            f"{path} does not fit this model: {len(wrong)} tensors differ, such as {shown}"
        )


def check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise ``InputError`` for weights that are no numbers."""
    bad = next((k for k, v in weights.items() if not torch.isfinite(v).all()), None)
    if bad is not None:
        raise InputError(f"{path}: the weights are not finite, such as {bad}; train the run again")


def check_config(
    path: Path, old: Mapping[str, Any], new: Mapping[str, Any], neutral: frozenset[str]
) -> None:
    """Raise ``InputError`` naming the keys in which two configurations differ.

    ``neutral``: last parts of keys that do not change the result and may differ.
    """
    a, b = flatten(old), flatten(json.loads(json.dumps(new)))
    keys = sorted(
        k for k in a.keys() | b.keys() if a.get(k) != b.get(k) and k.split(".")[-1] not in neutral
    )
    if keys:
        shown = "; ".join(
            f"{k}: {a.get(k, 'not set')!r} before, {b.get(k, 'not set')!r} now" for k in keys
        )
        raise InputError(
            f"{path} belongs to another configuration ({shown}). Choose another output folder,"
            " delete the old one, or restore the configuration."
        )


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def optimizer_state(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, dict[str, Tensor]]:
    """The optimizers' state by parameter name."""
    states = {p: state for optimizer in optimizers for p, state in optimizer.state.items()}
    return {name: dict(states[p]) for name, p in model.named_parameters() if p in states}


def restore_optimizer(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    state: Mapping[str, Mapping[str, Tensor]],
    path: Path = Path(NAME),
) -> None:
    """Put back what ``optimizer_state`` took; torch moves every tensor to where the optimizer wants
    it. Raises ``InputError`` where the state of a parameter lacks what others have or has another
    shape."""
    name_of = {p: name for name, p in model.named_parameters()}
    slots = dict.fromkeys(slot for values in state.values() for slot in values)
    by_slot = {s: upgraded(model, {k: v[s] for k, v in state.items() if s in v}) for s in slots}
    for optimizer in optimizers:
        order = [name_of[p] for group in optimizer.param_groups for p in group["params"]]
        groups = optimizer.state_dict()["param_groups"]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        states = {
            i: {slot: values[name] for slot, values in by_slot.items() if name in values}
            for i, name in enumerate(order)
            if name in state
        }
        every = set().union(*states.values())
        for i, slots in states.items():
            shape = tuple(parameters[i].shape)
            wrong = [s for s, v in slots.items() if tuple(v.shape) not in ((), shape)]
            if wrong := sorted(every - slots.keys()) or wrong:
                raise InputError(
                    f"{path}: the optimiser's {wrong[0]!r} of {order[i]} is missing or of another"
                    " shape; delete the file to start anew"
                )
        optimizer.load_state_dict({"state": states, "param_groups": groups})
