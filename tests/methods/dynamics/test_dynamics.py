"""Training dynamics of learned symmetry: two tasks on small synthetic data, what they audit, what
they refuse."""

from __future__ import annotations

import importlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from orbitwise.audit import Haar, audit_equivariance, read_audits
from orbitwise.errors import InputError
from orbitwise.groups.polyhedral import tetrahedral
from orbitwise.groups.so3 import SO3
from orbitwise.methods.audits.config import AuditConfig
from orbitwise.methods.dynamics import dynamics
from orbitwise.methods.dynamics.figures import Curve, efficiency_figure, variants_figure
from orbitwise.methods.dynamics.task import build
from orbitwise.molecules.files.forces import read_forces
from orbitwise.objectives.regression import Regression
from orbitwise.proteins.chain import RESIDUES, read_backbones
from orbitwise.runs.config import load

ROOT = Path(__file__).resolve().parents[3]
SMALL = [
    "network.hidden=16",
    "network.layers=1",
    "train.batch_size=8",
    "train.warmup=2",
    "held_out=8",
]
SMALL += ["train.accelerator=cpu", "audit.per_decade=2", "train.checkpoint_every=10", "items=24"]


def springs(frames: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A chain of four atoms with springs: forces that turn with the positions."""
    rng = np.random.default_rng(seed)
    rest = np.array([[0.0, 0, 0], [1.5, 0, 0], [2.2, 1.3, 0], [3.4, 1.5, 0.9]])
    x = rest + 0.1 * rng.normal(size=(frames, 4, 3))
    forces = np.zeros_like(x)
    for i, j in ((0, 1), (1, 2), (2, 3)):
        r = x[:, j] - x[:, i]
        length = np.linalg.norm(r, axis=-1, keepdims=True)
        f = 5.0 * (length - np.linalg.norm(rest[j] - rest[i])) * r / length
        forces[:, i] += f
        forces[:, j] -= f
    return {
        "atomic_numbers": np.array([8, 6, 6, 7], dtype=np.uint8),
        "positions": x,
        "forces": forces,
    }


def chains(count: int = 40, longest: int = 60, seed: int = 0) -> dict[str, np.ndarray]:
    """Random walks along x with steps of 3.8 Å, of 48 residues or more but for the last two."""
    rng = np.random.default_rng(seed)
    lengths = np.append(rng.integers(48, longest, size=count - 2), [30, 47])
    steps = rng.normal(size=(lengths.sum(), 3)) + np.array([2.0, 0, 0])  # away from where they were
    walk = np.cumsum(3.8 * steps / np.linalg.norm(steps, axis=-1, keepdims=True), 0)
    letters = rng.choice(list(RESIDUES), size=lengths.sum())
    offsets = np.append(0, np.cumsum(lengths))
    return {
        "n_ca_c": np.stack([walk - 0.5, walk, walk + 0.5], 1).astype(np.float32),
        "offsets": offsets.astype(np.int32),
        "sequence": np.array(["".join(letters[a:b]) for a, b in pairwise(offsets)]),
        "chain_id": np.array([f"C{k}" for k in range(count)]),
        "split": np.where(np.arange(count) % 4 == 0, "val", "train"),
        "chain_breaks": (np.arange(count) == 5).astype(np.int16),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    np.savez(folder / "springs.npz", **springs(60))
    np.savez(folder / "chains.npz", **chains())
    cold, mixed = springs(20, 1), springs(500, 2)
    mixed["positions"][3] = cold["positions"][7]  # a frame in both sets
    sets = {"train_300K": cold, "train_mixedT": mixed}
    np.savez(folder / "mixed.npz", **{f"{s}_{k}": v for s, a in sets.items() for k, v in a.items()})
    return {
        "forces": folder / "springs.npz",
        "protein": folder / "chains.npz",
        "mixed": folder / "mixed.npz",
    }


def config(task: str, files, *changes: str):
    return load(f"dynamics/{task}", [f"data={files[task]}", *SMALL, "train.steps=30", *changes])


@pytest.mark.parametrize("task", ["forces", pytest.param("protein", marks=pytest.mark.slow)])
def test_train_resume_and_evaluate(task, files, tmp_path):
    whole = dynamics.train(config(task, files), tmp_path / "whole")
    assert whole.result.steps == 30
    audits = read_audits(tmp_path / "whole")
    assert [a.step for a in audits] == [0, 10, 30]
    assert all(a.rows[0].gradients is not None and a.rows[0].gradients.batches == 4 for a in audits)
    levels = {"forces": [None], "protein": [0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99]}[task]
    assert [row.level for row in audits[0].rows] == levels
    assert audits[0].percent.value > 1 and 0 <= audits[0].numbers["head_deviation"] <= 1
    found = json.loads((tmp_path / "whole" / "summary.json").read_text())["summary"]
    assert found["course"]["final"]["value"] == pytest.approx(audits[-1].percent.value)
    assert found["percent_at"] == {"1000": None, "10000": None} and found["steps"] == 30
    assert (tmp_path / "whole" / "dynamics.png").stat().st_size > 5000
    assert any("equivariance error" in line for line in whole.lines)

    dynamics.train(config(task, files, "train.steps=10"), tmp_path / "part")
    part = dynamics.train(config(task, files), tmp_path / "part")
    assert part.result.resumed_at == 10
    for a, b in zip(audits, read_audits(tmp_path / "part"), strict=True):
        assert (a.step, a.rows, dict(a.numbers)) == (b.step, b.rows, dict(b.numbers))
    with pytest.raises(InputError, match="target: 'augmentation' before, 'none' now"):
        dynamics.train(config(task, files, "target=none"), tmp_path / "part")
    lines = dynamics.evaluate(tmp_path / "part").lines
    assert lines[:-1] == dynamics.evaluate(tmp_path / "whole").lines[:-1]
    _, model = dynamics.trained(tmp_path / "part")
    subject = dynamics.audit_subject(tmp_path / "part", AuditConfig(run=tmp_path / "part"))
    again = audit_equivariance(subject.model, subject.group, subject.batches, nodes=Haar(64))
    for row in audits[-1].rows:
        other = again.row(level=row.level)
        error = (row.percent.error**2 + other.percent.error**2) ** 0.5
        assert abs(other.percent.value - row.percent.value) < 4 * error
    for p, q in zip(model.parameters(), part.result.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_an_equivariant_network_audits_to_rounding(files, tmp_path):
    changes = ["network.name=egnn", "audit.gradients=false", "train.steps=10"]
    dynamics.train(config("forces", files, *changes), tmp_path)
    for a in read_audits(tmp_path):
        assert a.rows[0].rounding and abs(a.percent.value) < 1e-4


def test_levels_of_three_temperatures(files, tmp_path):
    """The frame that is in both sets is not judged, and the numbers come per level."""
    data = read_forces(files["mixed"])
    assert {k: len(v) for k, v in data.held_out.items()} == {
        "300 K": 166,
        "600 K": 167,
        "1200 K": 166,
    }
    changes = ["train.steps=1", "items=null", "audit.gradients=false"]
    settings = load("dynamics/forces_3bpa", [f"data={files['mixed']}", *SMALL, *changes])
    outcome = dynamics.train(settings, tmp_path)
    last = read_audits(tmp_path)[-1]
    assert [row.level for row in last.rows] == ["300 K", "600 K", "1200 K"]
    assert {f"mae_mev_per_angstrom.{t} K" for t in (300, 600, 1200)} <= set(last.numbers)
    assert any("told apart" in line for line in outcome.lines)
    summary = json.loads((tmp_path / "summary.json").read_text())["summary"]
    assert set(summary["levels"]) == {"300 K", "600 K", "1200 K"}


def test_audited_loss_is_the_trained_one(files):
    """Protein: the mean over noise levels that the audit sees is the objective at those levels (no
    rotation)."""
    task = build(config("protein", files, "target=none"))
    seen = task.audited(task.model)
    for batch in task.batches[:3]:
        t, mask = batch.args
        mine = (seen(batch.x, t, mask) - batch.target).square().mean((1, 2))
        c = task.model.data_scale
        alpha, sigma = task.model.process.alpha(t), task.model.process.sigma(t)
        weight = (alpha**2 * c**2 + sigma**2) / (sigma * c) ** 2
        estimate = task.model(batch.x, t, task.data[torch.arange(len(batch))])
        x1 = batch.target / weight.sqrt()[:, None, None]
        theirs = task.objective.loss(estimate, x1, weight, mask)
        assert torch.allclose(mine, theirs, rtol=1e-4)
        assert x1.mean(1).abs().max() < 1e-4  # Å


def test_forces_are_in_the_units_of_the_file(files):
    task = build(config("forces", files))
    task.model.requires_grad_(False)
    batch = task.batches[0]
    scale = task.data.target.square().mean().sqrt()
    error = (task.model(batch.x) - batch.target * scale).square().mean()
    assert torch.allclose(task.audited(task.model)(batch.x) * scale, task.model(batch.x))
    assert float(error / scale**2) == pytest.approx(
        1, abs=0.8
    )  # an untrained network is no better than zero
    shifted = task.model(batch.x + torch.tensor([3.0, -2.0, 1.0]))
    assert torch.allclose(shifted, task.model(batch.x), atol=1e-4)
    every = torch.cat([b.x for b in task.batches])
    mae = (task.model(every) - torch.cat([b.target for b in task.batches]) * scale).abs().mean()
    assert task.numbers["mae_mev_per_angstrom"](task.model) == pytest.approx(
        1000 * float(mae), rel=1e-5
    )


class Bent(torch.nn.Module):
    """Not equivariant, of second degree in the rotation."""

    def __init__(self):
        super().__init__()
        w = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.w = torch.nn.Parameter(w)

    def forward(self, x):
        return x @ self.w.T


def test_regression_has_one_mean_and_less_and_less_scatter():
    """Of the linear map the loss is of second degree, which the 12 rotations integrate: no scatter
    over g is left."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(6, 4, 3, generator=g, dtype=torch.float64)
    batch = type("B", (), {"x": x, "target": 0.5 * x})()
    model, group = Bent(), SO3()
    c = model.w.trace() / 3
    rest = (model.w - c * torch.eye(3)).square().sum() / 3
    exact = ((c - 0.5) ** 2 + rest) * x.square().mean((1, 2)) / 4  # scale 2
    nodes = tetrahedral().matrices
    quadrature = Regression(group, nodes=nodes, scale=2.0)
    assert quadrature.evaluations == 12
    assert torch.allclose(quadrature(model, batch, g), exact)
    draws = {
        k: torch.stack(
            [Regression(group, copies=k, scale=2.0)(model, batch, g) for _ in range(400)]
        )
        for k in (1, 12)
    }
    for k, values in draws.items():
        off = (values.mean(0) - exact).abs() / (values.std(0) / 20)
        assert off.max() < 4, k
    ratio = draws[1].var(0).mean() / draws[12].var(0).mean()
    assert 9 < ratio < 16
    fixed = Regression(group, copies=0)(model, batch, g)
    assert torch.allclose(fixed, (model(x) - 0.5 * x).square().mean((1, 2)))
    with pytest.raises(InputError, match="copies"):
        Regression(group, copies=-1)


def test_force_files(files, tmp_path):
    data = read_forces(files["forces"])
    assert len(data.training) == 48 and len(data.held_out[None]) == 12
    assert data.bonds.tolist() == [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0]]
    assert data.training.x.mean(1).abs().max() < 1e-6
    official = {**springs(60), "train_01": np.arange(10, 20), "test_01": np.arange(5)}
    np.savez(tmp_path / "official.npz", **official)
    split = read_forces(tmp_path / "official.npz")
    want = torch.from_numpy(official["forces"]).float()
    rest = [k for k in range(60) if k >= 20 or 5 <= k < 10]
    assert torch.equal(split.training.target, want[[*range(10, 20), *rest]])
    assert torch.equal(split.held_out[None].target, want[:5])


