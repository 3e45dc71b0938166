"""VonMisesNet as a run: train, resume, sample, evaluate; what a broken file or run says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem

from orbitwise.errors import InputError
from orbitwise.methods.molecules import von_mises
from orbitwise.molecules.files.conformers import npz_records
from orbitwise.runs.config import load

ANGLES = np.arange(-180, 180, 30)
MOLECULES = ("CCCO", "CCCF", "CCCN", "CCCS", "C[C@H](F)CO")


@pytest.fixture(scope="module")
def profiles(tmp_path_factory) -> Path:
    """Invented profiles: even ones of which trans is lowest, one that is not even."""
    path = tmp_path_factory.mktemp("data") / "profiles.npz"
    angle = np.radians(ANGLES)
    energy = np.stack([2 * (1 + np.cos(angle)) + k * (1 + np.cos(3 * angle)) for k in range(4)])
    energy = np.concatenate([energy, (2 * np.cos(angle - 1.0))[None]])
    np.savez(
        path,
        smiles=np.array(MOLECULES),
        atoms=np.array([[0, 1, 2, 3]] * 4 + [[0, 1, 3, 4]]),
        energy_kcal=energy,
        angle_degree=ANGLES,
        split=np.array([0, 0, 2, 0, 0]),
    )
    return path


def configuration(profiles, *more):
    return load(
        "von_mises/small",
        [
            f"data={profiles}",
            "network.hidden=16",
            "network.layers=2",
            "train.steps=120",
            "train.batch_size=4",
            "train.warmup=5",
            "train.ema_decay=0.9",
            "train.learning_rate=1e-2",
            "train.accelerator=cpu",
            *more,
        ],
    )


@pytest.fixture(scope="module")
def run(profiles, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "torsions"
    outcome = von_mises.train(configuration(profiles), out)
    assert outcome.result.steps == 120 and "4 rotors of 4 molecules" in outcome.lines[1]
    return out


def test_training_learns_and_repeating_changes_nothing(run, profiles):
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.8 * losses[0]
    before = (run / "checkpoint.safetensors").read_bytes()
    von_mises.train(configuration(profiles), run)
    assert (run / "checkpoint.safetensors").read_bytes() == before
    with pytest.raises(InputError, match="temperature"):
        von_mises.train(configuration(profiles, "temperature=400"), run)


def test_evaluation_names_the_network_and_simpler_laws(run):
    outcome = von_mises.evaluate(run)
    told = json.loads((run / "summary.json").read_text())["divergences"]
    assert told["rotors"] == 1 and (run / "report.html").is_file()
    assert told["network"][0] < told["uniform"][0]  # another CCC-X: much the same law
    assert abs(told["network"][0] - told["network"][1]) < 1e-12
    assert any("30 draws" in line for line in outcome.lines)


def test_conformers_of_held_out_molecules_and_of_smiles(run, tmp_path):
    outcome = von_mises.sample(run, n=6, seed=1)
    assert [len(m) for m in outcome.result] == [6]
    (record,) = npz_records(run / "samples.npz", ("test",), None)
    assert record is not None
    again = von_mises.sample(run, n=6, seed=1)
    assert np.array_equal(outcome.result[0].positions_angstrom, again.result[0].positions_angstrom)
    (tmp_path / "asked.smi").write_text("CCCCO\nC1CC1\n")
    several = von_mises.sample(run, n=4, molecules=tmp_path / "asked.smi")
    assert [len(m) for m in several.result] == [4, 4]
    with Chem.SDMolSupplier(str(run / "samples.sdf"), removeHs=False) as file:
        assert sum(mol is not None for mol in file) == 8
    (tmp_path / "bad.smi").write_text("CCO\nC((\n")
    with pytest.raises(InputError, match="line 2"):
        von_mises.sample(run, n=4, molecules=tmp_path / "bad.smi")


def test_conformers_that_cannot_be_made_are_said(run, tmp_path, monkeypatch):
    """Uniform torsions of a long chain, one try each: some clash, and are missing by name."""
    config, network, step = von_mises.load(run)
    with torch.no_grad():
        network.head[-1].weight.zero_()
        network.head[-1].bias[8:12] = -30.0
    config = config.model_copy(update={"sampling": von_mises.TorsionSamplingConfig(tries=1)})
    monkeypatch.setattr(von_mises, "load", lambda _, trust: (config, network, step))
    (tmp_path / "long.smi").write_text("C" * 16 + "\n")
    outcome = von_mises.sample(run, n=40, molecules=tmp_path / "long.smi")
    (left,) = [40 - len(m) for m in outcome.result]
    assert 0 < left < 40
    assert any(f"{left} of 40" in line for line in outcome.lines)


def test_a_molecule_that_cannot_be_embedded_is_said(run, monkeypatch):
    real = von_mises.conformers

    def conformers(network, mol, *rest):
        if mol.GetAtomWithIdx(3).GetAtomicNum() == 7:
            raise InputError("no geometry")
        return real(network, mol, *rest)

    monkeypatch.setattr(von_mises, "conformers", conformers)
    with pytest.raises(InputError, match="CCCN: no conformer: no geometry"):
        von_mises.sample(run, n=2)


def test_plan_needs_no_energy(profiles):
    plan = von_mises.plan(configuration(profiles))
    assert plan.energy_calls == 0 and plan.model_calls == 480 and plan.parameters > 1000
    with pytest.raises(InputError, match="no such file"):
        von_mises.plan(configuration("absent.npz"))
