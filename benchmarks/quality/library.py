"""The library itself: how full its folders are, circles of imports, types, the cost of importing.

    python -m benchmarks.quality.library

Folders and circles are counted as tests/contracts/test_imports.py counts them, type errors by mypy
on the files that pyproject.toml names. Importing: processor seconds of ``import orbitwise`` and a
first exact posterior over rotations, after torch and numpy, each time in a fresh process on one
thread.
"""

from __future__ import annotations

import importlib.util
import os
import re
import statistics
import subprocess
import sys
import time
import tomllib
from types import ModuleType

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import ROOT
from benchmarks.tools.rows import Row, write_rows

RUNS = 5
FIRST_USE = """
import time
import numpy, torch
begin = time.process_time()
import orbitwise as ow
x = torch.randn(4, 8, 3)
ow.orbit_posterior(ow.SO3(), ow.GaussianProcess.flow(), x, x, 0.5).mean
print(time.process_time() - begin)
"""


def python(*words: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter on the sources of this checkout."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def contracts() -> ModuleType:
    """The tests of the structure, whose way of counting is used."""
    path = ROOT / "tests" / "contracts" / "test_imports.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def structure() -> list[Row]:
    counted = contracts()
    most, where = counted.largest_folder()
    circles = counted.circles(counted.imported_modules())
    note = "the most files, or the most folders, in one folder"
    return [
        Row("structure.largest_folder", most, goal="<= 20", note=f"{note}: {where}"),
        Row("structure.circles", len(circles), goal="0", note="circles of imports"),
    ]


def types() -> list[Row]:
    """None where mypy is not configured."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text()).get("tool", {}).get("mypy")
    if settings is None:
        print("skipped: types: pyproject.toml has no [tool.mypy]")
        return []
    begin = time.perf_counter()
    done = python("-m", "mypy")
    counted = re.search(r"Found (\d+) errors?|Success: no issues found", done.stdout)
    if counted is None:
        raise SystemExit(f"mypy did not get through:\n{done.stdout}{done.stderr}")
    files = re.search(r"(?:checked |in )(\d+) source files?", done.stdout)
    note = f"{files[1] if files else '?'} files, strict: {settings.get('strict', False)}"
    seconds = time.perf_counter() - begin
    errors = int(counted[1] or 0)
    return [Row("types.errors_public_face", errors, goal="0", seconds=seconds, note=note)]


def importing() -> list[Row]:
    begin, seconds = time.perf_counter(), []
    for _ in range(RUNS):
        done = python("-c", FIRST_USE)
        if done.returncode:
            raise SystemExit(done.stderr)
        seconds.append(float(done.stdout))
    return [
        Row(
            "import.seconds_beyond_torch",
            statistics.median(seconds),
            goal="<= 0.3",
            seconds=time.perf_counter() - begin,
            note=(
                f"processor time with the first posterior, median of {RUNS} processes,"
                f" {min(seconds):.2f} to {max(seconds):.2f} s"
            ),
        )
    ]


def main() -> None:
    write_rows("library", structure() + types() + importing())


if __name__ == "__main__":
    benchmark(main, quick={"RUNS": 1})
