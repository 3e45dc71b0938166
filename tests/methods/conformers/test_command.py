"""The conformers pipeline as a whole, on small molecules and small efforts."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from rdkit import Chem

from orbitwise.errors import EnergyError, InputError
from orbitwise.groups.automorphism import Automorphism
from orbitwise.methods.conformers import page
from orbitwise.methods.conformers.command import (
    ConformersConfig,
    known_reference,
    plan,
    report,
    run,
)
from orbitwise.methods.conformers.compare import bond_lengths, compare
from orbitwise.methods.conformers.diffusion import draw, learner, relax, weights
from orbitwise.methods.conformers.energy import build_system
from orbitwise.methods.conformers.exchange import search
from orbitwise.methods.conformers.exchange.mixing import angles
from orbitwise.methods.conformers.system import Effort
from orbitwise.molecules.files.reference import Reference
from orbitwise.molecules.metrics.torsions import find_torsions
from orbitwise.molecules.mmff.energy import MMFF94
from orbitwise.molecules.molecule import embed, parse_smiles

SMALL_NETWORK = {"hidden": 32, "vectors": 8, "layers": 2, "pair": 12, "radial": 16}
EFFORT = Effort(
    chains=4,
    rungs=5,
    leapfrog=6,
    search_steps=80,
    train_steps=100,
    batch_size=32,
    denoise_steps=8,
    relax_steps=20,
    weigh_paths=30,
    quenched=200,
)

SHORT = EFFORT.model_copy(update={"search_steps": 40, "train_steps": 40, "relax_steps": 8})

STAGES = {"search": search.Search, "learn": learner, "weigh": weights, "draw": draw, "relax": relax}


def config(folder, smiles="O[C@H](F)Cl", **changes) -> ConformersConfig:
    """With the diffusion model, which has the most stages."""
    given = {"smiles": smiles, "n": 20, "effort": EFFORT, "out": folder, "learner": "diffusion"}
    return ConformersConfig(**{**given, "processes": 1, **changes})


def forbid(patch, names, action) -> None:
    """``action`` in place of what these stages compute."""
    for name in names:
        module = STAGES[name]
        patch.setattr(module, "make" if name == "search" else name, action)


@pytest.fixture(scope="module", autouse=True)
def small_network():
    with pytest.MonkeyPatch.context() as patch:
        for name, size in SMALL_NETWORK.items():
            patch.setitem(learner.NETWORK, name, size)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chiral")
    return folder, run(config(folder))


def methanol(folder, **changes) -> ConformersConfig:
    """As little as can be computed."""
    return config(folder, smiles="CO", effort=SHORT, n=10, **changes)


@pytest.fixture(scope="module")
def in_short():
    """Samples of the learner come in small chunks, so that few are drawn in vain, and no page is
    made of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "CHUNK", 50)
        patch.setattr(page, "write", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, in_short):
    """Methanol, interrupted once before every stage: the last result, and after each run the stages
    with the times they were written."""
    folder, written = tmp_path_factory.mktemp("methanol"), []

    def stop(*_):
        raise KeyboardInterrupt

    def stages_now() -> dict[str, int]:
        return {p.stem: p.stat().st_mtime_ns for p in (folder / "stages").glob("*.safetensors")}

    for stage in STAGES:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            forbid(patch, [stage], stop)
            run(methanol(folder))
        written.append(stages_now())
    return run(methanol(folder)).result, [*written, stages_now()]


def test_files_and_numbers(finished):
    folder, outcome = finished
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == json.loads(json.dumps(outcome.result))
    files = {"conformers.sdf", "ensemble.sdf", "ensemble.extxyz", "report.html", "picture.png"}
    assert {p.name for p in folder.iterdir()} >= files
    for name in ("population", "search_population", "learned_population"):
        assert sum(row[name] for row in summary["conformers"]) == pytest.approx(1)
    populations = [row["population"] for row in summary["conformers"]]
    assert populations == sorted(populations, reverse=True)

    samples = list(Chem.SDMolSupplier(str(folder / "ensemble.sdf"), removeHs=False))
    share = [float(mol.GetProp("weight")) for mol in samples]
    assert summary["samples"] == 20 and sum(share) == pytest.approx(1)
    assert all(round(20 * w, 6) == round(20 * w) for w in share)
    # HMC asks for 6 gradients a step, on 5 x 4 replicas
    assert summary["evaluations"]["search"]["gradient"] >= EFFORT.search_steps * 5 * 4 * 6
    learned = summary["learned"]
    chains = round(learned["drawn"] * learned["usable_share"])
    # the torsion move looks at one proposal a step, and both kernels look at the start
    assert summary["evaluations"]["relaxation"]["gradient"] == chains * (EFFORT.relax_steps * 7 + 2)
    assert summary["evaluations"]["weighing"] == {"energy": 30, "gradient": 0}
    stages = {"plan", "search", "plan_learner", "learn", "weigh", "draw", "relax", "judge"}
    assert set(summary["seconds"]) == stages
    assert summary["seed"] == 0 and summary["versions"]["torch"] == torch.__version__


