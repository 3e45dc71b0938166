"""`orbitwise audit` as a user meets it: runs, force fields, calculators, and one line for every
mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from absent import make_absent
from orbitwise.cli.app import main
from orbitwise.molecules.files.structures import write_extxyz
from orbitwise.molecules.molecule import embed, parse_smiles

MODULE = """
import torch
from ase.calculators.emt import EMT

def pair(species, positions, cell):
    x = positions.detach().requires_grad_()
    energy = (-(x[:, :, None] - x[:, None]).square().sum(-1)).exp().sum((-1, -2))
    return {"energy": energy, "forces": -torch.autograd.grad(energy.sum(), x)[0]}

class Leaning(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.push = torch.nn.Parameter(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    def forward(self, species, positions, cell):
        return self.push.expand_as(positions)

class Breaking(EMT):
    def calculate(self, atoms, properties, system_changes):
        if len(atoms) == 3:
            raise ValueError("it broke")
        super().calculate(atoms, properties, system_changes)

def made():
    return pair

def broken():
    raise RuntimeError("no such weights")

number = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with a module, crystals without references, and molecules with EMT's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audited_module.py").write_text(MODULE)
    copper = [bulk("Cu", "fcc", a=3.6, cubic=True) for _ in range(3)]
    for k, a in enumerate(copper):
        a.rattle(0.1, seed=k)
    write("cu.extxyz", copper)
    frames = []
    for k in range(24):
        a = molecule("CH3OH")
        a.rattle(0.1, seed=k)
        a.calc = EMT()
        a.calc = SinglePointCalculator(a, energy=a.get_potential_energy(), forces=a.get_forces())
        frames.append(a)
    write("methanol.extxyz", frames)
    write("mixed.extxyz", [molecule("CH3OH"), molecule("H2O")])
    return tmp_path


def _one_line(capfd, *arguments: str) -> str:
    code = main(["audit", *arguments])
    captured = capfd.readouterr()
    lines = captured.err.strip().splitlines()
    assert code == 2 and len(lines) == 1 and "Traceback" not in captured.err, captured.err
    assert lines[0].startswith("error: ")
    return lines[0]


def test_what_looks_like_reference_values_is_said_on_the_terminal(here, capsys):
    text = "1\nProperties=species:S:1:pos:R:3:dft_force:R:3 DFT_energy=-1\nCu 0 0 0 0 0 0\n"
    Path("other.extxyz").write_text(text)
    assert main(["audit", "--ase", "emt", "other.extxyz", "--budget", "1"]) == 0
    err = capsys.readouterr().err
    assert "note: other.extxyz: DFT_energy, dft_force are not used; call them energy" in err


def test_a_calculator_without_references(here, capsys):
    assert main(["audit", "--ase", "emt", "cu.extxyz", "--group", "o3"]) == 0
    out = capsys.readouterr().out
    assert "Symmetric under rotations and reflections to rounding" in out
    assert (
        "no reference values" in out
        and "CPU time" in out
        and "report: audit-emt/report.html" in out
    )
    found = json.loads((here / "audit-emt/audit.json").read_text())
    assert [r["output"] for r in found["rows"]] == ["energy", "forces", "stress"]
    assert all(r["verdict"] == "rounding" for r in found["rows"])
    assert found["evaluations"] == 3 * 48 + 3 + 2 and found["reference"] is False
    assert (
        found["versions"]["torch"] and found["device"] and found["seed"] == 0 and "created" in found
    )
    assert (here / "audit-emt/audit.png").read_bytes().startswith(b"\x89PNG")
    page = (here / "audit-emt/report.html").read_text()
    assert "Symmetry audit" in page and "What was found" in page and "<table" in page


def test_a_force_field_against_references(here, capsys):
    arguments = ["audit", "audited_module:Leaning", "--data", "methanol.extxyz", "--out", "out"]
    assert main([*arguments, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "model: audited_module:Leaning" in out and "# parameters: 3\n" in out
    assert "# expected model evaluations: 600\n" in out and not (here / "out").exists()
    assert main(arguments) == 0
    found = json.loads((here / "out/audit.json").read_text())
    (row,) = found["rows"]
    # the constant force (0, 0, 1): its square over three components is noise, and the rest is the
    # force itself
    assert row["equivariance"]["value"] == pytest.approx(1 / 3, rel=1e-9)
    assert row["twirled"]["value"] == pytest.approx(np.mean(_forces(here) ** 2), rel=1e-6)
    assert found["parameters"] == 3 and row["verdict"] == "symmetric enough"
    out = capsys.readouterr().out
    # 100 % of a useless answer
    assert "is orientation noise" in out and "other errors are larger still" in out


def _forces(here) -> np.ndarray:
    from ase.io import read

    return np.stack([a.get_forces() for a in read(here / "methanol.extxyz", ":")])


def test_the_same_seed_gives_the_same_audit(here, capsys):
    rows = []
    for out in ("a", "b"):
        command = [
            "audit",
            "audited_module:Leaning",
            "--data",
            "methanol.extxyz",
            "--nodes",
            "3",
            "-n",
            "9",
        ]
        assert main([*command, "--loss", "l1", "--out", out]) == 0
        rows.append(json.loads((here / out / "audit.json").read_text())["rows"])
    assert rows[0] == rows[1] and rows[0][0]["items"] == 9 and rows[0][0]["nodes"] == 3


def test_functions_that_return_models_and_permutations(here, capsys):
    for name in ("made", "pair"):
        arguments = ["audit", f"audited_module:{name}", "--data", "methanol.extxyz", "-n", "4"]
        assert main([*arguments, "--group", "permutation", "--nodes", "5"]) == 0
        assert "Symmetric under permutations of the atoms to rounding" in capsys.readouterr().out


def test_a_budget_leaves_structures_out(here, capsys):
    assert main(["audit", "--ase", "emt", "methanol.extxyz", "--budget", "1e-9"]) == 0
    out = capsys.readouterr().out
    assert "23 batches were left out: the budget" in out
    found = json.loads((here / "audit-emt/audit.json").read_text())
    assert (
        found["rows"][0]["items"] == 1 and found["rows"][0]["total"]["error"] is None
    )  # JSON has no NaN


def test_a_run(tmp_path, capsys):
    mol = parse_smiles("CO")
    write_extxyz(tmp_path / "methanol.extxyz", mol, embed(mol, 30, seed=0))
    run = tmp_path / "run"
    small = [
        "network.hidden=16",
        "network.layers=1",
        "train.batch_size=16",
        "train.accelerator=cpu",
    ]
    plain = [*small, "network.name=transformer", "train.steps=10", "--out", str(run)]
    assert main(["train", "orbit_diffusion", f"data={tmp_path / 'methanol.extxyz'}", *plain]) == 0
    assert (
        main(["audit", str(run), "--levels", "0.5,0.9", "--gradients", "--nodes", "octahedral:2"])
        == 0
    )
    assert "gradient ratio" in capsys.readouterr().out
    found = json.loads((run / "audit/audit.json").read_text())
    assert [r["level"] for r in found["rows"]] == [0.5, 0.9]
    assert all(not r["rounding"] and r["items"] == 6 and r["nodes"] == 48 for r in found["rows"])
    assert all(r["gradients"]["equivariance"]["value"] > 0 for r in found["rows"])
    assert "σ/α" in (run / "audit/report.html").read_text()
    run = tmp_path / "equivariant"
    exact = [*small, "train.steps=10", "--out", str(run)]
    assert main(["train", "orbit_diffusion", f"data={tmp_path / 'methanol.extxyz'}", *exact]) == 0
    assert main(["audit", str(run), "--levels", "0.5"]) == 0
    assert "to rounding" in capsys.readouterr().out
    assert main(["audit", str(run), "--levels", "0.5", "--group", "permutation"]) == 0


def test_runs_that_cannot_be_audited(capfd, tmp_path):
    (tmp_path / "config.yaml").write_text("method: conformers\nsmiles: CCO\n")
    line = _one_line(capfd, str(tmp_path))
    assert "runs of conformers cannot be audited" in line and "orbit_diffusion" in line
    assert "no such folder" in _one_line(capfd, str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "say what to audit"),
        ("--ase emt", "--data FILE.extxyz"),
        ("--ase emtt cu.extxyz", "did you mean 'emt'"),
        ("--ase emt none.extxyz", "none.extxyz: no such file"),
        ("--ase emt cu.extxyz --data cu.extxyz", "two files"),
        (
            "--ase audited_module:Breaking mixed.extxyz",
            "frame 2: Breaking failed (ValueError: it broke)",
        ),
        ("--ase audited_module:broken cu.extxyz", "no such weights"),
        ("--ase audited_module:number cu.extxyz", "not an ASE calculator"),
        ("--ase nowhere:f cu.extxyz", "No module named 'nowhere'"),
        ("audited_module:pair", "--data FILE.extxyz"),
        ("audited_module:par --data cu.extxyz", "has no attribute 'par'"),
        ("audited_module:number --data cu.extxyz", "a int cannot be called"),
        ("audited_module:broken --data cu.extxyz", "RuntimeError: no such weights"),
        ("audited_module: --data cu.extxyz", "give package.module:name"),
        ("--ase emt cu.extxyz --nodes cubic", "unknown nodes 'cubic'"),
        (
            "--ase emt cu.extxyz --group permutation --nodes octahedral",
            "quadrature is for rotations",
        ),
        ("--ase emt mixed.extxyz --group permutation", "3 to 6 atoms"),
        ("--ase emt cu.extxyz --loss l3", "unknown loss 'l3'"),
        ("--ase emt cu.extxyz --budget 0", "greater than 0"),
        ("--ase emt cu.extxyz --group u1", "'--group'"),
    ],
)
def test_mistakes(here, capfd, arguments, message):
    assert message in _one_line(capfd, *arguments.split())


def test_a_missing_extra_is_named(here, capfd, monkeypatch):
    make_absent("chgnet", monkeypatch)
    line = _one_line(capfd, "--ase", "chgnet", "cu.extxyz")
    assert "pip install 'orbitwise[chgnet]'" in line
