"""Run folders written by version 0.1.0 before the package was rearranged still load, sample, resume
and report.

``runs_of_0.1.0.zip`` holds small trainings of every method as that version left them, with the
samples it drew.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import safe_open

from orbitwise.cli.app import main

ARCHIVE = Path(__file__).with_name("runs_of_0.1.0.zip")


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)  # the configurations name their data relative to it
    return tmp_path


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {key: file[key] for key in file.files if file[key].dtype.kind == "f"}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("orbit_diffusion", ["--n", "10"]),
        ("protein_backbones", ["--n", "8"]),
        ("molecule_conformers", []),
    ],
)
def test_the_same_samples(runs, method, options):
    samples = runs / method / "run" / "samples.npz"
    before = arrays(samples)
    samples.unlink()
    assert main(["sample", f"{method}/run", *options]) == 0
    after = arrays(samples)
    assert before.keys() == after.keys()
    for key, value in before.items():
        np.testing.assert_allclose(after[key], value, rtol=1e-3, atol=2e-3)


def test_the_same_guesses(runs):
    def guesses() -> dict[str, np.ndarray]:
        found = {}
        for path in sorted((runs / "crystal_structure/run/guesses/stages").glob("*.safetensors")):
            with safe_open(path, framework="np") as file:
                found |= {f"{path.name}/{key}": file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                path.unlink()
        return found

    before = guesses()
    assert main(["sample", "crystal_structure/run"]) == 0
    after = guesses()
    assert before and before.keys() == after.keys()
    for key, value in before.items():
        if value.dtype.kind == "f" and not key.endswith("seconds"):
            apart = after[key] - value
            apart -= np.round(apart) if "frac" in key else 0  # by whole cells
            assert np.abs(apart).max() < 2e-3, key


@pytest.mark.parametrize(
    ("method", "preset"),
    [
        ("forces", "dynamics/forces"),
        ("orbit_diffusion", "orbit_diffusion/default"),
        ("crystal_structure", "crystal_structure/perov5"),
        ("protein_backbones", "protein_backbones/ca"),
        ("molecule_conformers", "molecule_conformers/default"),
    ],
)
def test_a_finished_training_is_taken_up(runs, method, preset, capfd):
    """The command again: every weight and optimiser state finds its place, and nothing is left to
    train."""
    run = runs / method / "run"
    config = yaml.safe_load((run / "config.yaml").read_text())
    before = (run / "metrics.jsonl").read_text()
    assert main(["train", str(run / "config.yaml"), "--out", str(run)]) == 0
    assert f"{config['train']['steps']} steps" in capfd.readouterr().out
    assert (run / "metrics.jsonl").read_text() == before


def test_a_training_goes_on(runs):
    """More steps with the optimiser state of the earlier version; a constant rate allows it."""
    run = runs / "forces" / "run"
    assert main(["train", str(run / "config.yaml"), "train.steps=24", "--out", str(run)]) == 0
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 24 and np.isfinite(last["loss"])


def test_finished_stages_are_reported_again(runs):
    """No stage of a conformers or sampler run is computed again: they keep their content, byte for
    byte."""
    stages = [p for m in ("conformers", "sgds") for p in (runs / m / "run" / "stages").iterdir()]
    before = {path: path.read_bytes() for path in stages}
    summary = json.loads((runs / "conformers/run/summary.json").read_text())
    assert main(["report", "conformers/run"]) == 0
    assert main(["train", "sgds/run/config.yaml", "--out", "sgds/run"]) == 0
    assert before == {path: path.read_bytes() for path in stages}
    again = json.loads((runs / "conformers/run/summary.json").read_text())
    assert again["effort"] == summary["effort"]
    for key in ("samples", "drawn"):
        assert again["learned"][key] == summary[key], key
    for stage, count in summary["evaluations"].items():  # clustering is done again
        assert stage == "clustering" or again["evaluations"][stage] == count, stage
    # above the lowest minimum, which is found again, in single precision
    energy = "mean_energy_kcal_mol"  # the relaxed samples', which were the ensemble then
    assert again["learned"][energy] == pytest.approx(summary[energy], rel=1e-4)