def test_free_energies_and_weights(finished):
    _, outcome = finished
    summary, kt = outcome.result, 0.0019872042586408316 * 300
    first, *rest = summary["conformers"]
    assert first["relative_free_energies"]["ensemble"]["kT"] == 0
    sources = {"ensemble": "population", "search": "search_population", "learned": None}
    for row in rest:
        for source, name in sources.items():
            population = name or "learned_population"
            free = row["relative_free_energies"][source]
            if row[population] and first[population]:
                assert free["kT"] == pytest.approx(-np.log(row[population] / first[population]))
                assert free["kcal_mol"] == pytest.approx(kt * free["kT"])
            assert free["error_kT"] is None or free["independent_samples"] >= 10
        assert row["weighted_population"] is None
    # trained for seconds: the weights say that they are worth nothing, in words
    told = summary["learned"]["weights"]
    assert told["paths"] == 30 and not told["usable"] and told["effective_paths"] < 50
    assert sum("No populations" in line for line in outcome.lines) == 1
    assert sum(line.startswith("free energies: diffusion model") for line in outcome.lines) == 1


def test_stereochemistry_is_that_of_the_smiles(finished):
    folder, _ = finished
    for mol in Chem.SDMolSupplier(str(folder / "ensemble.sdf"), removeHs=False):
        Chem.AssignStereochemistryFrom3D(mol)
        assert Chem.FindMolChiralCenters(mol) == [(1, "R")]


def test_energies_in_the_file_are_those_of_the_positions(finished):
    folder, outcome = finished
    mols = list(Chem.SDMolSupplier(str(folder / "ensemble.sdf"), removeHs=False))
    x = torch.tensor(np.array([m.GetConformer().GetPositions() for m in mols]))
    written = torch.tensor([float(m.GetProp("energy_kcal_mol")) for m in mols], dtype=torch.float64)
    mine = MMFF94(mols[0]).double().kcal_per_mol(x)
    difference = mine - written  # the zero is the lowest minimum
    assert (
        float((difference - difference.median()).abs().max()) < 0.05
    )  # SDF keeps four decimals of an Å
    lowest = min(row["minimum_energy_kcal_mol"] for row in outcome.result["conformers"])
    assert lowest == pytest.approx(0, abs=1e-6) and float(written.min()) > 0


def forbidden(*_):
    raise AssertionError("a finished stage ran again")


def test_repeating_reuses_every_stage(finished, monkeypatch):
    folder, outcome = finished
    forbid(monkeypatch, STAGES, forbidden)
    again = report(folder)
    for key in ("conformers", "samples", "learned", "delivered"):
        assert again.result[key] == outcome.result[key]
    for stage, count in outcome.result["evaluations"].items():  # clustering is done again
        assert stage == "clustering" or again.result["evaluations"][stage] == count


def test_more_samples_reuse_search_and_learner(finished, monkeypatch):
    folder, _ = finished
    forbid(monkeypatch, ("search", "learn", "weigh"), forbidden)
    monkeypatch.setattr(page, "write", lambda *_: None)
    assert run(config(folder, n=30)).result["samples"] == 30


def test_an_interruption_keeps_what_was_finished(interrupted):
    result, written = interrupted
    order = ["plan", "search", "plan_learner", "learn", "weigh", "draw", "relax"]
    there = [1, 3, 4, 5, 6]  # the second plan is made with the learner
    for k, (before, after) in zip(there, itertools.pairwise(written), strict=True):
        assert set(before) == set(order[:k])
        # a plan that is given is written down each time; what was computed is not
        assert all(after[name] == before[name] for name in before if name != "plan")
    assert set(written[-1]) >= set(order) and result["samples"] > 2


