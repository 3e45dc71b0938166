"""A damaged checkpoint is refused with the file and the key of its header."""

import pytest
import torch
from safetensors import safe_open
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
    """As an earlier version wrote it, without the digest of the tensors."""
    with safe_open(path, framework="pt") as file:
        return {k: v for k, v in file.metadata().items() if k != "tensors"}


def test_a_flipped_bit_is_noticed(written):
    content = bytearray(written.read_bytes())
    for at in (len(content) - 1, len(content) - 9, len(content) - 30):
        damaged = content.copy()
        damaged[at] ^= 1
        written.write_bytes(damaged)
        with pytest.raises(InputError, match="the file is damaged"):
            read_checkpoint(written)


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
