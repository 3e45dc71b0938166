"""A folder has one process and one job at a time, whatever became of those before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from orbitwise.errors import InputError
from orbitwise.runs.folder import working, works_in
from orbitwise.runs.job import Job

HOLDS = """
import sys, time
from orbitwise.runs.folder import working
with working(sys.argv[1]):
    print("in", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that works in the folder ``run``."""
    words = [sys.executable, "-c", HOLDS, str(tmp_path / "run")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in\n"
        yield process
        process.kill()


def test_the_second_process_is_refused_at_once_and_told_who_is_there(tmp_path, holder):
    begin = time.monotonic()
    told = rf"process {holder.pid} on .* \(since 20"
    with pytest.raises(InputError, match=told), working(tmp_path / "run"):
        pass
    assert time.monotonic() - begin < 1


def test_a_killed_process_leaves_the_folder(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with working(tmp_path / "run"):
        pass


def test_a_command_within_a_command_goes_on(tmp_path):
    with working(tmp_path), working(tmp_path / "."):
        pass
    with working(tmp_path):
        pass


def crystals(n=20, **changes):
    return Job("crystals", {"formula": "SrTiO3", "seed": 0, **changes}, {"n": n})


def test_one_job_for_a_folder(tmp_path):
    with working(tmp_path / "a", crystals()) as folder:
        (folder / "x").write_text("result")
    for other, said in (
        (crystals(3), "larger result .n 20; asked for: n 3"),
        (crystals(formula="BaTiO3"), "formula SrTiO3; asked for: formula BaTiO3"),
        (crystals(seed=1), "seed 0"),
        (Job("conformers"), "holds a job of 'crystals' .formula SrTiO3, seed 0."),
    ):
        with pytest.raises(InputError, match=said), working(tmp_path / "a", other):
            pytest.fail("let in")
    for more in (20, 40):
        with working(tmp_path / "a", crystals(more)):
            pass
    with pytest.raises(InputError, match="n 40"), working(tmp_path / "a", crystals(20)):
        pass


def test_more_that_was_not_finished_does_not_count(tmp_path):
    with working(tmp_path, crystals(20)):
        (tmp_path / "x").write_text("")
    with pytest.raises(KeyboardInterrupt), working(tmp_path, crystals(40)):
        raise KeyboardInterrupt
    with working(tmp_path, crystals(20)):
        pass


@pytest.mark.parametrize(
    "name", ["summary.json", "report.html", "config.yaml", "samples.npz", "ensemble.sdf"]
)
def test_files_in_the_way_are_named_before_anything_is_done(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=name), working(tmp_path, crystals()):
        pytest.fail("let in")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_failure_before_the_first_file_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), working(tmp_path / "a" / "b", crystals()):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    with pytest.raises(ZeroDivisionError), working(tmp_path / "there", crystals()):
        raise ZeroDivisionError
    assert list((tmp_path / "there").iterdir()) == []


def test_folders_of_earlier_versions_are_known_by_what_is_in_them(tmp_path):
    (tmp_path / "config.yaml").write_text("method: orbit_diffusion\n")
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match="train orbit_diffusion"), working(tmp_path, crystals()):
        pass
    with working(tmp_path, Job("train orbit_diffusion")):
        pass


def test_actions_on_what_is_no_run_say_so_themselves(tmp_path):
    @works_in("run")
    def act(run):
        return "asked"

    assert act(tmp_path / "nowhere") == "asked"
    assert list(tmp_path.iterdir()) == []
