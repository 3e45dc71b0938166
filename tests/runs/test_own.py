"""Parts of one's own in configurations: how they are written, what is said about mistakes, what a
run folder keeps. What they do is tested where they are used (``tests/docs/test_extend``)."""

from __future__ import annotations

import pytest
import yaml

from orbitwise.errors import InputError
from orbitwise.methods.samplers.config import stage_key
from orbitwise.runs.config import load, load_run, save_run

PLAIN = {"method": "sgds", "energy": {"name": "many_well", "dim": 4}}
OWN = {"name": "mine:Net", "arguments": {"width": 3}}


def loaded(tmp_path, values: dict, *overrides: str):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return load(path, overrides)


def test_the_name_alone_or_with_arguments(tmp_path):
    plain = loaded(tmp_path, PLAIN)
    assert plain.search.kernel == "hmc"
    for kernel, arguments in (
        ("mine:k", {}),
        ({"name": "mine:k", "arguments": {"a": 1}}, {"a": 1}),
    ):
        found = loaded(tmp_path, PLAIN | {"search": {"kernel": kernel}}).search.kernel
        assert found.name == "mine:k" and found.arguments == arguments
    assert loaded(tmp_path, PLAIN | {"sampler": {"network": "mine:Net"}}).sampler.network.name
    assert loaded(tmp_path, PLAIN | {"energy": "mine:E"}).energy.name == "mine:E"


def test_on_the_command_line(tmp_path):
    found = loaded(
        tmp_path,
        PLAIN | {"search": {"kernel": "mala"}, "sampler": {"network": {"hidden": 64}}},
        "search.kernel=mine:k",
        "search.kernel.arguments.a=2",
        "sampler.network.name=mine:Net",
        "sampler.network.arguments={width: 3}",
        "energy=mine:E",
    )
    assert found.search.kernel.name == "mine:k" and found.search.kernel.arguments == {"a": 2}
    assert found.sampler.network.model_dump() == OWN
    assert found.energy.name == "mine:E"
    named = loaded(tmp_path, PLAIN | {"search": {"kernel": "mala"}}, "search.kernel.name=mine:k")
    assert named.search.kernel.name == "mine:k"
    # and back: what belongs to one's own goes
    own = PLAIN | {"sampler": {"network": OWN}, "search": {"kernel": "mine:k"}}
    back = loaded(tmp_path, own, "sampler.network.name=mlp", "search.kernel=hmc")
    assert back.sampler.network == loaded(tmp_path, PLAIN).sampler.network
    assert back.search.kernel == "hmc"


def test_what_was_typed_is_known_by_what_it_says(tmp_path):
    found = loaded(tmp_path, PLAIN | {"search": {"kernel": "mine:k"}}, "energy=mine:E")
    assert found.energy.name.place is None
    assert found.search.kernel.name.place == f"{tmp_path / 'run.yaml'}, line 6"


def test_a_run_folder_keeps_the_name(tmp_path):
    found = loaded(tmp_path, PLAIN | {"sampler": {"network": OWN}, "search": {"kernel": "mine:k"}})
    save_run(found, tmp_path)
    again = load_run(tmp_path)
    assert again == found and again.sampler.network.name.place.endswith("config.yaml, line 7")
    assert stage_key(again, "search", 1) == stage_key(found, "search", 1)
    other = loaded(tmp_path, PLAIN | {"search": {"kernel": "mine:other"}})
    assert stage_key(other, "search", 1) != stage_key(found, "search", 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"sampler": {"network": OWN | {"hidden": 3}}},
            r"unknown key 'sampler.network.hidden' of your own part \(.*line \d\); hidden belongs"
            " to mlp, elementwise, egnn, transformer",
        ),
        (
            {"sampler": {"network": OWN | {"argument": {}}}},
            "unknown key 'sampler.network.argument' of your own .*'sampler.network.arguments'",
        ),
        (
            {"sampler": {"network": {"name": "mlp", "arguments": {}}}},
            "unknown key 'sampler.network.arguments' of mlp",
        ),
        (
            {"sampler": {"network": OWN | {"arguments": [1]}}},
            r"sampler.network.arguments \(.*line \d\): should be a valid dictionary, got \[1\]",
        ),
        ({"search": {"kernel": "nuts"}}, "search.kernel .*should be 'hmc', .*, got 'nuts'"),
        ({"search": {"kernel": 3}}, "search.kernel .*should be 'hmc', .*, got 3"),
        ({"energy": {"name": ["a:b"]}}, r"energy.name .*should be 'forty_gaussians'"),
        ({"energy": 3}, r"energy .*, got 3"),
    ],
)
def test_mistakes(tmp_path, values, message):
    with pytest.raises(InputError, match=message) as raised:
        loaded(tmp_path, PLAIN | values)
    assert "\n" not in str(raised.value) and "(own part)" not in str(raised.value)


@pytest.mark.parametrize("method", ["null", "[sgds]", "{a: 1}", "3", "''", "sgd"])
def test_no_method_names_the_file(tmp_path, method):
    path = tmp_path / "config.yaml"
    path.write_text(f"method: {method}\n")
    for read in (lambda: load(path), lambda: load_run(tmp_path)):
        with pytest.raises(InputError, match=r"config\.yaml(, line 1)?: .*method") as raised:
            read()
        assert "'None'" not in str(raised.value)