@pytest.mark.slow
def test_the_same_seed_gives_the_same_ensemble(interrupted, in_short, tmp_path):
    """However often it was interrupted."""
    first, _ = interrupted
    second = run(methanol(tmp_path / "b")).result
    other = run(methanol(tmp_path / "c", seed=1)).result
    assert first["mean_energy_kcal_mol"] == second["mean_energy_kcal_mol"]
    assert first["mean_energy_kcal_mol"] != other["mean_energy_kcal_mol"]


def test_nan_energy_is_an_error_that_says_so(tmp_path, monkeypatch):
    def broken(self, x):
        return torch.full(x.shape[:-2], torch.nan), torch.full_like(x, torch.nan)

    monkeypatch.setattr(MMFF94, "value_and_grad", broken)
    with pytest.raises(EnergyError, match="not finite"):
        run(config(tmp_path, smiles="CO"))


def test_a_reference_of_something_else_is_refused(tmp_path):
    nothing = np.zeros(0)
    path = tmp_path / "other.npz"
    meta = {"smiles": "CCC", "energy": "mmff94", "temperature": 300.0}
    Reference(
        np.zeros((0, 0)), nothing, nothing, np.zeros((0, 11, 3)), nothing, nothing, meta
    ).save(path)
    with pytest.raises(InputError, match="smiles CCC"):
        run(config(tmp_path / "run", smiles="CO", reference=path))


def test_a_reference_knows_its_molecule_however_it_is_written(tmp_path):
    mol = parse_smiles("CCO")
    x = embed(mol, 1, 0)
    bonds = bond_lengths(mol, torch.as_tensor(x)).mean(0).numpy()
    meta = {"smiles": "[CH3:1][CH2:2]O", "energy": "mmff94", "temperature": 300.0}
    path, nothing = tmp_path / "r.npz", np.zeros(0)
    Reference(np.zeros((0, 0)), nothing, bonds, x, np.ones(1), np.zeros(1), meta).save(path)
    given = config(tmp_path / "run", smiles="CCO", reference=path)
    assert known_reference(given, mol) is not None
    with pytest.raises(InputError, match="atoms in another order"):
        known_reference(given, parse_smiles("OCC"))
    for other in ("[2H]OCC", "CC[O-]"):
        with pytest.raises(InputError, match="is for smiles"):
            known_reference(given, parse_smiles(other))


def test_a_file_that_is_no_reference(tmp_path):
    path = tmp_path / "text.npz"
    path.write_text("not a reference")
    with pytest.raises(InputError, match="not a reference file"):
        run(config(tmp_path / "run", smiles="CO", reference=path))


def test_open_stereochemistry_is_told(tmp_path):
    _, warnings = build_system(config(tmp_path, smiles="CCC(C)O"))
    assert len(warnings) == 1 and "open" in warnings[0]


def test_the_plan_follows_the_budget(tmp_path):
    given = {"smiles": "CO", "effort": None}
    small = plan(config(tmp_path, **given, budget=0.5))
    assert small.parameters > 10_000
    assert plan(config(tmp_path, **given, budget=0.5, learner="none")).parameters == 0
    assert not (tmp_path / "stages").exists()


def test_a_comparison_does_not_depend_on_the_labels_of_equal_atoms():
    mol = parse_smiles("CC(C)CO")
    x = embed(mol, 60, 0)
    torsions, minima = find_torsions(mol), x[:1]
    theta = angles(torch.as_tensor(x), torsions).numpy()
    bonds = bond_lengths(mol, torch.as_tensor(x)).mean(0).numpy()
    reference = Reference(theta, np.zeros(60), bonds, minima, np.ones(1), np.zeros(1))
    elements, _ = Automorphism.from_mol(mol).enumerate()
    swap = next(
        g for g in elements if g[0] == 2 and g[2] == 0
    )  # the two methyl groups exchange their labels
    moved = torch.as_tensor(x)[:, swap]
    assert not np.allclose(angles(moved, torsions).numpy(), theta, atol=0.5)
    result = compare(mol, moved, 0.0, torsions, reference)
    assert result.js.value < 1e-9 and result.bond_angstrom < 1e-9
