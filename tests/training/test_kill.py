"""Training killed with SIGKILL, at any moment, many times over, ends with the weights of an
unbroken run.

One interpreter is started with one thread; it forks a child per attempt, so that every attempt
begins as a fresh process would, without paying for the imports again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

DRIVER = '''
import json, os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from orbitwise.data.batch import PointBatch
from orbitwise.networks import EGNN
from orbitwise.training import TrainConfig, read_checkpoint, train
from orbitwise.training import checkpoint as files
import lightning_fabric, torch.utils.tensorboard

root = Path(sys.argv[1])
STEPS = 60

def run(folder):
    g = torch.Generator().manual_seed(0)
    b, n = 24, 4
    data = PointBatch(torch.randn(b, n, 3, generator=g), torch.full((b, n), 6),
                      torch.zeros(b, n, n, dtype=torch.long), torch.ones(b, n, dtype=torch.bool))
    torch.manual_seed(0)
    net = EGNN(hidden=8, layers=1, pair=8, vectors=8, heads=4, radial=8, times=8)
    def objective(model, batch, generator):
        noise = torch.randn(batch.x.shape, generator=generator)
        t = torch.rand(len(batch), generator=generator)
        return (model(batch.x + noise, t, batch) - noise).square().mean((-1, -2))
    config = TrainConfig(steps=STEPS, batch_size=10, checkpoint_every=4, log_every=5,
                         accelerator="cpu")
    train(net, objective, data, config, folder, {"net": "small"}, lambda report: None)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def kill_inside(kind, count):
    """Arm the child to die inside the count-th checkpoint write."""
    calls = [0]
    def dies(original, before):
        def patched(*args, **kwargs):
            calls[0] += 1
            if calls[0] == count and before:
                die()
            result = original(*args, **kwargs)
            if calls[0] == count:
                die()
            return result
        return patched
    if kind == "half":  # half of the bytes are on disk
        real = files._replace
        def half(path, content):
            calls[0] += 1
            if calls[0] == count:
                with open(path.with_name(f".{path.stem}.tmp{path.suffix}"), "wb") as file:
                    file.write(content[: len(content) // 2])
                die()
            real(path, content)
        files._replace = half
    elif kind == "sync":
        os.fsync = dies(os.fsync, True)
    else:
        os.replace = dies(os.replace, kind == "before")

def attempt(folder, arm=None, after=None, seconds=0.0):
    """Run in a child; True when it finished, False when it was killed: inside, or ``seconds``
    after step ``after`` was on disk, however fast the machine is."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if arm:
                kill_inside(*arm)
            run(folder)
            status = 0
        finally:
            os._exit(status)
    ended, status = 0, 0
    while after is not None and not ended and step(folder) < after:
        time.sleep(0.001)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        if after is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "the child failed"
    return True

def step(folder):
    path = folder / files.NAME
    return read_checkpoint(path).step if path.exists() else 0

begin = time.perf_counter()
assert attempt(root / "whole")
length = time.perf_counter() - begin
report = {"inside": [], "random": []}
for kind in ("half", "sync", "before", "after"):
    assert not attempt(root / "inside", arm=(kind, 3))
    report["inside"].append(step(root / "inside"))
assert attempt(root / "inside")
rng = random.Random(int(sys.argv[2]))
for _ in range(200):
    goal = step(root / "random") + rng.randrange(1, 16)
    attempt(root / "random", after=min(goal, STEPS), seconds=rng.uniform(0, length / 10))
    report["random"].append(step(root / "random"))
    if len(report["random"]) >= 5 and report["random"][-1] == STEPS:
        break
assert attempt(root / "random")

def tensors(folder):
    c = read_checkpoint(folder / files.NAME)
    flat = {f"model/{k}": v for k, v in c.model.items()} | {f"ema/{k}": v for k, v in c.ema.items()}
    return flat | {f"{k}/{s}": v for k, state in c.optimizer.items() for s, v in state.items()}

whole = tensors(root / "whole")
for name in ("inside", "random"):
    other = tensors(root / name)
    report[name + "_equal"] = whole.keys() == other.keys() and all(
        torch.equal(whole[k], other[k]) for k in whole)
report["tensors"] = len(whole)
print(json.dumps(report))
'''


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_and_restarted_training_is_bit_identical(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "7"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    # A write every 4 steps; the third call dies. A write syncs twice (file, folder), and a resumed
    # run first replaces its log. So the attempts leave two writes; one more; one more; and two
    # more, the last in place.
    assert report["inside"] == [8, 12, 16, 24]
    assert report["inside_equal"] and report["random_equal"] and report["tensors"] > 20
    assert report["random"] == sorted(report["random"]) and report["random"][-1] == 60
    assert len(set(report["random"])) > 1, "no kill fell inside the training"
