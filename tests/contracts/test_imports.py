"""The shape of the package: imports run one way, nothing is loaded early, files stay small and well
named."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import orbitwise

PACKAGE = Path(orbitwise.__file__).parent
ROOT = PACKAGE.parents[1]
FILES = sorted(PACKAGE.rglob("*.py"))

# A folder may import itself, everything on a later level, and errors. (DESIGN: "Imports run one
# way".)
LEVELS = [
    {"cli"},
    {"methods"},
    {"molecules", "crystals", "proteins", "graphs"},
    {"training", "report", "audit", "search", "objectives", "runs"},
    {"orbits", "processes", "energies", "networks", "data", "metrics", "statistics"},
    {"groups"},
]
MATTER = LEVELS[2]
FIRST_MATTER = 2  # levels above this one are below matter
SCIENCES = {"rdkit", "pymatgen", "biotite", "openmm"}
# the automorphisms of a molecule are a group; a page of a molecule draws its formula
MAY_KNOW = {"groups/automorphism.py": {"rdkit"}, "report/drawing.py": {"rdkit"}}
LARGEST_FOLDER = 20  # files, or folders
FOR_ALL = {"errors", "lazy", "ranks", "signals", "units"}
BANNED_NAMES = ("util", "common", "misc", "helper")
EARLY = {
    "torch",
    "numpy",
    "scipy",
    "roma",
    "rdkit",
    "ase",
    "matplotlib",
    "plotly",
    "pydantic",
    "rich",
    "ot",
}


def folder_of(path: Path) -> str:
    """The part of the package a file belongs to: its top folder, or its own name for a file beside
    them."""
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def level(folder: str) -> int:
    return next(i for i, names in enumerate(LEVELS) if folder in names)


def allowed(importer: str, imported: str) -> bool:
    if imported in FOR_ALL or importer == imported or importer in ("__init__", "__main__"):
        return True
    return importer not in FOR_ALL and level(imported) > level(importer)


def imports(tree: ast.AST, package: list[str]):
    """Every name of orbitwise imported anywhere in a file, also inside functions, under
    ``TYPE_CHECKING`` and by ``import_module("…")``, as (line, dotted name without
    ``orbitwise.``)."""
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
            names = [
                a.value
                for a in node.args
                if isinstance(a, ast.Constant) and isinstance(a.value, str)
            ]
        for name in names:
            if name == "orbitwise" or name.startswith("orbitwise."):
                yield node.lineno, name.partition(".")[2]


def target_folder(name: str) -> str | None:
    """The folder a dotted name leads to; lazy names of the package are followed; None for its plain
    facts."""
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
            found.append(
                f"{path.name}:{line} imports the whole package; import the module it needs"
            )
        elif (imported := target_folder(name)) and not allowed(importer, imported):
            found.append(
                f"{path.relative_to(PACKAGE)}:{line} ({importer}) imports orbitwise.{name}"
            )
    return found


def foreign(source: str) -> set[str]:
    """Top names of all packages a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imported_modules() -> dict[str, set[str]]:
    """Module -> the modules of the package it imports, inside functions too; packages' lazy tables
    are not followed."""
    known = {module_of(path) for path in FILES}
    graph = {}
    for path in FILES:
        package = ["orbitwise", *path.relative_to(PACKAGE).parts[:-1]]
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or node.level):
                base = package[: len(package) - node.level + 1] if node.level else []
                top, _, module = ".".join(
                    [*base, *([node.module] if node.module else [])]
                ).partition(".")
                if top != "orbitwise":
                    continue
                inner = {f"{module}.{alias.name}".strip(".") for alias in node.names}
                found |= (inner & known) or ({module} & known)
            elif isinstance(node, ast.Import):
                names = [alias.name.partition(".") for alias in node.names]
                found |= {name for top, _, name in names if top == "orbitwise"} & known
        graph[module_of(path)] = found - {module_of(path)}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module."""
    import networkx

    found = networkx.strongly_connected_components(networkx.DiGraph(graph))
    return sorted(sorted(part) for part in found if len(part) > 1)


def test_no_circle_of_imports():
    assert circles({"a": {"b"}, "b": {"a", "c"}, "c": set()}) == [["a", "b"]]
    assert circles(imported_modules()) == []


def test_families_of_methods_never_import_each_other():
    """``methods.crystals`` may not know ``methods.proteins``; what both need is a part."""
    broken = [
        f"{module} imports {other}"
        for module, others in imported_modules().items()
        for other in others
        if module.startswith("methods.") and other.startswith("methods.")
        if module.split(".")[1] != other.split(".")[1]
    ]
    assert not broken, broken


def test_below_matter_no_science_is_known():
    broken = {}
    for path in FILES:
        folder, place = folder_of(path), path.relative_to(PACKAGE).as_posix()
        below = folder in FOR_ALL or (
            folder in set().union(*LEVELS) and level(folder) > FIRST_MATTER
        )
        known = foreign(path.read_text()) & SCIENCES - MAY_KNOW.get(place, set())
        if below and known:
            broken[place] = known
    assert not broken, broken


def largest_folder() -> tuple[int, str]:
    """The most files, or the most folders, that one folder of the project holds."""
    roots = [PACKAGE, *(ROOT / name for name in ("tests", "benchmarks", "docs", "examples"))]
    found = []
    for folder in (
        f for root in roots if root.is_dir() for f in [root, *root.rglob("*")] if f.is_dir()
    ):
        inside = [p for p in folder.iterdir() if not p.name.startswith(("__", "."))]
        files = sum(p.is_file() for p in inside)
        found.append((max(files, len(inside) - files), folder.name))
    return max(found)


def test_no_folder_is_full():
    assert largest_folder()[0] <= LARGEST_FOLDER, largest_folder()


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
        ("molecules", "from orbitwise.crystals.crystal import Crystal"),
        ("report", "from orbitwise.runs.outcome import Outcome"),
    ],
)
def test_the_check_sees_what_it_should(folder, source):
    assert broken_rules(
        source, PACKAGE / folder / "x.py" if folder != "errors" else PACKAGE / "errors.py"
    )


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("cli", "from orbitwise.methods import registry\nfrom orbitwise import __version__"),
        (
            "search",
            "from orbitwise.energies.base import Energy\nfrom orbitwise.errors import InputError",
        ),
        (
            "orbits",
            (
                "from orbitwise.orbits import dispatch\nfrom . import result\nfrom orbitwise"
                " import SO3"
            ),
        ),
        ("groups", "import torch\nfrom orbitwise.groups import base"),
    ],
)
def test_the_check_lets_through_what_it_should(folder, source):
    assert broken_rules(source, PACKAGE / folder / "x.py") == []


def test_files_are_short_and_named_for_what_they_do():
    long = {path.name: n for path in FILES if (n := len(path.read_text().splitlines())) > 500}
    assert not long, f"refused at 500 lines: {long}"
    names = {part for path in FILES for part in path.relative_to(PACKAGE).with_suffix("").parts}
    vague = [
        name for name in names if any(name.strip("_").startswith(banned) for banned in BANNED_NAMES)
    ]
    assert not vague, vague


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_importing_the_package_loads_nothing():
    code = "import sys, orbitwise; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = set(run(code).stdout.split())
    assert "orbitwise" in loaded and not loaded & EARLY, loaded & EARLY


def test_public_names_cost_little_beyond_torch():
    """Modules that ``orbitwise``, all its public names and a first posterior over SO(3) add to
    torch and numpy; their seconds are a row of ``benchmarks/quality/library.py``."""
    code = (
        "import sys, torch, numpy\n"
        "before = set(sys.modules)\n"
        "import orbitwise as ow\n"
        "names = [getattr(ow, name) for name in ow._WHERE]\n"
        "x = torch.randn(2, 5, 3)\n"
        "post = ow.orbit_posterior(ow.SO3(), ow.GaussianProcess.flow(), x, x, 0.5)\n"
        "turned = ow.SO3().act(post.sample(2), x)\n"
        "print(*(set(sys.modules) - before))"
    )
    modules = run(code).stdout.split()
    assert "orbitwise.orbits.posterior.rotations" in modules
    heavy = {name.partition(".")[0] for name in modules} & EARLY - {"torch", "numpy"}
    assert not heavy, heavy  # roma among them
    compiler = [name for name in modules if name.startswith(("torch._dynamo", "sympy"))]
    assert not compiler, compiler[:5]
    foreign = [name for name in modules if not name.startswith("orbitwise")]
    assert len(foreign) < 20, foreign
