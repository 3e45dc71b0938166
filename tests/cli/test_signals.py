"""Signals that end a command: what was reached is kept, the exit code says which it was, and what
is to be ignored is ignored."""

from __future__ import annotations

import os
from signal import SIGHUP, SIGINT, SIGTERM

import pytest

from attempts import attempts
from orbitwise.molecules.files.structures import write_extxyz
from orbitwise.molecules.molecule import embed, parse_smiles
from orbitwise.training import read_checkpoint

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
SMALL = ("network.hidden=16", "network.layers=1", "train.batch_size=8", "train.accelerator=cpu")


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    mol = parse_smiles("CO")
    write_extxyz(folder / "methanol.extxyz", mol, embed(mol, 20, seed=0))
    with attempts(folder) as found:
        yield found


def train(command, out, steps, **how):
    words = ("data=methanol.extxyz", f"train.steps={steps}", "train.log_every=1", *SMALL)
    return command.run("train", "orbit_diffusion/default", *words, "--out", out, **how)


@pytest.mark.parametrize(("number", "code"), [(SIGTERM, 143), (SIGINT, 130), (SIGHUP, 129)])
def test_a_training_saves_and_says_which_signal_it_was(command, number, code):
    out = number.name
    ended = train(command, out, 100_000, when=(f"{out}/metrics.jsonl", 3), signal=number)
    assert ended.sent and ended.code == code
    assert ended.said.count("\n") <= 2 and "Traceback" not in ended.said, ended.said
    assert "run the same command again to go on" in ended.said
    assert (number.name in ended.said) == (number != SIGINT)
    rows = (command.folder / out / "metrics.jsonl").read_text().splitlines()
    assert read_checkpoint(command.folder / out / "checkpoint.safetensors").step == len(rows) >= 3


@pytest.mark.parametrize("number", [SIGINT, SIGTERM, SIGHUP])
def test_what_the_caller_ignores_stays_ignored(command, number):
    out = f"ignored-{number.name}"
    ended = train(
        command, out, 12, when=(f"{out}/metrics.jsonl", 3), signal=number, ignored=[number]
    )
    assert ended.sent and ended.code == 0, ended.said
    assert read_checkpoint(command.folder / out / "checkpoint.safetensors").step == 12
