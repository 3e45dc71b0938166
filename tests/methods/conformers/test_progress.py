"""One line for the whole command: its end is that of the stage plus the stages to come."""

import io
import re

import pytest
from rich.console import Console

from orbitwise.methods.conformers import clock
from orbitwise.methods.conformers.clock import Overall, as_clock, shown
from orbitwise.training import Progress


@pytest.fixture
def now(monkeypatch):
    """A clock that is set by hand."""
    at = [100.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: at[0])
    return at


def overall(terminal: bool = False) -> Overall:
    found = Overall.of(1000.0, 1 / 3, "diffusion")  # 100 for the end, 300 for the search
    found.console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    return found


def test_the_end_is_what_the_stage_says_and_the_plan_of_the_rest(now):
    whole = overall()
    assert whole.seconds_left() == pytest.approx(1001)  # planning takes one of its own
    with whole, whole.stage("search") as show:
        assert whole.seconds_left() == pytest.approx(1000)
        now[0] += 30  # nothing was said yet: the plan goes by
        assert whole.seconds_left() == pytest.approx(970)
        show(Progress(1, 10, seconds_left=20.0))
        assert whole.seconds_left() == pytest.approx(20 + 600 + 100)
        now[0] += 500  # never less than what is still to come
        assert whole.seconds_left() == pytest.approx(700)
    with whole.stage("judge"):
        now[0] += 99.5
        assert whole.line() == "orbitwise: counting conformers (7 of 7), nearly done"
        now[0] += 10
        assert whole.line().endswith("longer than planned")


def test_a_file_gets_a_few_lines(now):
    whole = overall()
    with whole, shown("search") as show:
        for step in range(1000):
            now[0] += 0.1
            show(Progress(step, 1000, seconds_left=0.1 * (1000 - step)))
    said = whole.console.file.getvalue().splitlines()
    assert len(said) == 4
    assert said[0] == "orbitwise: search (2 of 7), 16:40 left"
    left = [60 * int(m) + int(s) for m, s in re.findall(r"(\d+):(\d\d) left", "\n".join(said))]
    assert left == sorted(left, reverse=True)


def test_a_terminal_has_a_bar_that_fills(now):
    whole = overall(terminal=True)
    with whole, whole.stage("plan"):
        pass
    with whole, whole.stage("judge"):
        now[0] += 50
        assert whole.line().count("━") == clock.BAR // 2  # 50 of 100 seconds


def test_alone_a_stage_has_its_own_bar(capsys):
    with shown("draw") as show:
        show(Progress(5, 10))
    assert "draw 5/10" in capsys.readouterr().err


def test_without_a_diffusion_model_there_are_three_stages():
    assert Overall.of(60, 1.0).planned == {"plan": 1.0, "search": 48.0, "judge": 12.0}
    carried = Overall.of(600, 0.2, "levels").planned
    assert carried == pytest.approx({"plan": 1, "search": 108, "levels": 432, "judge": 60})


def test_time_as_a_clock_shows_it():
    assert [as_clock(s) for s in (0.4, 59.6, 100, 7380)] == ["0:00", "1:00", "1:40", "2:03:00"]
