"""The module, the files and the commands of "Your own parts in a configuration" as they stand."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from orbitwise.cli.app import main
from orbitwise.molecules.files.structures import write_extxyz
from orbitwise.molecules.molecule import embed, parse_smiles
from orbitwise.runs.config import load, load_run

PAGE = Path(__file__).parents[2] / "docs" / "extend.md"
TITLED = re.compile(r'^```\w+ title="([\w.]+)"\n(.*?)^```', re.DOTALL | re.MULTILINE)


@pytest.fixture
def shown(tmp_path, monkeypatch) -> dict[str, str]:
    """The titled blocks of the page by title, as files in the current folder."""
    found = dict(TITLED.findall(PAGE.read_text(encoding="utf-8")))
    for name, text in found.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    mol = parse_smiles("CO")
    write_extxyz(tmp_path / "frames.extxyz", mol, embed(mol, 30, seed=0))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    yield found
    sys.modules.pop("mine", None)


def test_one_command_uses_each_part(shown, capfd):
    commands = [shlex.split(line) for line in shown["commands"].splitlines()]
    assert len(commands) == 5 and all(words[0] == "orbitwise" for words in commands)
    for words in commands:
        assert main(words[1:]) == 0, capfd.readouterr().err

    mine = sys.modules["mine"]
    chain, molecule = load_run("chain", trust=True), load_run("molecule", trust=True)
    assert chain.energy.name == "mine:Chain" and chain.search.kernel.name == "mine:small_steps"
    target = chain.energy.build()
    assert isinstance(target.energy, mine.Chain) and target.energy.stiffness == 50.0
    assert [len(f.enumerate()[0]) for f in target.group.factors[1:]] == [2]
    assert chain.search.build_kernel().step_size == pytest.approx(0.5 * chain.search.step_size)
    network = chain.sampler.network.build(target)
    assert isinstance(network, mine.Net) and network.out.in_features == 16
    process = molecule.process.build()
    assert isinstance(process, mine.Quarter) and process.zero_com and process.scale == 2.0
    assert isinstance(molecule.network.build(0), mine.Net)


def test_weights_follow_from_the_seed(shown):
    network = load("molecule.yaml", trust=True).network
    one, same, other = (network.build(seed).out.weight for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).any()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("chain.yaml", "energy.arguments.stifness=1", "unexpected keyword argument 'stifness'"),
        ("chain.yaml", "sampler.network.arguments.widht=1", "unexpected keyword argument 'widht'"),
        ("chain.yaml", "search.kernel.arguments.a=1", "unexpected keyword argument 'a'"),
        ("chain.yaml", "evaluation.chains.kernel=mine:Net", "must be a kernel"),
        ("chain.yaml", "energy.group.name=mine:small_steps", "says that it returns"),
        ("chain.yaml", "search.kernel=mine:Net", "must be a kernel"),
        ("molecule.yaml", "process.name=mine:Net", "must be an orbitwise GaussianProcess"),
        ("molecule.yaml", "group.name=mine:Chain", "must be an orbitwise Group"),
        ("molecule.yaml", "network.name=mine:symmetry", "says that it returns"),
        ("molecule.yaml", "network.width=3", "unknown key 'network.width' of your own part"),
        ("molecule.yaml", "network.nmae=egnn", "unknown key 'network.nmae'"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(shown, capfd, file, change, message):
    assert main(["train", file, change, "--trust", "--out", "out"]) == 2
    said = capfd.readouterr().err.strip()
    assert re.search(message, said) and "\n" not in said, said
    assert not Path("out").exists()


def test_a_mistake_in_ones_own_code_says_where(shown, capfd):
    wrong = shown["mine.py"].replace("return self.out(", "return self.put(")
    line = 1 + wrong[: wrong.index("self.put(")].count("\n")
    Path("mine.py").write_text(wrong, encoding="utf-8")
    assert main(["train", "molecule.yaml", "--trust", "--out", "out"]) == 2
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert f"mine.py, line {line}: AttributeError" in said and "please report" not in said
