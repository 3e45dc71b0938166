"""Lists of molecules: a stand-in computes them, so that only the list is tested."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orbitwise.errors import EnergyError, InputError
from orbitwise.methods.conformers.many.jobs import jobs_of
from orbitwise.methods.conformers.many.progress import Overall
from orbitwise.methods.conformers.many.run import run_many
from orbitwise.molecules.files.entry import Entry
from orbitwise.runs.outcome import Outcome

FILES = ("summary.json", "report.html", "conformers.sdf")


def stand_in(config) -> Outcome:
    """Two conformers; SMILES decides what goes wrong. Leaves one line for each call."""
    with open(config.out.parent / "calls", "a") as calls:
        calls.write(f"{config.smiles} {config.budget:g}\n")
    if config.smiles == "CF":
        raise EnergyError("no parameters")
    if config.smiles == "CCl":
        raise ZeroDivisionError("a\nfault")
    if config.smiles == "CBr":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.smiles == "CI":
        time.sleep(600)
    good = config.smiles != "CCCC" or config.budget > 6
    told = {
        "conformers": [
            {"population": 0.75, "population_error": 0.01, "minimum_energy_kcal_mol": 0.0},
            {"population": 0.25, "population_error": 0.01, "minimum_energy_kcal_mol": 0.8},
            {"population": 0.0, "population_error": 0.01, "minimum_energy_kcal_mol": 9.0},
        ],
        "search": {"rhat": 1.01 if good else 1.4},
        "delivered": {"reason": "it has not mixed"},
    }
    for name in FILES:
        (config.out / name).write_text(json.dumps(told))
    return Outcome(config.out, told, ["done"], 0 if good else 3)


stand_in.__module__ = "__main__"  # sent by value: workers do not have this file


def entries(*pairs: tuple[str, str]) -> list[Entry]:
    return [Entry.of(name, smiles, k) for k, (name, smiles) in enumerate(pairs, 1)]


def calls(out: Path) -> list[str]:
    path = out / "calls"
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return sorted(found)


def test_a_list_with_every_kind_of_fault(tmp_path, capfd):
    out = tmp_path / "all"
    given = entries(
        ("ethanol", "CCO"),
        ("../../évil name/<b>", "CCN"),
        ("broken", "C1CC("),
        ("no parameters", "CF"),
        ("bug", "CCl"),
        ("butane", "CCCC"),
        ("spirit", "OCC"),  # ethanol again
        ("killed", "CBr"),
    )
    found = run_many(given, {"budget": 6}, out, 2, run=stand_in)
    assert found.exit_code == 3
    states = [row.state for row in found.result]
    assert states == [
        "converged", "converged", "failed", "failed", "failed", "not converged", "converged",
        "failed",
    ]  # fmt: skip
    ethanol, evil, broken, energy, bug, butane, spirit, killed = found.result
    assert (ethanol.conformers, ethanol.population, ethanol.energy_range_kcal_mol) == (2, 0.75, 0.8)
    assert spirit.folder == ethanol.folder and spirit.name == "spirit"
    assert (out / evil.folder).parent == out and "/" not in evil.folder
    assert "unclosed" in broken.problem or "character" in broken.problem
    assert energy.problem == "no parameters"
    assert bug.problem.startswith("unexpected ZeroDivisionError: a fault (see log.txt")
    assert "Traceback" in (out / bug.folder / "log.txt").read_text()
    assert "memory" in killed.problem and butane.problem == "it has not mixed"
    assert any("butane: it has not mixed" in line for line in found.lines)
    # the one that dies takes its neighbour with it at most, which is tried again
    tried = calls(out)
    assert tried.count("CCO 6") == 1 or tried.count("CCO 6") == 2

    with open(out / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == states
    assert rows[0]["population"] == "0.75" and rows[3]["population"] == ""
    text = (out / "index.html").read_text()
    assert f'href="{ethanol.folder}/report.html"' in text and "<b>" not in text
    said = capfd.readouterr().err
    assert "[6/6]" in said and "/8]" not in said  # molecules to compute, not lines
    assert "Traceback" not in said

    # again, in another order, with a new one and more time: what has converged stays
    again = entries(("butane", "CCCC"), ("new", "CCC"), ("alcohol", "CCO"), ("no parameters", "CF"))
    found = run_many(again, {"budget": 12}, out, 1, run=stand_in)
    assert calls(out) == ["CCC 12", "CCCC 12", "CF 12"]
    assert [row.state for row in found.result] == ["converged"] * 3 + ["failed"]
    assert found.result[2].folder == ethanol.folder and found.result[2].name == "alcohol"
    # and nothing is computed where all is there
    found = run_many(again[:3], {"budget": 6}, out, 1, run=stand_in)
    assert calls(out) == [] and found.exit_code == 0
    # another temperature in the same folder would mix two lists
    with pytest.raises(InputError, match=r"temperature 300.0, not 350.0; choose another folder"):
        run_many(again, {"temperature": 350}, out, 1, run=stand_in)


def test_what_is_no_list(tmp_path):
    one = entries(("a", "CCO"))
    with pytest.raises(InputError, match="no molecule"):
        run_many([], {}, tmp_path)
    with pytest.raises(InputError, match="did you mean 'temperature'"):
        run_many(one, {"temprature": 3}, tmp_path)
    with pytest.raises(InputError, match="--reference"):
        run_many(one, {"reference": "x.npz"}, tmp_path)
    with pytest.raises(InputError, match="jobs"):
        run_many(one, {}, tmp_path, 0)
    with pytest.raises(InputError, match="there is no energy 'dft'"):
        run_many(one, {"energy": "dft"}, tmp_path)
    with pytest.raises(InputError, match="no solvent can be added"):
        run_many(one, {"solvent": "water"}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folders_do_not_depend_on_the_list(tmp_path):
    first = [("", "CCO"), ("x/y", "CCN"), ("x y", "CCC"), ("NUL", "C"), ("é" * 300, "CO")]
    rows, jobs = jobs_of(entries(*first), {}, tmp_path)
    names = [row.folder for row in rows]
    assert len({name.lower() for name in names}) == 5 and max(map(len, names)) <= 53
    assert names[0].startswith("C2H6O-") and names[1][:4] == names[2][:4] == "x-y-"
    rows, _ = jobs_of(entries(*first[::-1]), {}, tmp_path)
    assert [row.folder for row in rows] == names[::-1]
    assert all(job.config.smiles == job.row.smiles for job in jobs)


def test_a_molecule_is_computed_once_however_it_is_written(tmp_path):
    same = ["CN1C=[N+](CC)C=C1", "C[N+]1=CN(CC)C=C1", "[CH3:2][N+:1]1=CN(CC)C=C1"]
    other = ["CCO", "[2H]OCC", "[H]OC([H])([H])C", "CC(=O)O", "CC(=O)[O-]", "C[C@H](O)F"]
    rows, jobs = jobs_of(entries(*(("", s) for s in same + other)), {}, tmp_path)
    assert [job.rows for job in jobs] == [(0, 1, 2), (3, 5), (4,), (6,), (7,), (8,)]
    assert len({row.folder for row in rows}) == 6


def test_time_left_is_that_of_a_queue():
    overall = Overall(total=10, kept=0, width=2, budget=60.0)
    assert overall.seconds_left() == pytest.approx(300, abs=1)
    overall.took, overall.states = [10.0, 20.0], ["converged"] * 2
    overall.begun = {"a": time.monotonic(), "b": time.monotonic() - 5}
    # a and b end after 15 and 10 s, then six of 15 s for two: 55 and 60
    assert overall.seconds_left() == pytest.approx(60, abs=1)
    assert "2 of 10 done, 2 running · about 1 min 00 s left, until " in overall.line()


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(tmp_path):
    script = tmp_path / "go.py"
    body = Path(__file__).read_text().split("def entries")[0].split("FILES =")[1]
    script.write_text(
        "import json, os, signal, time\nfrom orbitwise.runs.outcome import Outcome\n"
        "from orbitwise.errors import EnergyError\n"
        "from orbitwise.methods.conformers.many.run import run_many\n"
        "from orbitwise.molecules.files.entry import Entry\n"
        f"FILES ={body}\n"  # and no guard of __main__
        f"given = [Entry.of(s, s, 1) for s in ('CCO', 'CI', 'CCN')]\n"
        f"run_many(given, {{}}, {str(tmp_path / 'out')!r}, 2, run=stand_in)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        time.sleep(0.1)
        if len(list((tmp_path / "out").glob("*/row.json"))) == 2:
            break
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "2 of 3 molecules are done" in err and "the same command goes on" in err
    table = (tmp_path / "out" / "summary.csv").read_text()
    assert table.count("converged") == 2 and table.count("waiting") == 1
