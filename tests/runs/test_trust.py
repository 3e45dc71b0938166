"""No YAML file, run folder or checkpoint runs code without --trust, and with it nothing but parts
of the documented kinds. Every place of every configuration that can name code is tried, found by
discovery."""

from __future__ import annotations

import json
import sys
import typing
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from safetensors.torch import load_file, save_file

from orbitwise.cli.app import main
from orbitwise.errors import InputError
from orbitwise.methods.crystals.model import FORMAT, SHIPPED, load_model
from orbitwise.runs.config import load, validate
from orbitwise.runs.named import Kind, build_named
from orbitwise.runs.own import ENERGY, Own
from orbitwise.runs.registry import cards, config_class
from orbitwise.runs.said import Command, Name, Said, Stored

CANARY = """
from pathlib import Path
Path("IMPORTED").touch()
from orbitwise.energies.base import Energy

def called(*args, **kwargs):
    Path("CALLED").touch()
    return 3

def wrong() -> int:
    return called()

def liar() -> Energy:
    return 3

class Other:
    def __init__(self):
        called()

class Good(Energy):
    event_shape = (2,)
    def __init__(self, width: float = 1.0):
        super().__init__()
        self.width = width
    def forward(self, x):
        return (x / self.width).square().sum(-1)

def good(width: float = 1.0) -> Good:
    return Good(width)

good_one = Good(2.0)
"""
# what a file must have beside the place, for its configuration to be valid
REST = {
    "conformers": {"smiles": "CCO"},
    "crystal_structure": {"data": "x.csv"},
    "dynamics": {"data": "x.npz", "task": "forces"},
    "molecule_conformers": {"data": "x.npz"},
    "orbit_diffusion": {"data": "x.sdf"},
    "protein_backbones": {"data": "x.npz", "mode": "backbone"},
    "sgds": {"energy": {"name": "forty_gaussians"}},
    "text_crystals": {"data": "x.csv"},
    "von_mises": {"data": "x.npz"},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "canary.py").write_text(CANARY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "canary", raising=False)
    yield tmp_path
    sys.modules.pop("canary", None)


def nothing_ran(folder: Path) -> bool:
    return "canary" not in sys.modules and not any(
        (folder / name).exists() for name in ("IMPORTED", "CALLED", "RAN")
    )


def places(model: type[BaseModel], path: tuple[str, ...] = ()) -> set[tuple[str, str]]:
    """Dotted keys below ``model`` that can name code, and whether as a part, a name, a command."""
    found = set()
    for key, field in model.model_fields.items():
        at = (*path, key)
        found |= {(".".join(at), "part") for mark in field.metadata if hasattr(mark, "or_own")}
        for option in options(field.annotation):
            if isinstance(option, type) and issubclass(option, BaseModel):
                found |= places(option, at)
            elif isinstance(option, type) and issubclass(option, Said):
                found.add((".".join(at), "command" if issubclass(option, Command) else "name"))
    return found


def options(annotation) -> list:
    arguments = typing.get_args(annotation)
    return [o for a in arguments for o in options(a)] if arguments else [annotation]


PLACES = sorted((method, *place) for method in cards() for place in places(config_class(method)))


def test_the_places_are_found():
    found = {(method, key) for method, key, _ in PLACES}
    assert found >= {
        ("conformers", "energy"),
        ("conformers", "search_energy"),
        ("crystal_structure", "model.network"),
        ("text_crystals", "model.network"),
        ("dynamics", "network"),
        ("molecule_conformers", "network"),
        ("orbit_diffusion", "group"),
        ("orbit_diffusion", "network"),
        ("orbit_diffusion", "process"),
        ("protein_backbones", "designability.fold_command"),
        ("protein_backbones", "designability.sequence_command"),
        ("protein_backbones", "network"),
        ("sgds", "energy"),
        ("sgds", "energy.function"),
        ("sgds", "evaluation.chains.kernel"),
        ("sgds", "sampler.network"),
        ("sgds", "search.kernel"),
        ("von_mises", "network"),
    }
    assert set(REST) >= {method for method, _, _ in PLACES}


def written(method: str, key: str, kind: str) -> dict:
    """The smallest configuration with code at ``key``."""
    values = json.loads(json.dumps({"method": method, **REST[method]}))
    *parents, last = key.split(".")
    at = values
    for parent in parents:
        at = at.setdefault(parent, {})
    at[last] = {"name": "canary:called", "arguments": {}} if kind == "part" else "canary:called"
    if key == "energy.function":
        at["name"] = "function"
    if kind == "command":
        at["fold_command"] = "touch RAN {fasta} {folder}"
        at["sequence_command"] = "touch RAN {pdb} {fasta}"
    return values


