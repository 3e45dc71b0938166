"""The ensemble in Python: what a folder holds, in the types of others, and means with errors."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ase.units
import numpy as np
import pytest
from rdkit import Chem

import orbitwise as ow
from orbitwise.errors import InputError
from orbitwise.methods.conformers import command
from orbitwise.methods.conformers.ensemble.ensemble import ConformerEnsemble
from orbitwise.molecules.files.structures import write_extxyz, write_sdf
from orbitwise.molecules.molecule import embed, parse_smiles
from orbitwise.runs.outcome import Outcome

SMILES = "C[C@H](F)CO"


def write_run(folder: Path, converged: bool = True) -> dict:
    """The files of a finished run, by hand: three listed conformers, a sample of a fourth."""
    mol = parse_smiles(SMILES)
    x = embed(mol, 7, seed=2)
    samples = {
        "energy_kcal_mol": [1.0, 2.0, 1.5, 0.9],
        "conformer": [1, 1, 4, 2],
        "weight": [0.4, 0.2, 0.1, 0.3],
    }
    write_sdf(folder / "ensemble.sdf", mol, x[:4], samples)
    write_extxyz(folder / "ensemble.extxyz", mol, x[:4], samples)
    rows = {
        "conformer": [1, 2, 7],
        "delta_E_kcal_mol": [0.0, 0.5, 2.0],
        "delta_G_kcal_mol": [0.0, 0.41, None],
        "delta_G_error_kcal_mol": [0.0, 0.02, None],
        "population": [0.6, 0.3, 0.1],
        "population_error": [0.02, 0.02, 0.01],
        "degeneracy": [1, 2, 1],
    }
    write_sdf(folder / "conformers.sdf", mol, x[4:], rows)
    told = {
        "isomer": SMILES,
        "temperature_kelvin": 310.0,
        "delivered": {"converged": converged},
        "search": {"effective_samples": 500.0},
        "warnings": ["mind this"],
    }
    (folder / "summary.json").write_text(json.dumps(told))
    return {"mol": mol, "x": x}


def test_a_folder_as_arrays_and_in_the_types_of_others(tmp_path):
    made = write_run(tmp_path)
    found = ConformerEnsemble.load(tmp_path)
    assert np.abs(found.positions - made["x"][:4]).max() < 1e-6
    assert np.abs(found.minima - made["x"][4:]).max() < 1e-3
    assert found.weights.tolist() == [0.4, 0.2, 0.1, 0.3]
    assert found.energies.tolist() == [1.0, 2.0, 1.5, 0.9]
    assert found.labels.tolist() == [0, 0, -1, 1]
    assert found.populations.tolist() == [0.6, 0.3, 0.1]
    assert found.free_energies[1] == 0.41 and np.isnan(found.free_energies[2])
    assert (found.temperature, found.converged, found.warnings) == (310.0, True, ("mind this",))
    assert "4 samples of 3 conformers at 310 K, converged" in repr(found)

    mol = found.to_rdkit()
    assert mol.GetNumConformers() == 4 and mol.GetConformer(1).GetDoubleProp("weight") == 0.2
    assert Chem.MolToSmiles(Chem.RemoveHs(mol)) == Chem.CanonSmiles(SMILES)
    Chem.AssignStereochemistryFrom3D(mol)
    assert Chem.MolToSmiles(Chem.RemoveHs(mol)) == Chem.CanonSmiles(SMILES)

    atoms = found.to_ase()
    assert len(atoms) == 4 and atoms[0].info == {"weight": 0.4, "conformer": 0}
    kcal = atoms[1].get_potential_energy() / (ase.units.kcal / ase.units.mol)
    assert kcal == pytest.approx(2.0, rel=1e-5)
    assert np.allclose(atoms[3].positions, found.positions[3])


def test_means(tmp_path):
    write_run(tmp_path)
    found = ConformerEnsemble.load(tmp_path)
    mean = found.average(lambda x: np.linalg.norm(x[0] - x[1]))
    assert mean.value == pytest.approx(
        sum(w * np.linalg.norm(x[0] - x[1]) for w, x in zip(found.weights, found.positions,
                                                            strict=True))
    )  # fmt: skip
    assert 0 < mean.error < 0.1
    whole = found.average(lambda x: x)
    assert whole.value.shape == whole.error.shape == (found.mol.GetNumAtoms(), 3)
    assert replace(found, converged=False).average(np.sum).error is None
    with pytest.raises(InputError, match="not finite"):
        found.average(lambda x: np.nan)


def test_errors_of_means_are_the_scatter_of_repeated_ensembles(tmp_path):
    write_run(tmp_path)
    base = ConformerEnsemble.load(tmp_path)
    rng = np.random.default_rng(3)
    share, centre, width, n = np.array([0.7, 0.25, 0.05]), np.array([0.0, 2.0, 5.0]), 0.7, 400

    def once() -> tuple[float, float]:
        label = rng.choice(3, n, p=share)
        x = np.zeros((n, base.positions.shape[1], 3))
        x[:, 0, 0] = centre[label] + width * rng.normal(size=n)
        p = np.bincount(label, minlength=3) / n
        found = replace(
            base,
            positions=x,
            weights=np.full(n, 1 / n),
            energies=np.zeros(n),
            labels=label,
            populations=p,
            population_errors=np.sqrt(p * (1 - p) / n),
            effective_samples=float(n),
        )
        mean = found.average(lambda x: x[0, 0])
        return mean.value, mean.error

    value, error = np.array([once() for _ in range(150)]).T
    # by hand: the variance of the mixture over n; 150 repeats know a scatter to 6 %
    exact = np.sqrt((width**2 + share @ (centre - share @ centre) ** 2) / n)
    assert error.mean() == pytest.approx(exact, rel=0.02)
    assert value.std(ddof=1) == pytest.approx(exact, rel=0.2)


def test_folders_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"no finished run of conformers.*summary.json"):
        ConformerEnsemble.load(tmp_path)
    write_run(tmp_path)
    (tmp_path / "conformers.sdf").unlink()
    with pytest.raises(InputError, match="orbitwise report"):
        ConformerEnsemble.load(tmp_path)
    (tmp_path / "summary.json").write_text("[1")
    with pytest.raises(InputError, match="cannot be read"):
        ConformerEnsemble.load(tmp_path)


@pytest.fixture
def asked(monkeypatch):
    """What reaches the pipeline, which prints and leaves a run."""
    found = []

    def run(config):
        found.append(config)
        print("a bar", file=sys.stderr)
        write_run(config.out)
        return Outcome(config.out, {}, [])

    monkeypatch.setattr(command, "run", run)
    return found


def test_options_reach_the_run_and_nothing_is_left(asked, capfd, tmp_path):
    found = ow.sample_conformers(SMILES, minutes=2, temperature=350, seed=4)
    (config,) = asked
    assert (config.smiles, config.budget, config.temperature, config.seed) == (SMILES, 2, 350, 4)
    assert found.folder is None and not config.out.exists() and len(found) == 4
    assert capfd.readouterr().err == ""
    out = tmp_path / "kept"
    out.mkdir()
    found = ow.sample_conformers(Chem.MolFromSmiles("OCC"), out=out, progress=True)
    assert found.folder == out and asked[1].smiles == "CCO"
    assert capfd.readouterr().err == "a bar\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temprature": 300}, "unknown key 'temprature'; did you mean 'temperature'"),
        ({"minutes": 1, "budget": 2}, "the same"),
        ({"smiles": "C"}, "no option"),
        ({"temperature": -1}, "temperature"),
    ],
)
def test_wrong_options_are_refused(asked, options, message):
    with pytest.raises(InputError, match=message):
        ow.sample_conformers("CCO", **options)
    assert not asked


def test_several_molecules_are_refused(asked, tmp_path):
    (tmp_path / "two.smi").write_text("CCO\nCCN\n")
    with pytest.raises(InputError, match=r"2 molecules; give one, or use .*run_many"):
        ow.sample_conformers(tmp_path / "two.smi")


def test_importing_the_name_is_cheap():
    check = "import sys, orbitwise; assert 'sample_conformers' in dir(orbitwise); "
    check += "assert not {'torch', 'rdkit'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