def test_extxyz_with_forces(tmp_path):
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    arrays, frames = springs(15), []
    for x, f in zip(arrays["positions"], arrays["forces"], strict=True):
        atoms = Atoms(arrays["atomic_numbers"], x)
        atoms.calc = SinglePointCalculator(atoms, forces=f)
        frames.append(atoms)
    write(tmp_path / "springs.extxyz", frames)
    data = read_forces(tmp_path / "springs.extxyz")
    found = torch.cat([data.training.target, data.held_out[None].target])
    want = torch.from_numpy(arrays["forces"]).float()
    assert (torch.cdist(found.flatten(1), want.flatten(1)).min(1).values < 1e-5).all() and len(
        found
    ) == 15
    write(tmp_path / "bare.extxyz", [Atoms("CO", [[0, 0, 0], [1.1, 0, 0]])])
    with pytest.raises(InputError, match=r"frame 1 has no forces$"):
        read_forces(tmp_path / "bare.extxyz")


def test_columns_that_look_like_forces_are_said(tmp_path):
    from ase import Atoms
    from ase.io import write

    arrays, frames = springs(10), []
    for x, f in zip(arrays["positions"], arrays["forces"], strict=True):
        frames.append(Atoms(arrays["atomic_numbers"], x, info={"DFT_energy": -1.0}))
        frames[-1].new_array("own_force", f)
    write(tmp_path / "a.extxyz", frames)
    with pytest.raises(InputError, match=r"frame 1 has no forces.*own_force are not used"):
        read_forces(tmp_path / "a.extxyz")
    for atoms, f in zip(frames, arrays["forces"], strict=True):
        atoms.new_array("ref_Forces", f)
        atoms.new_array("forces_ref", f)
    write(tmp_path / "b.extxyz", frames)
    (note,) = read_forces(tmp_path / "b.extxyz").notes
    assert "DFT_energy" in note and "own_force" in note and "forces_ref" not in note