@pytest.mark.parametrize(("method", "key", "kind"), PLACES)
def test_a_file_runs_nothing(here, capfd, method, key, kind):
    values = written(method, key, kind)
    (here / "own.yaml").write_text(yaml.safe_dump(values))
    run = here / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(values))

    for arguments in (
        ["train", "own.yaml", "--dry-run"],
        ["train", "own.yaml", "--dry-run", "--trust"],
        ["train", "own.yaml", "--out", "out"],
        ["sample", "run"],
        ["evaluate", "run"],
        ["report", "run"],
        ["audit", "run"],
        ["crystals", "SrTiO3", "--run", "run"],
    ):
        code = main(arguments)
        said = capfd.readouterr().err
        assert nothing_ran(here), arguments
        assert "Traceback" not in said and "unexpected" not in said, said
        if arguments[:2] == ["train", "own.yaml"] and "--trust" not in arguments:
            assert code == 2
            if kind != "command" and method != "conformers":
                assert f"{key.removesuffix('.function')}" in said and "--trust" in said
    assert not (here / "out").exists()


def test_a_command_is_split_before_any_work(here):
    values = written("protein_backbones", "designability.fold_command", "command")
    values["designability"]["fold_command"] = "touch 'RAN {fasta} {folder}"
    (here / "own.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=r"fold_command \(own.yaml, line \d\): .*quotation"):
        load("own.yaml", trust=True)


def test_yaml_makes_no_objects(here, capfd):
    (here / "a.yaml").write_text(
        'method: sgds\nenergy: !!python/object/apply:os.system ["touch RAN"]\n'
    )
    assert main(["train", "a.yaml", "--trust", "--out", "out"]) == 2
    assert nothing_ran(here)


def packaged(path: Path, network: object) -> None:
    """A packaged crystal model whose header names a network."""
    from safetensors import safe_open

    with safe_open(str(SHIPPED), framework="pt") as file:
        header = json.loads(file.metadata()["header"])
    header["model"]["network"] = network
    about = {"format": FORMAT, "header": json.dumps(header)}
    save_file(load_file(SHIPPED), path, metadata=about)


@pytest.mark.parametrize("network", ["canary:called", {"name": "canary:called", "arguments": {}}])
def test_the_header_of_a_checkpoint_runs_nothing(here, capfd, network):
    packaged(here / "model.safetensors", network)
    arguments = ["crystals", "SrTiO3", "--run", "model.safetensors", "--out", "out"]
    for more in ([], ["--dry-run"]):
        assert main([*arguments, *more]) == 2
        assert "model.safetensors" in (said := capfd.readouterr().err) and "--trust" in said
        assert nothing_ran(here) and not (here / "out").exists()
    with pytest.raises(InputError, match="trust=True"):
        load_model(here / "model.safetensors")
    assert nothing_ran(here)

    assert main([*arguments, "--trust", "--dry-run"]) == 0 and nothing_ran(here)
    assert "a dry run runs no code" in capfd.readouterr().out
    assert main([*arguments, "--trust"]) == 2  # it is imported, and is no network
    assert (here / "IMPORTED").exists() and not (here / "CALLED").exists()
    assert "does not say what it returns" in capfd.readouterr().err


NO_ENERGY = {
    "subprocess:run": "function of Python itself",
    "os:system": "function of Python itself",
    "builtins:exec": "function of Python itself",
    "canary:called": "does not say what it returns",
    "canary:wrong": "says that it returns <class 'int'>",
    "canary:Other": "must be an orbitwise Energy.*the class Other",
    "canary:Path": "must be an orbitwise Energy.*the class",
    "canary:missing": "has no attribute",
    "canary:liar": "returned int, not an orbitwise Energy",
    "canary": "give package.module:name",
    "canary:": "give package.module:name",
    "subprocess:Popen": "must be an orbitwise Energy",
    "torch.nn:Linear": "must be an orbitwise Energy",
    "not_there:x": "No module named",
    "sys:exit": "function of Python itself",
}


@pytest.mark.parametrize("name", NO_ENERGY)
def test_with_trust_only_what_is_an_energy_is_called(here, name):
    given = {"args": ["touch", "RAN"]} if name.startswith("subprocess") else {}
    energy = {"name": "function", "function": name, "arguments": given}
    (here / "own.yaml").write_text(yaml.safe_dump({"method": "sgds", "energy": energy}))
    with pytest.raises(InputError, match=NO_ENERGY[name]) as raised:
        load("own.yaml", trust=True).energy.build()
    assert "\n" not in str(raised.value)
    assert not any((here / left).exists() for left in ("CALLED", "RAN"))


@pytest.mark.parametrize("name", ["canary:Good", "canary:good", "canary:good_one"])
def test_with_trust_an_energy_is_built(here, name):
    arguments = {} if name.endswith("one") else {"width": 2.0}
    values = {"method": "sgds", "energy": {"name": name, "arguments": arguments}}
    (here / "own.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=r"own.yaml, line \d"):
        load("own.yaml").energy.build()
    assert load("own.yaml", trust=True).energy.build().energy.width == 2.0
    # what is typed, and what Python says, needs no leave
    (here / "plain.yaml").write_text(yaml.safe_dump({"method": "sgds", **REST["sgds"]}))
    typed = [f"energy.name={name}", *(f"energy.arguments.{k}={v}" for k, v in arguments.items())]
    assert load("plain.yaml", typed).energy.build().energy.width == 2.0
    schema = type(load("plain.yaml"))
    made = validate(schema, {"energy": values["energy"]})
    assert made.energy.build().energy.width == 2.0
    # but a run folder does not remember who typed it
    assert validate(schema, made.resolved(), stored=Stored("x")).energy.name.place == "x"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widht": 1}, r"unexpected keyword argument 'widht' \(arguments it takes: width\)"),
        ({1: 2}, "unexpected keyword argument '1'"),
        ({"width": "wide"}, None),
    ],
)
def test_arguments_that_do_not_fit(here, arguments, message):
    values = {"method": "sgds", "energy": {"name": "canary:Good", "arguments": arguments}}
    (here / "own.yaml").write_text(yaml.safe_dump(values))
    config = load("own.yaml", trust=True)
    if message is None:  # the class takes it: what it does with it is its own affair
        assert config.energy.build().energy.width == "wide"
        return
    with pytest.raises(InputError, match=message):
        config.energy.build()


