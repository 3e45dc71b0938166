"""A damaged checkpoint is refused with the file and the key of its header."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from orbitwise.errors import InputError
from orbitwise.training.checkpoint import (
    Checkpoint,
    load_weights,
    read_checkpoint,
    write_checkpoint,
)


@pytest.fixture
def written(tmp_path):
    path, weights = tmp_path / "checkpoint.safetensors", nn.Linear(3, 2).state_dict()
    state = {"weight": {"exp_avg": torch.zeros(2, 3)}}
    write_checkpoint(path, Checkpoint(3, weights, weights, state, {"seed": 1}))
    return path


def header(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("step", v) for v in ("x", "-1", "1.5", "")),
        *(("seconds", v) for v in ("nan", "-3", "x")),
        *(("skipped", v) for v in ("²", "1e3")),
        *(("config", v) for v in ("{", "[1]", "[" * 100_000)),
    ],
)
def test_values_of_the_header(written, key, value):
    save_file(load_file(written), written, header(written) | {key: value})
    with pytest.raises(InputError, match=f"{written.name}.*'{key}'"):
        read_checkpoint(written)


@pytest.mark.parametrize("key", ["step", "seconds", "skipped", "config"])
def test_keys_of_the_header(written, key):
    save_file(load_file(written), written, {k: v for k, v in header(written).items() if k != key})
    with pytest.raises(InputError, match=f"has no '{key}'"):
        read_checkpoint(written)


@pytest.mark.parametrize("name", ["nothing/weight", "weight", "optimizer/weight"])
def test_tensors_of_no_part(written, name):
    save_file(load_file(written) | {name: torch.zeros(1)}, written, header(written))
    with pytest.raises(InputError, match="has no tensor"):
        read_checkpoint(written)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(written, value):
    tensors = load_file(written)
    tensors["ema/weight"][0, 0] = value
    save_file(tensors, written, header(written))
    with pytest.raises(InputError, match="weights are not finite, such as weight"):
        load_weights(written, nn.Linear(3, 2))
