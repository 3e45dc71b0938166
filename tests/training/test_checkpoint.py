"""Checkpoints: what goes in comes out, whole or not at all."""

from __future__ import annotations

import json
import resource
import struct
from dataclasses import replace

import pytest
import torch
from torch import nn

from orbitwise.errors import InputError, OrbitwiseError
from orbitwise.training import Checkpoint, load_weights, read_checkpoint, write_checkpoint
from orbitwise.training.checkpoint import optimizer_state, restore_optimizer


def sample(step=3, seed=0) -> Checkpoint:
    g = torch.Generator().manual_seed(seed)

    def weights():
        return {"0.weight": torch.randn(4, 3, generator=g), "0.bias": torch.randn(4, generator=g)}

    state = {k: {"exp_avg": v, "step": torch.tensor(float(step))} for k, v in weights().items()}
    return Checkpoint(step, weights(), weights(), state, {"a": {"b": 1}, "c": None}, 1.5, 2)


def equal(a: Checkpoint, b: Checkpoint) -> bool:
    numbers = (a.step, a.config, a.seconds, a.skipped) == (b.step, b.config, b.seconds, b.skipped)
    if not numbers or a.optimizer.keys() != b.optimizer.keys():
        return False
    pairs = [
        (a.model, b.model),
        (a.ema, b.ema),
        *((a.optimizer[k], b.optimizer[k]) for k in a.optimizer),
    ]
    return all(x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in pairs)


def test_round_trip_without_pickle(tmp_path):
    path = tmp_path / "run" / "checkpoint.safetensors"
    write_checkpoint(path, sample())
    assert equal(read_checkpoint(path), sample())
    content = (
        path.read_bytes()
    )  # the published layout: length, JSON header, raw numbers; nothing executable
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert json.loads(header["__metadata__"]["config"]) == {"a": {"b": 1}, "c": None}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_weights_go_into_a_model_or_the_difference_is_named(tmp_path):
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, sample())
    net = nn.Sequential(nn.Linear(3, 4))
    load_weights(path, net)
    assert torch.equal(net[0].weight, sample().ema["0.weight"])
    load_weights(path, net, averaged=False)
    assert torch.equal(net[0].weight, sample().model["0.weight"])
    with pytest.raises(InputError, match=r"0\.weight .*\(5, 3\).*\(4, 3\)"):
        load_weights(path, nn.Sequential(nn.Linear(3, 5)))


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text", "foreign"])
def test_damaged_files_are_named(tmp_path, damage):
    path = tmp_path / "c.safetensors"
    if damage == "empty":
        path.touch()
    if damage == "cut":
        write_checkpoint(path, sample())
        path.write_bytes(path.read_bytes()[:-20])
    if damage == "text":
        path.write_text("not a checkpoint " * 20)
    if damage == "foreign":
        from safetensors.torch import save_file

        save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(InputError, match=r"c\.safetensors"):
        read_checkpoint(path)


def test_full_disk_leaves_the_old_file(tmp_path):
    """A file size limit makes the kernel refuse the write half-way, as a full disk does."""
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, sample())
    big = replace(sample(step=4), model={"0.weight": torch.zeros(100_000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OrbitwiseError, match="previous checkpoint is intact"):
            write_checkpoint(path, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert equal(read_checkpoint(path), sample())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    write_checkpoint(path, big)
    assert read_checkpoint(path).step == 4


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OrbitwiseError, match="cannot write the checkpoint"):
        write_checkpoint(tmp_path / "file" / "c.safetensors", sample())


def test_optimizer_state_goes_back_to_its_parameters():
    """Two optimizers, one restored from the other by name although its groups are in another
    order."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    weights = [p for p in net.parameters() if p.ndim > 1]
    biases = [p for p in net.parameters() if p.ndim == 1]
    first = torch.optim.AdamW([{"params": weights}, {"params": biases}])
    net(torch.ones(5, 3)).square().sum().backward()
    first.step()
    second = torch.optim.AdamW([{"params": biases}, {"params": weights}])
    restore_optimizer(net, [second], optimizer_state(net, [first]))
    for p in net.parameters():
        for key in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(first.state[p][key], second.state[p][key])
