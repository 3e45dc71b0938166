"""The search in rounds: shared by processes, gone on with, bounded by the clock; what it leaves as
one."""

from __future__ import annotations

import os
import time

import pytest
import torch

from orbitwise.errors import InputError
from orbitwise.methods.conformers import page
from orbitwise.methods.conformers.command import ConformersConfig, run
from orbitwise.methods.conformers.energy import build_system
from orbitwise.methods.conformers.exchange.columns import thinning
from orbitwise.methods.conformers.exchange.crew import Crew
from orbitwise.methods.conformers.exchange.found import Found
from orbitwise.methods.conformers.exchange.pooled import Pooled, fewer, of_search
from orbitwise.methods.conformers.system import Effort

EFFORT = Effort(
    chains=4, rungs=4, leapfrog=4, search_steps=60, shards=2, warm_steps=12, quenched=60
)


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


def test_a_longer_search_goes_on_and_is_the_same_as_one_at_once(tmp_path):
    longer = EFFORT.model_copy(update={"search_steps": 100})
    at_once = run(config(tmp_path / "once", effort=longer)).result

    begun = tmp_path / "begun"
    run(config(begun))
    spent = run(config(begun, effort=longer)).result
    assert spent["conformers"] == at_once["conformers"]
    assert spent["mean_energy_kcal_mol"] == at_once["mean_energy_kcal_mol"]
    with pytest.raises(InputError, match="100 steps of the search, more than the 60"):
        run(config(begun))


def test_processes_do_not_change_what_comes_out(finished, tmp_path):
    _, alone = finished
    shared = run(config(tmp_path / "run", processes=2)).result
    assert shared["conformers"] == alone.result["conformers"]
    counts = "evaluations"
    assert shared[counts]["search"] == alone.result[counts]["search"]


def test_the_effort_that_is_told_is_accepted_back(tmp_path):
    free = run(config(tmp_path / "a", effort=None, budget=0.01, smiles="CO")).result
    again = run(config(tmp_path / "b", effort=Effort(**free["effort"]), smiles="CO")).result
    assert again["conformers"] == free["conformers"]
    assert again["effort"] == free["effort"]


def test_a_lost_process_does_not_lose_its_part(finished):
    folder, _ = finished
    system, _ = build_system(config(folder))
    crew = Crew(config(folder), system, 2)
    here = os.getpid()
    assert crew.map(dies_elsewhere, [(here, 1), (here, 2)]) == [1, 2]
    crew.close()


def dies_elsewhere(_system, here: int, number: int) -> int:
    """Ends its process unless it is the one that asks."""
    if os.getpid() != here:
        os._exit(9)
    return number


def test_a_comb_over_columns_misses_none_of_them():
    """As many frames as are asked for in each column, although both have the same period."""
    steps, columns = 40, 8
    block = torch.arange(columns).repeat(steps)
    count = steps * columns
    even = torch.full((count,), 1 / count).double().log()
    pooled = Pooled(torch.arange(count).view(-1, 1, 1).float(), torch.zeros(count), even, block)
    found = of_search(pooled, steps)
    assert torch.bincount(found.block, minlength=columns).tolist() == [5] * columns
    assert float(found.weight.sum()) == pytest.approx(1)
    assert len(fewer(found, 7, 0)) == 7


def test_frames_of_all_temperatures_are_pooled():
    """Harmonic energies of two temperatures: the mean energy is that of the target."""
    g = torch.Generator().manual_seed(0)
    cold = 0.5 * torch.randn(400, 8, 3, generator=g).square().sum(-1)
    hot = 0.5 * torch.randn(300, 1, 8, 3, generator=g).square().sum(-1) * 2
    info = {"temperatures": [300.0, 600.0], "steps": 400}
    x, hot_x = torch.zeros(400, 8, 1, 3), torch.zeros(300, 1, 8, 1, 3)
    mean, error = Found(x, cold, 0.1, info, hot_x, hot).pooled().mean_energy()
    assert abs(mean - 1.5) < 4 * error and error < 0.03


def test_thinning_keeps_a_power_of_two():
    assert [thinning(n, 10) for n in (0, 10, 11, 20, 21, 80)] == [1, 1, 2, 2, 4, 8]


@pytest.mark.slow
def test_the_budget_bounds_the_clock(tmp_path):
    begin = time.monotonic()
    run(config(tmp_path / "run", effort=None, budget=0.25, precision=0.001))
    assert time.monotonic() - begin < 45  # 15 s were asked for; the machine may be busy
