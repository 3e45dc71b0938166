"""Orbit Diffusion on a file: train, resume, sample, evaluate; what a broken run says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from orbitwise.errors import InputError
from orbitwise.methods.molecules import orbit_diffusion
from orbitwise.molecules.files.structures import read_sdf, write_extxyz
from orbitwise.molecules.metrics.comparison import compare
from orbitwise.molecules.molecule import embed, parse_smiles
from orbitwise.runs.config import load

SMALL = [
    "network.hidden=16",
    "network.layers=2",
    "train.batch_size=16",
    "train.warmup=5",
    "train.ema_decay=0.9",
]
SMALL += ["sampling.steps=8", "train.accelerator=cpu"]


def _frames(smiles: str, n: int, seed: int) -> tuple:
    mol = parse_smiles(smiles)
    x = embed(mol, n, seed=seed)
    return mol, x + 0.03 * np.random.default_rng(seed).normal(size=x.shape)


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "methanol.extxyz"
    write_extxyz(path, *_frames("CO", 120, seed=0))
    return path


@pytest.fixture(scope="module")
def run(frames, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "methanol"
    config = load(
        "orbit_diffusion", [f"data={frames}", "train.steps=150", "train.learning_rate=5e-3", *SMALL]
    )
    outcome = orbit_diffusion.train(config, out)
    assert outcome.result.steps == 150 and outcome.result.resumed_at == 0
    orbit_diffusion.sample(out, n=40, seed=1)
    return out


def test_training_learns(run):
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.7 * losses[0]


def test_repeating_the_command_changes_nothing(run, frames):
    before = (run / "checkpoint.safetensors").read_bytes()
    config = load(
        "orbit_diffusion", [f"data={frames}", "train.steps=150", "train.learning_rate=5e-3", *SMALL]
    )
    outcome = orbit_diffusion.train(config, run)
    assert outcome.result.resumed_at == 150
    assert (run / "checkpoint.safetensors").read_bytes() == before


def test_another_configuration_is_refused_and_leaves_the_run_alone(run, frames):
    before = (run / "config.yaml").read_text()
    config = load(
        "orbit_diffusion", [f"data={frames}", "target=augmentation", "train.steps=150", *SMALL]
    )
    with pytest.raises(InputError, match="target: 'exact' before, 'augmentation' now"):
        orbit_diffusion.train(config, run)
    assert (run / "config.yaml").read_text() == before


def test_samples_are_written_and_reproducible(run):
    first = np.load(run / "samples.npz")["positions_angstrom"]
    assert first.shape == (40, 6, 3) and np.isfinite(first).all()
    assert np.allclose(first.mean(1), 0, atol=1e-5)
    read = read_sdf(run / "samples.sdf")[0]
    assert np.allclose(read.positions_angstrom, first, atol=1e-4)
    again = orbit_diffusion.sample(run, n=40, seed=1).result
    assert np.array_equal(again.positions_angstrom, first)
    assert again.evaluations == 2 * 7 + 1
    other = orbit_diffusion.sample(run, n=40, seed=2).result.positions_angstrom
    assert not np.allclose(other, first, atol=1e-2)
    orbit_diffusion.sample(run, n=40, seed=1)  # as the other tests expect it


def test_evaluation_writes_summary_and_report(run):
    result = orbit_diffusion.evaluate(run).result
    summary = json.loads((run / "summary.json").read_text())
    assert summary["comparison"]["samples"] == 40 and summary["comparison"]["held_out"] == 24
    assert summary["comparison"]["distances"]["w1_angstrom"] == result.distances.w1_angstrom
    # 40 samples, 24 held-out and 96 training frames: every one of them is counted
    assert result.energy_calls == 160
    assert result.floor.w1_angstrom < result.distances.w1_angstrom
    page = (run / "report.html").read_text()
    assert "Rao-Blackwell" in page and "http-equiv" in page


def test_plan_counts_parameters_and_energies(frames):
    config = load("orbit_diffusion", [f"data={frames}", *SMALL])
    plan = orbit_diffusion.plan(config)
    made = orbit_diffusion.parts(config)
    assert plan.parameters == sum(p.numel() for p in made.denoiser.network.parameters())
    assert plan.energy_calls == 120


def test_parts_leave_the_random_stream_alone_and_follow_the_seed(frames):
    config = load("orbit_diffusion", [f"data={frames}", *SMALL])
    state = torch.get_rng_state()
    a, b = orbit_diffusion.parts(config), orbit_diffusion.parts(config)
    assert torch.equal(torch.get_rng_state(), state)
    for p, q in zip(a.denoiser.parameters(), b.denoiser.parameters(), strict=True):
        assert torch.equal(p, q)
    assert (
        a.objective.group.factors[1].order == 3
    )  # the rotations of the methyl group, not its reflections


def test_evaluate_before_sampling_and_sample_before_training(frames, tmp_path):
    config = load("orbit_diffusion", [f"data={frames}", "train.steps=2", *SMALL])
    orbit_diffusion.train(config, tmp_path / "run")
    with pytest.raises(InputError, match="no samples yet; draw some with: orbitwise sample"):
        orbit_diffusion.evaluate(tmp_path / "run")
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    with pytest.raises(InputError, match="cannot read the checkpoint"):
        orbit_diffusion.sample(tmp_path / "run", n=2)


def test_unusable_data(frames, tmp_path):
    few = tmp_path / "few.extxyz"
    write_extxyz(few, *_frames("CO", 4, seed=0))
    with pytest.raises(InputError, match="4 frames; learning an ensemble needs 10"):
        orbit_diffusion.parts(load("orbit_diffusion", [f"data={few}"]))
    mol, x = _frames("C[C@H](O)CC", 12, seed=0)
    x[5] *= [1, 1, -1]
    both = tmp_path / "both_hands.extxyz"
    write_extxyz(both, mol, x)
    with pytest.raises(
        InputError, match=r"frame 6: another stereoisomer than the first frame \(1 of 12"
    ):
        orbit_diffusion.parts(load("orbit_diffusion", [f"data={both}"]))
    with pytest.raises(InputError, match="is not the molecule of the coordinates"):
        orbit_diffusion.parts(load("orbit_diffusion", [f"data={frames}", "smiles=CN"]))


def test_too_many_automorphisms_for_the_exact_target(tmp_path):
    path = tmp_path / "dodecane.extxyz"
    smiles = "CC(C)(C)CC(C)(C)CC(C)(C)C"
    write_extxyz(path, *_frames(smiles, 10, seed=0))
    given = [f"data={path}", f"smiles={smiles}"]
    with pytest.raises(InputError, match=r"set target=snis, or group.automorphisms=none"):
        orbit_diffusion.parts(load("orbit_diffusion", given))
    made = orbit_diffusion.parts(load("orbit_diffusion", [*given, "group.automorphisms=none"]))
    assert len(made.objective.group.factors) == 1


def test_comparison_knows_a_perfect_and_a_broken_sampler():
    mol, x = _frames("CCO", 300, seed=1)
    training, held_out, samples = x[:100], x[100:200], x[200:]
    good = compare(mol, samples, held_out, training)
    assert good.distances.w1_angstrom < 3 * good.floor.w1_angstrom + 1e-3
    assert good.other_isomer == 0 and good.no_energy is None
    assert good.energy_w1_kcal_mol < 3 * good.energy_floor_w1_kcal_mol + 0.3
    stretched = compare(mol, samples * 1.1, held_out, training)
    bond = max(np.linalg.norm(x[:, i] - x[:, j], axis=-1).mean() for i, j in [(0, 1), (1, 2)])
    assert stretched.bond_error_angstrom == pytest.approx(0.1 * bond, abs=0.02)
    assert stretched.sample_energy.mean_kcal_mol > stretched.held_out_energy.mean_kcal_mol + 5
    # names of equivalent hydrogens do not matter
    swapped = samples.copy()
    swapped[:, [3, 4]] = swapped[:, [4, 3]]
    assert compare(mol, swapped, held_out, training).torsions.keys() == good.torsions.keys()
    label = next(iter(good.torsions))
    assert (
        compare(mol, swapped, held_out, training).torsions[label].value
        == good.torsions[label].value
    )
    collapsed = samples.copy()
    collapsed[0, 1] = collapsed[0, 0]
    assert compare(mol, collapsed, held_out, training).not_finite <= 1


def test_comparison_without_parameters_says_so():
    mol, x = _frames("C[Se]C", 30, seed=0)
    result = compare(mol, x[:10], x[10:20], x[20:])
    assert result.sample_energy is None and "Se" in result.no_energy
    assert any("no energies" in line for line in result.lines())
