"""What a type checker sees of the public names: the real ones, with their signatures."""

import ast
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import stubs

ROOT = stubs.PACKAGE.parents[1]

FACE = '''\
import torch
from torch import Tensor

import orbitwise as ow


class Mine:
    """A process of one's own, with the two methods that a posterior needs."""

    def alpha(self, t: Tensor) -> Tensor:
        return t

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - t


x = torch.randn(2, 5, 3)
process: ow.Process = Mine()
for known in (ow.GaussianProcess.flow(), ow.HarmonicProcess(), Mine()):
    post = ow.orbit_posterior(ow.SO3(), known, x, x, 0.5)
wrapped: ow.WrappedProcess = ow.WrappedNormalProcess()
item = torch.zeros(5, dtype=torch.long)
ragged = ow.orbit_posterior(ow.SO3(), Mine(), x[0], x[0], 0.5, batch=item, check=False)
aligned = ow.orbit_posterior(ow.SO3(), Mine(), x, x, 0.5, coupling="aligned", x0=x)
targets = [aligned.velocity, aligned.noise, aligned.target("v"), aligned.target("endpoint")]
shifted = ow.orbit_posterior(ow.PeriodicTranslation(), wrapped, x, x, 0.5, method="mode")

reveal_type(ow.SO3())
reveal_type(ow.GaussianProcess.flow())
reveal_type(post)
reveal_type(post.mean)
reveal_type(ow.twirl(lambda y: y, ow.SO3(), 4))
reveal_type(ow.framed(lambda y: y, ow.SO3()))
reveal_type(ow.audit_equivariance(lambda y: y, ow.SO3(), (x, x)))
reveal_type(ow.errors.InputError("no"))
reveal_type(ow.processes.Heun())
reveal_type(ow.molecules)
reveal_type(ow.molecules.MMFF94)
'''
SEEN = [
    "SO3",
    "Flow",
    "OrbitPosterior",
    "Tensor",
    "Twirled",
    "Twirled",
    "AuditReport",
    "InputError",
    "Heun",
    "ModuleType",
    "MMFF94",
]

WRONG = """\
import torch
import orbitwise as ow
x = torch.zeros(2, 5, 3)
ow.SO4()
ow.orbit_posterior(ow.SO3(), object(), x, x, 0.5)
ow.orbit_posterior(ow.SO3(), ow.GaussianProcess.flow(), x, x, 0.5, method="best")
ow.orbit_posterior(ow.SO3(), ow.GaussianProcess.flow(), x, x, 0.5, coupling="matched")
ow.orbit_posterior(ow.SO3(), ow.GaussianProcess.flow(), x, x, 0.5).target("x0")
"""


def checked(code: str, tmp_path: Path) -> str:
    """What mypy says of a script, by the project's own settings."""
    pytest.importorskip("mypy")
    script = tmp_path / "face.py"
    script.write_text(code)
    command = [sys.executable, "-m", "mypy", "--no-error-summary", str(script)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout


def code_of(page: str) -> str:
    text = (ROOT / page).read_text()
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


def test_the_public_names_have_their_own_types(tmp_path):
    said = checked(FACE, tmp_path)
    assert "error:" not in said, said
    seen = [name.rpartition(".")[2] for name in re.findall(r'Revealed type is "(.*)"', said)]
    assert seen == SEEN


def test_mistakes_are_seen(tmp_path):
    """Else the test above could not fail: a checker that sees ``Any`` accepts everything."""
    errors = [line for line in checked(WRONG, tmp_path).splitlines() if "error:" in line]
    lines = {int(line.split(":")[1]) for line in errors}
    assert lines == {4, 5, 6, 7, 8}, errors


PAGES = ["README.md", "docs/index.md", "docs/posterior.md", "docs/conventions.md"]


def test_the_readme_is_well_typed(tmp_path):
    said = checked(code_of("README.md"), tmp_path)
    assert "error:" not in said, said


def test_another_checker_sees_the_same(tmp_path):
    """Pages and the face above, by basedpyright as it is set without a configuration."""
    pytest.importorskip("basedpyright")
    for name, code in [("face", FACE), *((Path(page).stem, code_of(page)) for page in PAGES)]:
        (tmp_path / f"{name}.py").write_text(code)
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "standard", "extraPaths": [str(ROOT / "src")]})
    )
    command = [sys.executable, "-m", "basedpyright", "--level", "error", "-p", str(tmp_path)]
    python = ["--pythonpath", sys.executable]
    done = subprocess.run([*command, *python], capture_output=True, text=True, cwd=tmp_path)
    assert "error:" not in done.stdout and "error" not in done.stderr, done.stdout + done.stderr
    assert "0 errors" in done.stdout, done.stdout


@pytest.mark.parametrize("package", stubs.tables())
def test_checkers_see_the_names_that_load_on_first_use(package):
    """The stub holds the names of the table, each from the same module."""
    seen = {}
    for node in ast.parse(stubs.stub_of(package).read_text()).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.name == alias.asname, f"{alias.name} is not passed on"
                seen[alias.name] = node.module

    assert seen == stubs.tables()[package], "write the stubs anew: python tests/stubs.py"
    assert set(import_module(package).__all__) == set(seen)
