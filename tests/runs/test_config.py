"""Configurations: YAML, presets, overrides, and what is said about mistakes."""

from __future__ import annotations

import json

import pytest

from orbitwise.errors import InputError
from orbitwise.runs import config as configuration
from orbitwise.runs.config import load, load_run, method_of_run, save_run, validate


def _write(tmp_path, text, name="run.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


GOOD = "method: orbit_diffusion\ndata: x.extxyz\ntrain:\n  steps: 10\n  learning_rate: 1e-3\n"


def test_file_preset_and_overrides(tmp_path):
    config = load(
        _write(tmp_path, GOOD), ["train.steps=20", "network.name=transformer", "smiles=C1=CC=C1"]
    )
    assert config.train.steps == 20 and config.train.learning_rate == 1e-3
    assert config.network.name == "transformer" and config.smiles == "C1=CC=C1"
    assert load("orbit_diffusion", ["data=x"]) == load("orbit_diffusion/default", ["data=x"])
    assert json.loads(json.dumps(config.resolved())) == config.resolved()
    with pytest.raises(Exception, match="frozen"):
        config.target = "snis"


def test_values_keep_their_kind(tmp_path):
    given = ["train.clip_norm=null", "process.numbers={sigma_max: 40}", "data=1", "smiles=[NH4+]"]
    config = load(_write(tmp_path, GOOD), given)
    assert config.train.clip_norm is None and config.process.numbers == {"sigma_max": 40.0}
    assert config.data.name == "1" and config.smiles == "[NH4+]"
    assert load(tmp_path / "run.yaml", ["smiles=NO"]).smiles == "NO"  # hydroxylamine, not false
    assert load(tmp_path / "run.yaml", ["smiles=CCO", "smiles=null"]).smiles is None


MISTAKES = {
    "misspelt key": (
        GOOD.replace("steps", "step"),
        [],
        r"unknown key 'train.step' \(.*run.yaml, line 4\); did you mean 'train.steps'\?",
    ),
    "misspelt section": (
        GOOD.replace("train:", "trian:"),
        [],
        r"unknown key 'trian' .*line 3.*'train'",
    ),
    "far from any key": (
        GOOD + "zzz: 1\n",
        [],
        r"unknown key 'zzz' .*line 6\); there are data, smiles",
    ),
    "misspelt override": (
        GOOD,
        ["train.bach_size=3"],
        r"'train.bach_size' \(command line\); .*train.batch_size",
    ),
    "wrong kind": (
        GOOD.replace("10", "ten"),
        [],
        r"train.steps \(.*line 4\): should be a valid integer.*got 'ten'",
    ),
    "out of range": (
        GOOD.replace("10", "0"),
        [],
        r"train.steps .*greater than or equal to 1, got 0",
    ),
    "not a choice": (
        GOOD + "target: exakt\n",
        [],
        r"target .*line 6\): should be 'augmentation'.*got 'exakt'",
    ),
    "missing": (GOOD.replace("data: x.extxyz\n", ""), [], r"data is required; give data=\.\.\."),
    "no method": (GOOD.replace("method: orbit_diffusion\n", ""), [], r"no 'method:'"),
    "unknown method": (
        GOOD.replace("orbit_d", "orbital_d"),
        [],
        r"unknown method.*'orbit_diffusion'",
    ),
    "malformed": (
        "method: orbit_diffusion\ntrain: [1, 2\ndata: x\n",
        [],
        r"run.yaml, line 3: not valid YAML",
    ),
    "tab": ("method: a\n\tdata: x\n", [], r"run.yaml, line 2: not valid YAML"),
    "twice": (GOOD + "data: y\n", [], r"line 6: data is given twice \(first in line 2\)"),
    "empty": ("", [], r"run.yaml: the file is empty"),
    "no mapping": ("- a\n- b\n", [], r"must be a list of 'key: value' lines"),
    "no equals": (GOOD, ["steps"], r"'steps': give overrides as key=value"),
    "into a value": (GOOD, ["data.x=3"], r"'data.x=3': data has a value of its own"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes(tmp_path, kind):
    text, overrides, message = MISTAKES[kind]
    with pytest.raises(InputError, match=message) as raised:
        load(_write(tmp_path, text), overrides)
    assert "\n" not in str(raised.value)


def test_all_mistakes_at_once(tmp_path):
    text = GOOD.replace("10", "ten") + "tarject: exact\n"
    with pytest.raises(InputError) as raised:
        load(_write(tmp_path, text))
    assert "train.steps" in str(raised.value) and "'tarject'" in str(raised.value)


def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(
        InputError, match=r"no such file or preset; presets: .*orbit_diffusion/aspirin"
    ):
        load(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="did you mean 'orbit_diffusion/aspirin'"):
        load("orbit_diffusion/asprin")
    with pytest.raises(InputError, match="is a folder"):
        load(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        load(tmp_path / "b.yaml")


def test_a_run_folder_remembers(tmp_path):
    config = load("orbit_diffusion", ["data=x.sdf", "train.steps=7"])
    save_run(config, tmp_path)
    assert method_of_run(tmp_path) == "orbit_diffusion"
    assert load_run(tmp_path) == config
    with pytest.raises(InputError, match="not a run folder"):
        method_of_run(tmp_path / "..")
    with pytest.raises(InputError, match="no such folder"):
        load_run(tmp_path / "none")


def test_validate_without_places():
    schema = type(load("orbit_diffusion", ["data=x"]))
    with pytest.raises(
        InputError, match=r"^unknown key 'dta'; did you mean 'data'\?; data is required|^data is"
    ):
        validate(schema, {"dta": "x"})
    assert configuration.presets() == sorted(configuration.presets())
