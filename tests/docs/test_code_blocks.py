"""Code in the README and the documentation runs as it stands; blocks of one page share a
namespace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
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
        exec(compile(code, f"{page.name} block {number}", "exec"), namespace)


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
            if not target.startswith(("http", "mailto")):
                assert (page.parent / target).exists(), (
                    f"{page.name} links to {target}, which does not exist"
                )
