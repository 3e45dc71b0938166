"""Builds the wheel and the source distribution into dist/ and checks them: descriptions that a
package index can show, what is in them, and the wheel in a clean environment without extras, where
the README's code must run and the command line must say what it lacks.

``make release`` calls this; nothing is uploaded.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
IN_WHEEL = (
    r"orbitwise/py\.typed",
    r"orbitwise/__init__\.pyi",
    r"orbitwise/molecules/__init__\.pyi",
    r"orbitwise/methods/cards/.+\.yaml",
    r"orbitwise/methods/cards/measured\.json",
    r"orbitwise/methods/presets/.+/.+\.yaml",
    r"orbitwise/methods/checkpoints/.+\.safetensors",
    r"orbitwise/report/templates/page\.html",
    r"orbitwise/report/style\.css",
    r"orbitwise/report/viewer\.js",
    r".+\.dist-info/licenses/LICENSE",
)
IN_SOURCE = (
    *("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Makefile"),
    r"tests/.+\.py",
    r"tests/.+\.zip",
    r"docs/.+\.md",
    r"benchmarks/.+\.py",
    r"benchmarks/references/.+\.py",
    r"benchmarks/references/alanine_dipeptide\.npz",
    r"benchmarks/results/.+\.json",
    r"examples/.+\.py",
    r"src/orbitwise/__init__\.py",
)
NOT_PUBLISHED = r"(.*/)?(\.git|\.venv|shared|__pycache__)/.*"


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """What a command prints; the release stops with its output where it fails."""
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def check_names(archive: Path, names: list[str], wanted: tuple[str, ...]) -> None:
    missing = [p for p in wanted if not any(re.fullmatch(p, name) for name in names)]
    surplus = [name for name in names if re.fullmatch(NOT_PUBLISHED, name)]
    if missing or surplus:
        sys.exit(f"{archive.name}: lacks {missing}, should not hold {surplus}")
    print(f"{archive.name}: {archive.stat().st_size / 1e6:.1f} MB, {len(names)} files, complete")


def check_version(wheel: Path) -> None:
    """The citation and the changelog speak of the version that was built."""
    version = wheel.name.split("-")[1]
    if f"\nversion: {version}\n" not in (ROOT / "CITATION.cff").read_text():
        sys.exit(f"CITATION.cff does not name the version {version}")
    if not re.search(rf"^## {re.escape(version)} ", (ROOT / "CHANGELOG.md").read_text(), re.M):
        sys.exit(f"CHANGELOG.md has no part on {version}")


def snippet() -> str:
    """The README's Python."""
    text = (ROOT / "README.md").read_text()
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.S | re.M))


def check_installed(wheel: Path, folder: Path) -> None:
    """The wheel with its core requirements alone; ``-I`` keeps this checkout out of sight."""
    venv.create(folder / "clean", with_pip=True)
    python = folder / "clean" / "bin" / "python"
    pip = (python, "-I", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt")
    run(*pip, "torch")
    run(*pip, wheel)
    print("installed without extras:", *run(python, "-I", "-m", "pip", "freeze").split())

    run(python, "-I", "-c", snippet(), cwd=folder)
    print("the README's code runs there")

    command = [python, "-I", "-m", "orbitwise", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    said = done.stderr.strip()
    if done.returncode != 2 or "\n" in said or "orbitwise[train]" not in said:
        sys.exit(f"orbitwise --help without extras: {done.returncode}\n{done.stderr}")
    print(f"orbitwise --help says there: {said}")


def main() -> None:
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST, ROOT)
    (wheel,), (source,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    check_version(wheel)

    run(sys.executable, "-m", "twine", "check", "--strict", wheel, source)
    print("twine check --strict passes: the README renders on a package index")

    with zipfile.ZipFile(wheel) as archive:
        check_names(wheel, archive.namelist(), IN_WHEEL)
    with tarfile.open(source) as archive:
        names = [m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()]
        check_names(source, names, IN_SOURCE)

    with tempfile.TemporaryDirectory() as folder:
        check_installed(wheel, Path(folder))
    print(f"ready in {DIST}; after tagging: python -m twine upload dist/*")


if __name__ == "__main__":
    main()