def test_frames_in_nm_are_refused_with_their_unit(tmp_path):
    arrays = springs(10)
    arrays["positions"] = arrays["positions"] / 10
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError, match=r"frame 1: .*are the coordinates in nm"):
        read_forces(tmp_path / "x.npz")


def test_backbones(files):
    arrays = chains()
    found = read_backbones(files["protein"], longest=50)
    assert len(found) == 39 and "C5" not in found.names  # the broken one
    k = found.names.index("C38")
    assert found.mask[k].sum() == 30 and found.lengths[k] == 30 and not found.ca[k, 30:].any()
    start = arrays["offsets"][38]
    walk = arrays["n_ca_c"][start : start + 30, 1]
    assert np.allclose(found.ca[k, :30], walk - walk.mean(0), atol=1e-4)
    letters = arrays["sequence"][38]
    assert [RESIDUES[i - 1] for i in found.types[k, :30]] == list(letters) and not found.types[
        k, 30:
    ].any()
    cut = read_backbones(files["protein"], "val", longest=48, shortest=48)
    assert cut.mask.all() and cut.ca.shape == (10, 48, 3)


def test_what_cannot_be_done_is_said(files, tmp_path):
    with pytest.raises(InputError, match=r"data=FILE\.npz"):
        dynamics.plan(config("forces", {"forces": tmp_path / "none.npz"}))
    with pytest.raises(InputError, match=r"data=FILE\.npz"):
        dynamics.plan(config("protein", {"protein": tmp_path / "none.npz"}))
    np.savez(tmp_path / "other.npz", energies=np.zeros(3))
    with pytest.raises(
        InputError, match="has no atomic_numbers, forces, positions; found energies"
    ):
        dynamics.plan(config("forces", {"forces": tmp_path / "other.npz"}))
    with pytest.raises(InputError, match="has no chain_id"):
        dynamics.plan(config("protein", {"protein": tmp_path / "other.npz"}))
    with pytest.raises(InputError, match="no chain is left"):
        read_backbones(files["protein"], "test")
    with pytest.raises(InputError, match="no target 'snis'; use none, augmentation, haar, exact"):
        dynamics.plan(config("forces", files, "target=snis"))
    with pytest.raises(InputError, match="no target 'haar'"):
        dynamics.plan(config("protein", files, "target=haar"))
    with pytest.raises(InputError, match="items=5000"):
        dynamics.plan(config("forces", files, "items=5000"))
    with pytest.raises(InputError, match="unknown task 'proteins'"):
        dynamics.plan(config("forces", files, "task=proteins"))
    with pytest.raises(InputError, match=r"did you mean 'audit\.per_decade'"):
        config("forces", files, "audit.perdecade=3")
    with pytest.raises(InputError, match="multiple of heads"):
        dynamics.plan(config("forces", files, "network.name=transformer", "network.hidden=20"))
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(f"method: dynamics\ntask: forces\ndata: {files['forces']}\n")
    with pytest.raises(InputError, match="train the run first"):
        dynamics.evaluate(run)


