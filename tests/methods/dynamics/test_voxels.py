"""The task ``voxels``: what is held out, how it is turned, and a short training with its audits."""

import json
import math

import numpy as np
import pytest
import torch

from orbitwise.audit import audit_equivariance
from orbitwise.data.voxels import VoxelGrid
from orbitwise.errors import InputError
from orbitwise.methods.dynamics import voxels
from orbitwise.methods.dynamics.dynamics import train
from orbitwise.methods.dynamics.task import build
from orbitwise.methods.dynamics.voxels import GRID, SIGMA, split
from orbitwise.runs.config import load


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Forty small made-up molecules, all bent the same way, and one that is too large."""
    random = np.random.default_rng(0)
    shape = np.array([[0.0, 0, 0], [1.4, 0, 0], [2.0, 1.2, 0], [-0.6, 0.9, 0.3]])
    positions = shape + 0.1 * random.normal(size=(41, 4, 3))
    positions[-1] *= 5
    path = tmp_path_factory.mktemp("voxels") / "bent.npz"
    numbers = np.tile([6, 7, 8, 1], 41)
    np.savez(
        path, offsets=4 * np.arange(42), atomic_numbers=numbers, positions=positions.reshape(-1, 3)
    )
    return path


def settings(file, *more, held_out=8):
    small = ["network.hidden=4", "train.batch_size=4", "train.accelerator=cpu"]
    return load("dynamics/voxels", [f"data={file}", f"held_out={held_out}", *small, *more])


def test_held_out_items_are_the_same_in_all_runs_and_never_trained_on(file):
    one, two = build(settings(file)), build(settings(file, "items=10", "train.seed=3"))
    assert len(one.data) == 32 and len(two.data) == 10  # the large molecule fits no grid
    assert torch.equal(one.data.x[:10], two.data.x)
    for a, b in zip(one.batches, two.batches, strict=True):
        assert torch.equal(a.x, b.x)
    held, data = split(settings(file))
    assert len(held) == 8 and torch.equal(data.x, one.data.x)
    assert torch.cdist(held.x.flatten(1), data.x.flatten(1)).min() > 1e-3
    noise = torch.cat([batch.x - batch.target * one.model.data_scale for batch in one.batches])
    assert abs(float(noise.std()) - SIGMA) < 0.01


@pytest.mark.parametrize(
    ("target", "order"), [("none", 1), ("octahedral", 24), ("augmentation", math.inf)]
)
def test_augmentation_turns_positions(file, target, order):
    objective = build(settings(file, f"target={target}")).objective
    task = build(settings(file))
    one = task.data[torch.zeros(600, dtype=torch.long)]
    placed = GRID.place(one, objective.group, torch.Generator().manual_seed(0)).x
    found = (placed[:, 1] - placed[:, 0]).mul(100).round().unique(dim=0)
    assert len(found) == order if order < math.inf else len(found) > 500


def test_the_trained_loss_is_the_audited_one(file):
    """In the orientation of the data: the objective on average, and ``as_given`` of the audit."""
    task = build(settings(file, "target=none", held_out=30))
    given = audit_equivariance(
        task.audited(task.model), task.group, task.batches, outputs="field"
    ).row()
    with torch.no_grad():
        losses = torch.cat(
            [
                task.objective(task.model, task.data, torch.Generator().manual_seed(k))
                for k in range(4)
            ]
        )
    error = math.hypot(float(losses.std()) / len(losses) ** 0.5, given.as_given.error)
    assert abs(float(losses.mean()) - given.as_given.value) < 5 * error + 0.01
    assert given.percent.value > 0.1


def test_a_short_training_leaves_its_audits_and_numbers(file, tmp_path, monkeypatch):
    monkeypatch.setattr(voxels, "GRID", VoxelGrid(n=12))
    config = settings(file, "train.steps=3", "audit.every=3", "audit.gradients=false")
    outcome = train(config, tmp_path / "run")
    written = json.loads((tmp_path / "run" / "summary.json").read_text())["summary"]
    assert written["steps"] == 3 and written["total"] > written["equivariance"] > 0
    numbers = written["numbers"]
    assert numbers["percent_identity"] > numbers["percent_smoothing"] > 0
    assert 0.2 < numbers["noise_kept"] < 0.4 and numbers["percent_all_rotations"] > 0
    assert numbers["round_trip_noisy"] > numbers["round_trip_clean"] > 0
    assert any("interpolation" in line for line in outcome.lines)


def test_what_does_not_fit_the_task_is_refused(file):
    with pytest.raises(InputError, match="unet3d"):
        build(settings(file, "network.name=egnn"))
    with pytest.raises(InputError, match="target"):
        build(settings(file, "target=exact"))
    with pytest.raises(InputError, match="held out"):
        build(settings(file, held_out=40))
    with pytest.raises(InputError, match="items=33"):
        build(settings(file, "items=33"))
