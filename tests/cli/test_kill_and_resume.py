"""Long commands killed with SIGKILL in the middle: what was finished is kept, and the same command
goes on to the end. Trainings: tests/training; lists of molecules: tests/methods/conformers."""

from __future__ import annotations

import json
import os

import pytest

from attempts import attempts

DONE = (0, 3)  # 3: not converged in so short a time

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    with attempts(tmp_path_factory.mktemp("killed")) as found:
        yield found


def test_a_search_of_conformers_goes_on_from_its_last_stage(command):
    words = ("conformers", "CO", "--budget", "0.05", "--precision", "0.2", "--out", "methanol")
    killed = command.run(*words, when=("methanol/stages/plan.safetensors", 1))
    assert killed.sent and killed.code == -9
    stage = command.folder / "methanol/stages/plan.safetensors"
    finished = stage.read_bytes()

    ended = command.run(*words)
    assert ended.code in DONE and "Traceback" not in ended.said, ended.said
    assert stage.read_bytes() == finished
    summary = json.loads((command.folder / "methanol/summary.json").read_text())
    assert len(summary["conformers"]) == 1
    assert (command.folder / "methanol/report.html").is_file()
    again = command.run(*words)
    assert again.code in DONE and stage.read_bytes() == finished


def test_crystals_of_a_formula(command):
    pytest.importorskip("pymatgen.core", reason="needs orbitwise[crystals]")
    words = ("crystals", "SrTiO3", "--n", "3", "--out", "perovskite")
    killed = command.run(*words, when=("perovskite/**/*", 4))
    assert killed.sent and killed.code == -9
    ended = command.run(*words)
    assert ended.code == 0 and "Traceback" not in ended.said, ended.said
    assert list((command.folder / "perovskite").rglob("*.cif"))

    unbroken = command.run("crystals", "SrTiO3", "--n", "3", "--out", "unbroken")
    assert unbroken.code == 0
    for path in (command.folder / "unbroken").rglob("*.cif"):
        other = command.folder / "perovskite" / path.relative_to(command.folder / "unbroken")
        assert other.read_text() == path.read_text()


def test_evaluation_of_a_run(command):
    pytest.importorskip("biotite", reason="needs orbitwise[proteins]")
    import torch

    from orbitwise.proteins.chain import Chain
    from orbitwise.proteins.files import write_pdb
    from orbitwise.proteins.ideal_backbones import HELIX, build_backbone

    generator = torch.Generator().manual_seed(0)
    for k in range(12):
        turns = torch.tensor(HELIX)[:, None] + 6 * torch.randn(2, 9 + k % 4, generator=generator)
        chain = Chain(build_backbone(*turns).numpy(), "A" * turns.shape[1], f"made_{k}")
        write_pdb(command.folder / "chains" / f"{chain.name}.pdb", chain)
    small = ("network.hidden=16", "network.layers=1", "train.batch_size=4", "shortest=8")
    fast = ("train.steps=4", "train.accelerator=cpu", "sampling.steps=3", "judge.novelty=2")
    words = ("protein_backbones/ca", "data=chains", *small, *fast, "--out", "ca")
    assert command.run("train", *words).code == 0
    killed = command.run("sample", "ca", "--n", "40", when=("ca/**/*.pdb", 3))
    assert killed.sent and killed.code == -9
    assert command.run("sample", "ca", "--n", "6").code == 0
    names = {path.name for path in (command.folder / "ca/samples").glob("*.pdb")}
    wanted = {f"sample_{k:04d}.pdb" for k in range(1, 7)}
    assert names >= wanted and len(names - wanted) <= 1  # the file at hand is nobody's
    ended = command.run("evaluate", "ca")
    assert ended.code == 0 and "Traceback" not in ended.said, ended.said
    assert (command.folder / "ca/report.html").is_file()