def curve(name: str, total: list[float]) -> Curve:
    values, steps = np.array(total), np.arange(len(total))
    return Curve(name, steps, 2.0 * steps, 10 * values, values, values, 0.9 * values, 0.1 * values)


def test_figures_show_every_curve():
    curves = [curve(f"curve {k}", [1.0, 0.5, 0.2 + 0.01 * k]) for k in range(6)]
    left, right = variants_figure(curves, "many").axes
    assert [line.get_label() for line in right.lines] == [c.name for c in curves]
    assert len(left.lines) == 7  # and the threshold
    (axis,) = efficiency_figure(curves[:2], 0.4, "two").axes
    assert [t.get_text() for t in axis.get_legend().get_texts()] == [
        "curve 0",
        "curve 1",
        "level 0.4",
    ]
    assert axis.lines[0].get_xdata().min() > 0


@pytest.fixture
def benchmark(monkeypatch):
    """The benchmark's module, writing into a folder of the test."""
    if not (ROOT / "benchmarks").is_dir():
        pytest.skip("no benchmarks beside the package")
    monkeypatch.syspath_prepend(ROOT)
    module = importlib.import_module("benchmarks.quality.equivariance_dynamics")
    with importlib.import_module("benchmarks.tools.places").nothing_kept():
        yield module


