"""`orbitwise conformers` at its entrance: what it takes, what its help shows, its exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from orbitwise.cli.app import main
from orbitwise.methods.conformers import command
from orbitwise.methods.conformers.many import run as many
from orbitwise.molecules.files.structures import write_sdf
from orbitwise.molecules.molecule import embed, parse_smiles
from orbitwise.runs.outcome import Outcome

ALL_HELP = """
import sys
from orbitwise.cli.app import app, main
import typer
def walk(command, path):
    main([*path, "--help"])
    for name, part in getattr(command, "commands", {}).items():
        walk(part, [*path, name])
walk(typer.main.get_command(app), [])
"""


@pytest.mark.parametrize(
    "environment",
    [{}, {"TYPER_USE_RICH": "0"}, {"TERM": "dumb"}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}],
    ids=["rich", "plain", "dumb", "no colour", "colour"],
)
def test_extras_keep_their_brackets_however_help_is_rendered(environment):
    result = subprocess.run(
        [sys.executable, "-c", ALL_HELP],
        env={**os.environ, "COLUMNS": "80", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    said = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)
    for extra in ("xtb", "dft", "ray", "chgnet"):
        assert f"orbitwise[{extra}]" in said, said
    assert "\\" not in said.replace(r"written with / or \\", "")
    assert max(map(len, said.splitlines())) <= 80


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What reaches the pipeline, which has not converged."""
    found = []

    def run(config):
        found.append(config)
        return Outcome(tmp_path, {}, ["a line", "report: x"], exit_code=3)

    monkeypatch.setattr(command, "run", run)
    return found


def test_exit_code_is_that_of_the_outcome(asked, capsys):
    assert main(["conformers", "OCC", "--fast", "--learner", "none", "--processes", "2"]) == 3
    (config,) = asked
    assert (config.smiles, config.budget, config.precision) == ("OCC", 1.0, 0.03)
    assert (config.learner, config.processes) == ("none", 2)
    assert capsys.readouterr().out == "a line\nreport: x\n"
    assert main(["conformers", "CCO", "--fast", "--budget", "2"]) == 3
    assert asked[1].budget == 2.0 and asked[1].precision == 0.03


def test_a_file_of_one_molecule_is_that_molecule(asked, capsys, tmp_path):
    mol = parse_smiles("C[C@@H](N)O")
    path = tmp_path / "some.sdf"
    write_sdf(path, mol, embed(mol, 3))
    assert main(["conformers", str(path)]) == 3
    assert asked[0].smiles == "C[C@@H](N)O"
    assert "2 further frames" in capsys.readouterr().out


def test_a_list_goes_to_many(monkeypatch, tmp_path):
    found = {}

    def run_many(entries, options, out, jobs, **rest):
        found.update(entries=entries, options=options, out=out, jobs=jobs, **rest)
        return Outcome(out, [], ["done"])

    monkeypatch.setattr(many, "run_many", run_many)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drugs.smi").write_text("CCO ethanol\nC1CC( bad\n")
    arguments = ["conformers", "drugs.smi", "--jobs", "3", "--energy", "mmff94s"]
    assert main(arguments) == 0
    assert [entry.name for entry in found["entries"]] == ["ethanol", "bad"]
    assert found["options"]["energy"] == "mmff94s" and found["jobs"] == 3
    assert str(found["out"]) == "ensembles/drugs" and "out" not in found["options"]
    assert found["command"].startswith("orbitwise conformers drugs.smi --n 1000")
    assert found["command"].endswith("--jobs 3")


def test_dry_run_of_a_list(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drugs.csv").write_text("id,smiles\na,CCO\nb,C1CC(\nc,CCN\n")
    assert main(["conformers", "drugs.csv", "--dry-run", "--budget", "3"]) == 0
    said = capsys.readouterr().out
    assert "# molecules: 2 (and 1 that cannot be used)\n# no. 3 b: " in said
    assert "# expected minutes, of one job: at most about 6\n" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drugs.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["aspirin.sdf"], "no file 'aspirin.sdf', and not a SMILES: "),
        (["CCO", "--jobs", "2"], "--jobs is for a list"),
        (["CCO", "--charge", "1"], "--charge is for files without bonds"),
        (["CCO", "--learner", "magic"], "learner: should be 'torsions'"),
        (["CCO", "--precision", "0"], "precision: should be greater than 0"),
        (["O=O"], "is a radical"),
        (["bad.mol"], "bad.mol, record 1: the record is truncated"),
        (["list.smi", "--reference", "x.npz"], "--reference"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.mol").write_text("bad\n\n\n  1  0")
    (tmp_path / "list.smi").write_text("CCO\n")
    assert main(["conformers", *arguments]) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.mol", "list.smi"]


def test_pipes_without_unicode_get_replaced_characters():
    result = subprocess.run(
        [sys.executable, "-m", "orbitwise", "conformers", "Å"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: no file '?', and not a SMILES"), result.stderr
