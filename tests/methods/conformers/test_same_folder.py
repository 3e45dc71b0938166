"""A second command in the folder of a first one: it goes on, or is refused and changes nothing."""

from __future__ import annotations

import json

import pytest

from orbitwise.errors import InputError
from orbitwise.methods.conformers.command import ConformersConfig, report, run
from orbitwise.methods.conformers.exchange import pace, search
from orbitwise.methods.conformers.system import Effort

EFFORT = Effort(
    chains=2, rungs=4, leapfrog=4, search_steps=60, shards=1, warm_steps=30, quenched=60
)


def methanol(folder, **changes) -> ConformersConfig:
    given = {"smiles": "CO", "n": 10, "effort": EFFORT, "out": folder, "processes": 1}
    return ConformersConfig(**{**given, **changes})


@pytest.fixture
def first(tmp_path):
    run(methanol(tmp_path / "first"))
    return tmp_path / "first"


def kept(folder) -> dict[str, bytes]:
    files = [folder / "config.yaml", *sorted((folder / "stages").iterdir())]
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learner": "none"}, "learner torsions"),
        ({"effort": EFFORT.model_copy(update={"chains": 4})}, "other settings"),
        ({"effort": EFFORT.model_copy(update={"search_steps": 40})}, "60 steps"),
        ({"seed": 1}, "seed 0"),
    ],
)
def test_what_is_refused_leaves_the_folder_as_it_was(first, changes, message):
    before = kept(first)
    with pytest.raises(InputError, match=message):
        run(methanol(first, **changes))
    after = kept(first)

    assert after.keys() == before.keys()
    for name in ("config.yaml", "search.safetensors"):
        assert after[name] == before[name]

    told = report(first).result
    assert told["search"]["steps"] == 30


def test_a_budget_goes_on_with_what_an_effort_began(first):
    told = json.loads((first / "summary.json").read_text())
    assert told["search"]["budget_minutes"] is None  # none was spent

    longer = run(methanol(first, effort=None, budget=0.02, precision=0.001)).result

    assert longer["search"]["steps"] > told["search"]["steps"]
    for name in ("search", "planning"):
        more, few = (of["evaluations"].get(name, {"gradient": 0}) for of in (longer, told))
        assert more["gradient"] >= few["gradient"]
    assert longer["search"]["budget_minutes"] == 0.02


def test_without_its_plan_a_search_is_not_lost(first):
    (first / "stages" / "plan.safetensors").unlink()
    with pytest.raises(InputError, match="would be lost"):
        run(methanol(first, effort=None, budget=0.02))
    assert run(methanol(first)).result["search"]["steps"] == 30


def test_a_budget_that_is_spent_before_the_first_step_gives_an_answer_that_says_so(tmp_path):
    outcome = run(methanol(tmp_path / "tiny", effort=None, budget=1e-6))

    assert outcome.exit_code == 3
    assert outcome.result["search"]["steps"] == pace.FEWEST
    assert "Not converged" in outcome.lines[0]

    again = run(methanol(tmp_path / "tiny", effort=None, budget=1e-6))
    assert again.result["search"]["steps"] == pace.FEWEST


def test_ctrl_c_loses_no_finished_round(tmp_path, monkeypatch):
    effort = EFFORT.model_copy(update={"search_steps": 110})  # rounds of 50 and 30 steps
    whole = run(methanol(tmp_path / "whole", effort=effort)).result
    step, one = search.Search, search.Search._round  # before it is replaced

    def interrupted(self, effort, found, *args, **kwargs):
        if found.info["steps"] >= 50:
            raise KeyboardInterrupt
        return one(self, effort, found, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(step, "_round", interrupted)
        run(methanol(tmp_path / "cut", effort=effort))
    assert (tmp_path / "cut" / "stages" / "search.safetensors").exists()

    monkeypatch.setattr(step, "_start", lambda *_: pytest.fail("started anew"))
    cut = run(methanol(tmp_path / "cut", effort=effort)).result
    assert cut["mean_energy_kcal_mol"] == whole["mean_energy_kcal_mol"]
    assert cut["search"]["steps"] == whole["search"]["steps"]


@pytest.mark.parametrize("budget", [float("inf"), float("nan")])
def test_a_budget_is_finite(budget):
    with pytest.raises(ValueError, match="budget"):
        ConformersConfig(smiles="CO", budget=budget)
