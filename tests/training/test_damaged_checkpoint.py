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
    optimizer_state,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)


@pytest.fixture
def written(tmp_path):
    path, weights = tmp_path / "checkpoint.safetensors", nn.Linear(3, 2).state_dict()
    state = {"weight": {"exp_avg": torch.zeros(2, 3)}}
    write_checkpoint(path, Checkpoint(3, weights, weights, state, {"seed": 1}))
    return path


def header(path):
    """As an earlier version wrote it, without a digest."""
    with safe_open(path, framework="pt") as file:
        return {k: v for k, v in file.metadata().items() if k != "sha256"}


def test_a_flipped_bit_is_noticed(written):
    """Wherever it is: in the numbers, in their names, or in what the header tells."""
    content, before = written.read_bytes(), read_checkpoint(written)
    harmless = 0
    for at in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        written.write_bytes(damaged)
        try:
            after = read_checkpoint(written)
        except InputError as error:
            assert str(written) in str(error)
        else:  # the name of the digest itself
            harmless += 1
            assert (after.step, after.config, after.seconds) == (3, {"seed": 1}, 0.0)
            assert all(torch.equal(after.ema[k], v) for k, v in before.ema.items())
    assert harmless < 8


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


def test_a_state_of_the_optimiser_that_lacks_a_part(written):
    net = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = optimizer_state(net, [optimizer])
    restore_optimizer(net, [optimizer], state)

    lacking = state | {"bias": {k: v for k, v in state["bias"].items() if k != "exp_avg"}}
    with pytest.raises(InputError, match="'exp_avg' of bias is missing"):
        restore_optimizer(net, [optimizer], lacking)
    other = state | {"bias": state["bias"] | {"exp_avg": torch.zeros(5)}}
    with pytest.raises(InputError, match="'exp_avg' of bias is missing or of another shape"):
        restore_optimizer(net, [optimizer], other)