def test_what_is_made_already_takes_no_arguments(here):
    sys.path.insert(0, str(here))
    try:
        with pytest.raises(InputError, match="takes no arguments"):
            build_named("canary:good_one", "energy", ENERGY, {"width": 1.0})
    finally:
        sys.path.remove(str(here))


def test_protocols_are_kinds_too():
    kind = Kind("a dog", members=("name",), methods=("bark",))

    class Dog:
        name = "Rex"

        def bark(self): ...

    assert kind.made_by_class(Dog) and kind.has(Dog()) and not kind.has(Dog)
    assert not kind.made_by_class(int) and not kind.has(3)


def test_the_mark_stays_with_the_name():
    import copy
    import pickle

    made = validate(Own, {"name": "a:b"}, stored=Stored("f.yaml", False, {"a:b": 3}))
    for same in (made, made.model_copy(), pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert same.name.place == "f.yaml, line 3" and same.name == "a:b"
    assert type(made.resolved()["name"]) is str


def test_an_energy_of_conformers_that_only_a_folder_names(here):
    """A function that the user typed may say nothing of itself; one that a file names must."""
    from orbitwise.methods.conformers.energy import build_energy
    from orbitwise.molecules.molecule import parse_smiles

    (here / "canary.py").write_text(
        "from pathlib import Path\nfrom orbitwise.energies.base import Energy\n"
        "from orbitwise.molecules import MMFF94\n"
        "def plain(mol, temperature):\n    Path('CALLED').touch()\n"
        "    return MMFF94(mol, temperature)\n"
        "def says(mol, temperature) -> Energy:\n    return plain(mol, temperature)\n"
    )
    mol = parse_smiles("CO")
    for name in ("canary:plain", "canary:says"):
        with pytest.raises(InputError, match="--trust"):
            build_energy(mol, Name.at(name, "config.yaml, line 5", trusted=False))
        assert nothing_ran(here)
    with pytest.raises(InputError, match="does not say what it returns"):
        build_energy(mol, Name.at("canary:plain", "config.yaml, line 5", trusted=True))
    assert not (here / "CALLED").exists()
    trusted = Name.at("canary:says", "config.yaml, line 5", trusted=True)
    assert build_energy(mol, trusted).event_shape == (6, 3)
    assert build_energy(mol, Name("canary:plain")).event_shape == (6, 3)
