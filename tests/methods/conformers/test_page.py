"""What the page, the terminal and summary.json say of one run is the same."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from orbitwise.methods.conformers import command, judge, page, words
from orbitwise.methods.conformers.command import ConformersConfig, report, run
from orbitwise.methods.conformers.deliver import choose
from orbitwise.methods.conformers.exchange.mixing import Mixing
from orbitwise.methods.conformers.system import Effort
from orbitwise.molecules.files.reference import Reference

EFFORT = Effort(chains=8, rungs=4, leapfrog=4, search_steps=160, warm_steps=30, quenched=200)
SMILES = "OCCO"


class Reader(HTMLParser):
    """The banner, the lead, the key figures, and the cells of every table by its section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.kinds: list[str] = []
        self.section = ""
        self.told: dict[str, str] = {}
        self.keys: list[str] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        kind = dict(attrs).get("class") or ""
        if tag == "section":
            self.section = kind
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        if tag in ("td", "th") and self.section in self.rows:
            self.rows[self.section][-1].append("")
        if tag == "dd" and kind != "note":
            self.keys.append("")
        if tag not in ("br", "wbr", "meta", "img"):
            self.kinds.append(kind if tag == "p" or kind == "note" else tag)

    def handle_endtag(self, tag):
        if self.kinds:
            self.kinds.pop()

    def handle_data(self, data):
        where = self.kinds[-1] if self.kinds else ""
        if where in ("banner", "lead", "note") or where == "li":
            self.told[where] = self.told.get(where, "") + data
        if where == "dd" and self.keys:
            self.keys[-1] += data
        if self.section and self.rows.get(self.section) and {"td", "th"} & set(self.kinds):
            self.rows[self.section][-1][-1] += data


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glycol") / "run"
    outcome = run(ConformersConfig(smiles=SMILES, n=50, effort=EFFORT, out=folder, processes=1))
    return folder, outcome


def told(folder) -> dict:
    return json.loads((folder / "summary.json").read_text())


def read(folder) -> Reader:
    return Reader((folder / "report.html").read_text())


def numbers(text: str) -> list[float]:
    return [float(n) for n in re.findall(r"[\d.]+", text)]


def test_counts_and_numbers_agree(finished):
    folder, outcome = finished
    rows = [r for r in told(folder)["conformers"] if r["population"] > 0]
    many = sum(r["population"] > 0.01 for r in rows)
    assert len(rows) > 3

    shown = read(folder)
    said = next(line for line in outcome.lines if line.startswith("At 300 K"))
    assert shown.told["lead"] == said
    how_many = "all" if many == len(rows) else many
    assert f"{len(rows)} distinct conformers, {how_many} of them above 1 %" in said
    assert shown.keys[1] == str(many)

    first = numbers(shown.keys[0])
    assert first == pytest.approx(
        [100 * rows[0]["population"], 100 * rows[0]["population_error"]], abs=0.06
    )
    table = shown.rows["conformers"][1:]
    assert [int(row[0]) for row in table] == [r["conformer"] for r in rows]
    at = shown.rows["conformers"][0].index("Population%")
    assert [numbers(row[at])[0] for row in table] == pytest.approx(
        [100 * r["population"] for r in rows], abs=0.06
    )
    assert [int(row[-1]) for row in table] == [r["degeneracy"] for r in rows]
    terminal = [line for line in outcome.lines if line.startswith("conformer ")]
    assert [numbers(line.split("population")[1])[0] for line in terminal] == [
        numbers(row[at])[0] for row in table[:10]
    ]


def test_nothing_converged_stands_above_everything(finished, monkeypatch):
    folder, _ = finished
    not_mixed = Mixing(1.4, 20.0)
    monkeypatch.setattr(judge.Watched, "mixing", lambda *_: not_mixed)
    outcome = report(folder)
    assert outcome.exit_code == words.NOT_CONVERGED
    assert outcome.lines[0].startswith("Not converged: the search has not mixed (split R-hat 1.400")
    text = (folder / "report.html").read_text()
    assert read(folder).told["banner"] == outcome.lines[0]
    assert text.index('class="banner"') < text.index("<h1>")
    monkeypatch.setattr(judge.Watched, "mixing", lambda *_: Mixing(1.0, 400.0))
    assert report(folder).exit_code == 0 and "banner" not in read(folder).told


def test_goals_are_reached_or_missed_in_the_same_words(finished, monkeypatch, tmp_path):
    folder, _ = finished
    bonds = np.full(9, 9.0)  # no such bonds
    minima = np.zeros((0, 10, 3)), np.zeros(0), np.zeros(0)
    meta = {"smiles": SMILES, "energy": "mmff94", "temperature": 300.0}
    Reference(np.zeros((50, 3)), np.zeros(50), bonds, *minima, meta).save(tmp_path / "r.npz")
    monkeypatch.setattr(judge, "choose", lambda *_: choose(Mixing(1.01, 500.0), None))
    given = ConformersConfig(
        smiles=SMILES, n=50, effort=EFFORT, out=folder, processes=1, reference=tmp_path / "r.npz"
    )
    outcome = run(given)
    assert outcome.exit_code == words.GOALS_MISSED
    head, *rows = read(folder).rows["checks"]
    assert head == ["Quantity", "Final", "Goal", ""]  # nothing was relaxed
    said = [line for line in outcome.lines if "(goal " in line]
    assert [f"{what}: {value} (goal {goal}: {state})" for what, value, goal, state in rows] == said
    assert rows[-1][-1] == "MISSED"
    assert "Reference%" in read(folder).rows["conformers"][0]


def test_a_learner_far_off_is_called_unusable(finished, monkeypatch):
    """Relaxed samples one kT too high: said in a warning, in the table, and nowhere used."""
    folder, _ = finished
    cases = []
    monkeypatch.setattr(command, "write", lambda case: cases.append(case))
    report(folder)
    case = cases[0]
    k, x = case.verdict.learned, case.found.x[:, 0]
    energy = case.found.energy[:, 0]
    shift = case.found.energy.double().mean() - energy.double().mean()

    def with_learner(gap: float):
        from orbitwise.methods.conformers.diffusion.relax import Relaxed

        relaxed = Relaxed(x, energy + shift + gap, np.arange(len(x)), energy[:4], energy[0] * 0)
        learned = dataclasses.replace(k, populations=case.verdict.searched)
        verdict = dataclasses.replace(case.verdict, learned=learned)
        return dataclasses.replace(case, relaxed=relaxed, verdict=verdict)

    error = float(energy.double().std()) / len(energy) ** 0.5
    wrong, right = with_learner(0.6 + 2 * error), with_learner(0.0)
    assert words.learner_gap(right) is None and not words.learner_warnings(right)
    assert "unusable" in words.learner_warnings(wrong)[0] and "unusable" in page.note(wrong)
    summary = told(folder)
    for row in summary["conformers"]:
        row |= {"learned_population": 0.1, "learned_population_error": 0.01}
    shown = [page.conformer_rows(c, summary)[0].beside for c in (wrong, right)]
    assert [next(iter(s)) for s in shown] == ["Learned (unusable)", "Learned"]
    assert "Learned" not in page.note(case)
