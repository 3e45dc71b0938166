"""Two processes (gloo) do the work of one: the same gradients, the same weights, one set of
files."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys

import pytest
import torch

from orbitwise.training import read_checkpoint

SCRIPT = """
import sys
import torch
from orbitwise.data.batch import PointBatch
from orbitwise.networks import EGNN
from orbitwise.training import TrainConfig, train

folder, devices = sys.argv[1], int(sys.argv[2])
g = torch.Generator().manual_seed(0)
b, n = 20, 5
data = PointBatch(torch.randn(b, n, 3, generator=g), torch.randint(1, 9, (b, n), generator=g),
                  torch.zeros(b, n, n, dtype=torch.long), torch.ones(b, n, dtype=torch.bool))

def objective(model, batch, generator):
    noise = torch.randn(batch.x.shape, generator=generator)
    t = torch.rand(len(batch), generator=generator)
    return (model(batch.x + noise, t, batch) - noise).square().mean((-1, -2))

strategy = "ddp" if devices > 1 else "auto"
for steps in (1, 6):
    torch.manual_seed(0)
    net = EGNN(hidden=8, layers=2, pair=8, vectors=8, heads=4, radial=8, times=8)
    config = TrainConfig(steps=steps, batch_size=12, shards=4, schedule="constant", warmup=0,
                         clip_norm=None, log_every=1, accelerator="cpu", devices=devices,
                         strategy=strategy)
    train(net, objective, data, config, f"{folder}/{steps}", None, lambda report: None)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("ranks")
    (root / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, str(root / "script.py"), str(root / "2"), "2"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(sys, "argv", ["script.py", str(root / "1"), "1"])
        runpy.run_path(str(root / "script.py"))
    return root


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_gradients_are_those_of_the_whole_batch(folders):
    """After one step the stored first moment is (1 - β1) times the gradient."""
    one, two = (read_checkpoint(folders / str(k) / "1" / "checkpoint.safetensors") for k in (1, 2))
    largest = max(s["exp_avg"].abs().max() for s in one.optimizer.values())
    assert largest > 1e-4
    for name, state in one.optimizer.items():
        assert (two.optimizer[name]["exp_avg"] - state["exp_avg"]).abs().max() < 1e-6 * largest, (
            name
        )


def test_weights_after_some_steps(folders):
    one, two = (read_checkpoint(folders / str(k) / "6" / "checkpoint.safetensors") for k in (1, 2))
    for name, value in one.model.items():
        torch.testing.assert_close(two.model[name], value, rtol=1e-5, atol=1e-6)
    assert one.step == two.step == 6


def test_losses_are_means_over_processes_and_written_once(folders):
    one, two = (rows(folders / str(k) / "6") for k in (1, 2))
    assert [r["step"] for r in two] == [1, 2, 3, 4, 5, 6]
    assert [r["loss"] for r in two] == pytest.approx([r["loss"] for r in one], rel=1e-5)
