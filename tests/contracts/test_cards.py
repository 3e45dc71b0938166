"""Every method has a card that is complete, true to its module, and can be cited."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

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
    card, module = registry.card(name), registry.binding(name)
    schema = getattr(module, card.config)
    assert issubclass(schema, Config)
    assert schema.model_config["extra"] == "forbid" and schema.model_config["frozen"]
    assert callable(module.plan)
    for action in ("train", "evaluate", "report") if card.trainable else ("run",):
        assert callable(getattr(module, action)), action
    for command in card.reproduce:
        script = re.match(r"python (benchmarks/\w+\.py)", command)
        if script and (ROOT / "benchmarks").is_dir():
            assert (ROOT / script.group(1)).is_file(), command
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


def test_packaged_figures_are_those_of_the_benchmarks():
    results = ROOT / "benchmarks" / "results"
    if not results.is_dir():
        pytest.skip("no benchmark results beside the package")
    rows = {
        row["what"]: row for path in results.glob("*.json") for row in json.loads(path.read_text())
    }
    packaged = json.loads(registry.MEASURED.read_text()) if registry.MEASURED.exists() else []
    for row in packaged:
        assert row["what"] in rows, (
            f"{row['what']} is not measured any more; run benchmarks/cards.py"
        )
        assert row["value"] == rows[row["what"]]["value"], (
            f"{row['what']} is old; run benchmarks/cards.py"
        )


def test_rows_are_matched_by_name():
    rows = [{"what": w} for w in ("toy.w2", "toy.rmsd", "mmff94.x", "other")]
    assert [r["what"] for r in registry.matching_rows(["mmff94.*", "toy.*", "toy.w2"], rows)] == [
        "mmff94.x",
        "toy.w2",
        "toy.rmsd",
    ]


@pytest.mark.parametrize("preset", configuration.presets())
def test_presets_fit_their_schema(preset):
    needs_data = preset.startswith(
        ("orbit_diffusion/", "dynamics/", "molecule_conformers/", "protein_backbones/")
    )
    config = configuration.load(preset, ["data=frames.extxyz"] if needs_data else [])
    assert isinstance(config, BaseModel)
    assert registry.name_of(config) == preset.split("/")[0]
    assert registry.trainer(config) is registry.binding(preset.split("/")[0])
