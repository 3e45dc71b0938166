"""The rule: what is delivered is never worse than the best of the stages, and a finished stage is
never without a report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from filelock import FileLock

from orbitwise.errors import EnergyError, InputError
from orbitwise.methods.conformers import page
from orbitwise.methods.conformers.command import ConformersConfig, report, run
from orbitwise.methods.conformers.deliver import choose
from orbitwise.methods.conformers.diffusion import learner
from orbitwise.methods.conformers.diffusion.weights import Worth
from orbitwise.methods.conformers.energy import build_system
from orbitwise.methods.conformers.exchange.mixing import Mixing
from orbitwise.methods.conformers.system import Effort
from orbitwise.molecules.files.reference import Reference

EFFORT = Effort(
    chains=4, rungs=4, leapfrog=4, search_steps=60, shards=2, warm_steps=12, quenched=60
)
MIXED, NOT = Mixing(1.01, 500.0), Mixing(1.4, 20.0)


def config(folder, smiles="OCCO", **changes) -> ConformersConfig:
    return ConformersConfig(
        **{"smiles": smiles, "n": 20, "effort": EFFORT, "out": folder, "processes": 1, **changes}
    )


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    monkeypatch.setattr(page, "write", lambda *_: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glycol") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "write", lambda *_: None)
        return folder, run(config(folder))


def test_the_rule():
    usable, not_usable = Worth(None, True), Worth(None, False)
    assert choose(MIXED, usable).source == "search" and choose(MIXED, None).converged
    assert choose(NOT, usable).source == "weights" and choose(NOT, usable).converged
    for worth in (None, not_usable):
        assert choose(NOT, worth).source == "search" and not choose(NOT, worth).converged
    assert "Nothing has converged" in choose(NOT, None).reason
    assert "no molecules" in choose(MIXED, None, failed="no molecules").reason


def test_a_search_that_has_not_mixed_is_headed_so(finished):
    folder, outcome = finished
    assert outcome.exit_code == 3 and not outcome.result["delivered"]["converged"]
    assert any("Not converged" in line for line in outcome.lines)
    assert json.loads((folder / "summary.json").read_text())["delivered"]["source"] == "search"


def test_a_learner_that_fails_leaves_the_search_with_a_report(tmp_path, monkeypatch):
    def fails(*_):
        raise EnergyError("no sample relaxed to a molecule")

    monkeypatch.setattr(learner, "learn", fails)
    outcome = run(config(tmp_path / "run", learner="diffusion"))
    assert "no sample relaxed to a molecule" in outcome.result["delivered"]["reason"]
    assert outcome.result["learned"] is None
    assert (tmp_path / "run" / "ensemble.sdf").exists()
    assert (tmp_path / "run" / "stages" / "search.safetensors").exists()


def test_missed_goals_of_a_reference_are_no_success(finished, monkeypatch):
    from orbitwise.methods.conformers import judge, words

    folder, _ = finished
    system, _ = build_system(config(folder))
    bonds = np.full(system.mol.GetNumBonds(), 9.0)  # no such bonds
    frames = np.zeros((50, 3)), np.zeros(50)
    minima = np.zeros((0, 10, 3)), np.zeros(0), np.zeros(0)
    meta = {"smiles": "OCCO", "energy": "mmff94", "temperature": 300.0}
    path = folder.parent / "reference.npz"
    Reference(*frames, bonds, *minima, meta).save(path)
    assert run(config(folder, reference=path)).exit_code == 3  # the worse news first
    monkeypatch.setattr(judge, "choose", lambda *_: choose(MIXED, None))
    assert run(config(folder, reference=path)).exit_code == words.GOALS_MISSED
    assert report(folder).exit_code == words.GOALS_MISSED


def test_another_job_in_the_folder_is_refused(finished):
    folder, _ = finished
    for change in ({"smiles": "OCCN"}, {"temperature": 400.0}, {"seed": 1}):
        with pytest.raises(InputError, match="holds another job"):
            run(config(folder, **change))
    with pytest.raises(InputError, match="holds a finished search of other settings"):
        run(config(folder, effort=EFFORT.model_copy(update={"leapfrog": 5})))


def test_two_processes_in_one_folder(finished):
    folder, _ = finished
    with (
        FileLock(folder / ".orbitwise" / "lock"),
        pytest.raises(InputError, match="another process works there"),
    ):
        run(config(folder))
