"""Every method has a card that is complete, true to its module, and can be cited."""

from __future__ import annotations

import importlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest
from pydantic import BaseModel
from rich.console import Console

from orbitwise import methods
from orbitwise.cli import card
from orbitwise.errors import InputError
from orbitwise.runs import config as configuration
from orbitwise.runs import registry
from orbitwise.runs.config import Config

ROOT = Path(__file__).resolve().parents[2]
NAMES = list(registry.cards())


def test_there_are_cards_and_each_is_named_after_its_file():
    assert {"orbit_diffusion", "conformers"} <= set(NAMES)
    assert [path.stem for path in sorted(registry.CARDS.glob("*.yaml"))] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_card_names_what_is_there(name):
    found, module = registry.card(name), registry.binding(name)
    schema = getattr(module, found.config)
    assert issubclass(schema, Config)
    assert schema.model_config["extra"] == "forbid" and schema.model_config["frozen"]
    assert callable(module.plan)
    for action in ("train", "evaluate", "report") if found.trainable else ("run",):
        assert callable(getattr(module, action)), action
    for command in found.reproduce:
        script = re.match(r"python -m (benchmarks[\w.]+)", command)
        if script and (ROOT / "benchmarks").is_dir():
            assert (ROOT / script[1].replace(".", "/")).with_suffix(".py").is_file(), command
        preset = re.match(r"orbitwise train (\S+)", command)
        if preset:
            assert preset.group(1) in configuration.presets()


@pytest.mark.parametrize("name", NAMES)
def test_bibtex_is_whole(name):
    entries = registry.card(name).bibtex.strip().split("\n\n")
    for entry in entries:
        assert re.match(r"@\w+\{\w+,\n", entry) and entry.rstrip().endswith("}")
        assert entry.count("{") == entry.count("}")
        assert all(f"{field} " in entry for field in ("title", "author", "year"))


def test_cite_gives_each_entry_once():
    keys = re.findall(r"@\w+\{(\w+),", registry.cite())
    assert len(keys) == len(set(keys)) >= 4
    assert (
        re.findall(r"@\w+\{(\w+),", registry.cite(["orbit_diffusion"]))[0] == "tong2025raoblackwell"
    )
    with pytest.raises(InputError, match="did you mean 'orbit_diffusion'"):
        registry.cite(["orbitdiffusion"])


@pytest.mark.parametrize("name", NAMES)
def test_card_says_what_became_of_each_claim(name):
    claims = registry.card(name).claims
    assert 1 <= len(claims) <= 8
    assert all(claim.claim.strip() and claim.why.strip() for claim in claims)


@pytest.fixture(scope="module")
def rows():
    """The committed rows by name."""
    results = ROOT / "benchmarks" / "results"
    if not results.is_dir():
        pytest.skip("no benchmark results beside the package")
    found = [row for path in results.glob("*.json") for row in json.loads(path.read_text())]
    assert len(found) == len({row["what"] for row in found}), "a row stands in two files"
    return {row["what"]: row for row in found}


@pytest.mark.parametrize("name", NAMES)
def test_card_names_a_few_rows_that_are_there(name, rows):
    named = registry.card(name).measured
    assert 1 <= len(named) <= 12 and len(set(named)) == len(named)
    assert [what for what in named if what not in rows] == []
    assert [row.what for row in registry.measured(name)] == named, "run benchmarks.tools.cards"


def test_packaged_figures_are_those_of_the_benchmarks(rows):
    packaged = json.loads(registry.MEASURED.read_text())
    named = {what for name in NAMES for what in registry.card(name).measured}
    assert {row["what"] for row in packaged} == named and len(packaged) < 100
    for row in packaged:
        told = {key: rows[row["what"]][key] for key in row}
        assert row == told, f"{row['what']} is old; run benchmarks.tools.cards"


def test_commands_of_rows_can_be_given_today(rows, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    parser_of = importlib.import_module("benchmarks.tools.benchmark").parser_of
    named = {row["command"] for row in rows.values()}
    named |= {c for name in NAMES for c in registry.card(name).reproduce if " benchmarks." in c}
    assert len(named) > 50
    for command in sorted(named):
        python, _, module, *words = shlex.split(command)
        assert python == "python"
        parser_of(importlib.import_module(module).main, command).parse_args(words)


@pytest.mark.parametrize("name", NAMES)
def test_card_fits_on_a_screen(name):
    def shown_lines(**options) -> list[str]:
        console = Console(width=80, file=io.StringIO())
        card.show(name, console, **options)
        return console.file.getvalue().splitlines()

    found, lines = registry.card(name), shown_lines()
    assert len(lines) <= 60
    whole = " ".join(" ".join(shown_lines(whole=True)).split())
    assert all(line.split()[0] in whole for line in (*found.checked, *found.differs))
    shown = " ".join(" ".join(lines).split())
    assert found.title in shown and found.limits[0].split()[0] in shown
    assert all(claim.verdict in shown for claim in found.claims)
    assert all(what[:24] in shown for what in found.measured)  # the longest go on below


def test_list_is_by_family():
    console = Console(width=100, file=io.StringIO())
    card.show_list(console)
    lines = console.file.getvalue().splitlines()
    families = [line for line in lines if not line.startswith(" ")]
    assert families == sorted(set(families)) == list(registry.families())
    under = lines[lines.index("crystals") + 1 :][:2]
    assert [line.split()[0] for line in under] == ["crystal_structure", "text_crystals"]
    assert len(lines) == len(families) + len(NAMES)
    folders = {path.name for path in (Path(methods.__file__).parent).iterdir() if path.is_dir()}
    assert set(families) <= folders


@pytest.mark.parametrize("preset", configuration.presets())
def test_presets_fit_their_schema(preset):
    needs_data = preset.startswith(
        (
            "orbit_diffusion/",
            "dynamics/",
            "molecule_conformers/",
            "protein_backbones/",
            "von_mises/",
        )
    )
    config = configuration.load(preset, ["data=frames.extxyz"] if needs_data else [])
    assert isinstance(config, BaseModel)
    assert registry.name_of(config) == preset.split("/")[0]
    assert registry.trainer(config) is registry.binding(preset.split("/")[0])
