"""The shape of the package: imports run one way, nothing is loaded early, files stay small and well named."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import orbitwise

PACKAGE = Path(orbitwise.__file__).parent
ROOT = PACKAGE.parents[1]
FILES = sorted(PACKAGE.rglob("*.py"))

# A folder may import itself, everything on a later level, and errors. (DESIGN: "Imports run one way".)
LEVELS = [
    {"cli"},
    {"methods"},
    {"molecules", "crystals", "proteins", "graphs"},
    {"training", "report", "audit", "search", "objectives", "runs"},
    {"orbits", "processes", "energies", "networks", "data", "metrics", "statistics"},
    {"groups"},
]
FOR_ALL = {"errors", "lazy", "units"}
BANNED_NAMES = ("util", "common", "misc", "helper")
EARLY = {"torch", "numpy", "scipy", "roma", "rdkit", "ase", "matplotlib", "plotly", "pydantic", "rich", "ot"}


def folder_of(path: Path) -> str:
    """The part of the package a file belongs to: its top folder, or its own name for a file beside them."""
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def level(folder: str) -> int:
    return next(i for i, names in enumerate(LEVELS) if folder in names)


def allowed(importer: str, imported: str) -> bool:
    if imported in FOR_ALL or importer == imported or importer in ("__init__", "__main__"):
        return True
    return importer not in FOR_ALL and level(imported) > level(importer)


def imports(tree: ast.AST, package: list[str]):
    """Every name of orbitwise imported anywhere in a file, also inside functions, under ``TYPE_CHECKING`` and
    by ``import_module("…")``, as (line, dotted name without ``orbitwise.``)."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            inner = module.partition(".")[2]
            names = [module] if inner else [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "import_module",
            "__import__",
        ):
            names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        for name in names:
            if name == "orbitwise" or name.startswith("orbitwise."):
                yield node.lineno, name.partition(".")[2]


def target_folder(name: str) -> str | None:
    """The folder a dotted name leads to; lazy names of the package are followed; None for its plain facts."""
    first = name.partition(".")[0]
    if first.startswith("__"):
        return None
    return orbitwise._WHERE[first].partition(".")[0] if first in orbitwise._WHERE else first


def broken_rules(source: str, path: Path) -> list[str]:
    importer = folder_of(path)
    package = ["orbitwise", *path.relative_to(PACKAGE).parts[:-1]]
    found = []
    for line, name in imports(ast.parse(source), package):
        if not name:
            found.append(f"{path.name}:{line} imports the whole package; import the module it needs")
        elif (imported := target_folder(name)) and not allowed(importer, imported):
            found.append(f"{path.relative_to(PACKAGE)}:{line} ({importer}) imports orbitwise.{name}")
    return found


def test_every_folder_has_a_level():
    known = set().union(*LEVELS) | FOR_ALL | {"__init__", "__main__"}
    assert {folder_of(path) for path in FILES} <= known
    assert set(orbitwise._PACKAGES) <= known


def test_imports_run_one_way():
    broken = [rule for path in FILES for rule in broken_rules(path.read_text(), path)]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("groups", "from orbitwise.orbits import torus"),
        ("orbits", "def f():\n    from orbitwise.processes.gaussian import GaussianProcess"),
        ("orbits", "from ..networks import egnn"),
        ("networks", "from orbitwise import GaussianProcess"),
        ("search", "import orbitwise.training.loop as loop"),
        ("metrics", "import orbitwise as ow"),
        ("data", "from importlib import import_module\nimport_module('orbitwise.search.mala')"),
        ("errors", "from orbitwise.groups.base import Group"),
    ],
)
def test_the_check_sees_what_it_should(folder, source):
    assert broken_rules(source, PACKAGE / folder / "x.py" if folder != "errors" else PACKAGE / "errors.py")


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("cli", "from orbitwise.methods import registry\nfrom orbitwise import __version__"),
        ("search", "from orbitwise.energies.base import Energy\nfrom orbitwise.errors import InputError"),
        ("orbits", "from orbitwise.orbits import dispatch\nfrom . import result\nfrom orbitwise import SO3"),
        ("groups", "import torch\nfrom orbitwise.groups import base"),
    ],
)
def test_the_check_lets_through_what_it_should(folder, source):
    assert broken_rules(source, PACKAGE / folder / "x.py") == []


def test_files_are_short_and_named_for_what_they_do():
    long = {path.name: n for path in FILES if (n := len(path.read_text().splitlines())) > 500}
    assert not long, f"refused at 500 lines: {long}"
    names = {part for path in FILES for part in path.relative_to(PACKAGE).with_suffix("").parts}
    vague = [name for name in names if any(name.strip("_").startswith(banned) for banned in BANNED_NAMES)]
    assert not vague, vague


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_importing_the_package_loads_nothing():
    code = "import sys, orbitwise; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = set(run(code).stdout.split())
    assert "orbitwise" in loaded and not loaded & EARLY, loaded & EARLY


def test_public_names_cost_little_beyond_torch():
    """Processor time and modules that ``orbitwise`` and all its public names add to torch and numpy."""
    code = (
        "import sys, time, torch, numpy\n"
        "before, start = set(sys.modules), time.process_time()\n"
        "import orbitwise as ow\n"
        "names = [getattr(ow, name) for name in ow._WHERE]\n"
        "print(time.process_time() - start, *(set(sys.modules) - before))"
    )
    seconds, *modules = run(code).stdout.split()
    assert "orbitwise.orbits.posterior.entrance" in modules
    heavy = {name.partition(".")[0] for name in modules} & EARLY - {"torch", "numpy"}
    assert not heavy, heavy
    foreign = [name for name in modules if not name.startswith("orbitwise")]
    assert len(foreign) < 20, foreign
    assert float(seconds) < 0.3
