"""Code in the README and the documentation runs as it stands; blocks of one page share a
namespace."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import orbitwise as ow

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# where the README's links lead, so that they work on a package index too
HERE = "https://github.com/orbitwise/orbitwise/blob/main/"
IMAGES = "https://raw.githubusercontent.com/orbitwise/orbitwise/main/"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text())


def test_there_is_code_to_run():
    assert any(blocks(page) for page in PAGES)
    assert blocks(ROOT / "README.md"), "the README shows no Python"


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_code_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "documentation"}
    for number, code in enumerate(blocks(page), 1):
        # as they stand: without this file's own "from __future__"
        exec(compile(code, f"{page.name} block {number}", "exec", dont_inherit=True), namespace)


def test_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scripts = sorted((ROOT / "examples").glob("*.py"))
    assert scripts
    for script in scripts:
        exec(compile(script.read_text(), script.name, "exec"), {"__name__": "__main__"})


def test_the_two_commands_come_first_in_the_readme():
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^(?:\$ )?(make \w+|orbitwise [\w-]+|pip install)", text, re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]


def test_links_between_pages_exist():
    for page in PAGES:
        prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", prose):
            target = target.removeprefix(HERE).removeprefix(IMAGES)
            if not target.startswith(("http", "mailto")):
                assert (page.parent / target).exists(), (
                    f"{page.name} links to {target}, which does not exist"
                )


ROOMS = "|".join(ow._PACKAGES)
NAME = re.compile(
    rf"`(?:(?:orbitwise|ow)\.)?((?:{ROOMS})(?:\.(?!html|json|png|csv|extxyz)\w+)+)[`(]"
)
FILE = re.compile(rf"`((?:{ROOMS})(?:/\w+)+\.py)`")


def resolves(name: str) -> bool:
    """``room.module.Class.member``, by importing as much of it as is modules."""
    found = ow
    for step, part in enumerate(parts := name.split("."), 1):
        if hasattr(found, part):
            found = getattr(found, part)
            continue
        try:
            found = import_module(".".join(["orbitwise", *parts[:step]]))
        except ModuleNotFoundError:
            return False
    return True


def test_names_in_prose_are_known():
    assert resolves("groups.so3.SO3.sample") and not resolves("metrics.no_such_number")
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        unknown = [name for name in NAME.findall(prose) if not resolves(name)]
        unknown += [f for f in FILE.findall(prose) if not (ROOT / "src/orbitwise" / f).exists()]
        assert not unknown, f"{page.name} speaks of {unknown}"