@pytest.mark.slow
def test_benchmark_writes_its_rows(benchmark, files, monkeypatch):
    monkeypatch.setitem(
        benchmark.EFFICIENCY,
        "equivariant",
        ["network.name=egnn", "network.hidden=16", "target=none"],
    )
    monkeypatch.setattr(benchmark, "BASE_STEPS", 12)
    bench = benchmark.Bench("forces", 12, [f"data={files['forces']}", *SMALL])
    bench.efficiency(None)
    bench.base()
    bench.group("targets", benchmark.GRIDS["forces"])
    path = benchmark.kept("benchmarks/results") / "dynamics.json"
    rows = {r["what"]: r for r in json.loads(path.read_text())}
    methods = ("equivariant", "plain", "plain_exact", "plain_twirled")
    assert {f"forces.lowest_loss_{m}" for m in methods} <= set(rows)
    assert {f"forces.seconds_to_loss_{m}" for m in methods} <= set(rows)
    assert {"forces.percent_final", "forces.target_exact.percent_final"} <= set(rows)
    assert rows["forces.percent_final"]["error"] > 0


def test_time_to_a_loss_is_between_the_audits(benchmark):
    c = curve("c", [1.0, 0.9, 0.4, 0.1])  # at 0, 2, 4, 6 s
    assert benchmark.seconds_to(c, 0.05) is None and benchmark.seconds_to(c, 2.0) == 0
    assert benchmark.seconds_to(c, 0.4) == pytest.approx(4)
    between = benchmark.seconds_to(c, 0.2)
    assert np.log(between / 4) / np.log(6 / 4) == pytest.approx(np.log(2) / np.log(4))


@pytest.mark.parametrize(
    ("task", "file"),
    [
        ("forces", "rmd17/aspirin.npz"),
        ("forces_3bpa", "3bpa/3bpa.npz"),
        ("protein", "protein_small_chains/protein_small_chains.npz"),
    ],
)
def test_presets_on_the_real_files(shared_data, task, file):
    made = build(load(f"dynamics/{task}", [f"data={shared_data(file)}"]))
    sizes = {"forces": 1000, "forces_3bpa": 500, "protein": 1300}
    assert len(made.data) >= sizes[task]
    assert min(sum(len(b) for b in made.batches if b.level == v.level) for v in made.batches) >= 32
    index = torch.arange(4)
    loss = made.objective(made.model, made.data[index], torch.Generator().manual_seed(0)).detach()
    assert loss.shape == (4,) and 0.2 < float(loss.mean()) < 5  # scaled as it should be
