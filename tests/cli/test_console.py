"""Output in any console: what an encoding does not have is replaced; no command fails for it."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.io import write
from rich.console import Console

from orbitwise.cli.app import main
from orbitwise.runs.registry import cards
from orbitwise.training.progress import Progress, ProgressBar

RUN = {
    "method": "sgds",
    "energy": {"name": "forty_gaussians"},
    "search": {"method": "chains", "chains": 8, "steps": 20, "warmup": 20, "prior_scale": 20.0},
    "sampler": {"network": {"hidden": 16}},
    "likelihood_steps": 5,
    "balance_steps": 2,
    "likelihood": {"batch_size": 16, "accelerator": "cpu"},
    "balance": {"batch_size": 16, "accelerator": "cpu"},
    "evaluation": {"paths": 50, "reference": 50},
}


@pytest.fixture(params=["ascii", "cp1252", "utf-8"])
def console(request, monkeypatch, tmp_path):
    """What ``main`` writes to pipes of that encoding, which refuse what they do not have."""
    monkeypatch.chdir(tmp_path)
    encoding = request.param

    def run(*arguments: str) -> tuple[int, str]:
        pipes = [io.TextIOWrapper(io.BytesIO(), encoding, errors="strict") for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", pipes[0])
        monkeypatch.setattr(sys, "stderr", pipes[1])
        code = main(list(arguments))
        for pipe in pipes:
            pipe.flush()
        said = "".join(pipe.buffer.getvalue().decode(encoding) for pipe in pipes)
        assert "Unicode" not in said and "unexpected" not in said, said
        return code, said

    run.encoding = encoding
    return run


def test_help_and_cards(console):
    commands = ["conformers", "crystals", "train", "sample", "evaluate", "audit", "report"]
    for command in ([], *([c] for c in commands), ["methods"], ["methods", "show"]):
        assert console(*command, "--help")[0] == 0
    assert console("methods", "list")[0] == 0 and console("methods", "cite")[0] == 0
    shown = [console("methods", "show", name, "--all") for name in cards()]
    assert not any(code for code, _ in shown)
    assert ("∈" in "".join(text for _, text in shown)) <= (console.encoding == "utf-8")


def test_mistakes_with_other_letters(console, tmp_path):
    (tmp_path / "Ångström.yaml").write_text("method: μ\n", encoding="utf-8")
    code, said = console("train", "Ångström.yaml")
    assert code == 2 and "unknown method" in said and ", line 1" in said
    assert ("Ångström" in said) == (console.encoding != "ascii")
    assert console("train", "orbit_diffusion", "data=水.sdf", "--dry-run")[0] == 2
    assert console("sample", "ξ")[0] == 2
    assert console("methods", "show", "λ")[0] == 2
    assert console("train", "orbit_diffusion", "ψ=1")[0] == 2
    assert console("conformers", "C水")[0] == 2


def test_a_run_from_its_plan_to_its_evaluation(console, tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(RUN))
    assert console("train", "run.yaml", "--dry-run")[0] == 0
    assert console("train", "run.yaml", "--out", "Å")[0] == 0
    assert console("sample", "Å", "--n", "5")[0] == 0
    code, said = console("evaluate", "Å")
    assert code == 0 and "ELBO" in said
    assert ("±" in said) == (console.encoding != "ascii")
    assert ("∇U" in said) == (console.encoding == "utf-8")


def test_an_audit(console, tmp_path):
    x = np.random.default_rng(0).normal(size=(2, 4, 3)) + 3 * np.eye(4, 3)
    write(tmp_path / "cu.extxyz", [Atoms("Cu4", frame) for frame in x])
    code, said = console("audit", "--ase", "lj", "cu.extxyz", "-n", "2", "--budget", "5")
    assert code == 0 and "report" in said


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("terminal", [True, False])
def test_progress(encoding, terminal):
    pipe = io.TextIOWrapper(io.BytesIO(), encoding, errors="strict")
    shown = Console(file=pipe, force_terminal=terminal)
    with ProgressBar("training", shown) as bar:
        for step in range(3):
            bar(Progress(step, 3, 0.5, 2.0, 1.0))
    pipe.flush()
    assert "training" in pipe.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_process_of_its_own(encoding):
    """As a shell starts it."""
    code = "import sys; from orbitwise.cli import main; sys.exit(main(['methods', 'show', 'sgds']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert done.stdout.decode(encoding)
