"""The page as a whole: it holds everything, loads nothing, escapes what it is told, and works."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from orbitwise.errors import InputError
from orbitwise.report import (
    CheckRow,
    Checks,
    Citation,
    Cost,
    Drawing,
    KeyFigure,
    Meanings,
    Method,
    Page,
    Picture,
    Provenance,
    StageRow,
    Table,
    Text,
    write_report,
)
from orbitwise.report.page import render
from report.example import MOLECULES, Tags, ensemble, page

EVIL = '</script><script>alert(1)</script>"><img src=http://bad.example/x.png onerror=alert(2)>&<b>'
BUTANE = "CCCC", MOLECULES["CCCC"]


@pytest.mark.parametrize("smiles, torsions", MOLECULES.items())
@pytest.mark.parametrize("reference", [True, False])
def test_page_is_self_contained_and_complete(smiles, torsions, reference, tmp_path):
    shown = ensemble(smiles, torsions, reference)
    path = write_report(tmp_path / "report.html", page(smiles, shown, reference))
    text = path.read_text(encoding="utf-8")
    found = Tags(text)
    # nothing is loaded: no src, no stylesheet, no link but citations, and a policy that forbids it
    assert not [a for t, a in found.tags if "src" in a or t in ("link", "iframe", "base", "object")]
    links = [a["href"] for t, a in found.tags if "href" in a and not a["href"].startswith("#")]
    assert links == ["https://arxiv.org/abs/2502.09890"]
    policy = next(
        a["content"] for t, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy and "http" not in policy
    assert sum("plotly.js v" in s for s in found.scripts) == 1
    # the figures that this molecule has
    names = {a["data-figure"] for t, a in found.tags if "data-figure" in a}
    expected = {f"torsion-{k}" for k in range(len(torsions))} | {"energies"}
    expected |= {"map"} if len(torsions) > 1 else set()
    expected |= {"populations"} if len(shown.conformers) > 1 else set()
    assert names == expected
    assert sum("plot" in a.get("class", "").split() for _, a in found.tags) == len(names)
    assert ("Reference" in text.split("<main>")[1].split("</table>")[0]) == reference
    assert sum(t == "tr" and "data-structure" in a for t, a in found.tags) == len(shown.conformers)
    assert "<svg" in text and "61 s" not in text and "1 min 01 s" in text and "400,000" in text


def test_the_page_can_be_read_without_seeing_it():
    """What is drawn is named in words, and every choice of a structure is a button."""
    found = Tags(render(page("CCCC", ensemble(*BUTANE))))
    assert ("html", {"lang": "en"}) in found.tags
    named = {a["aria-label"] for _, a in found.tags if a.get("role") == "img"}
    assert named == {"Drawing of CCCC", "Three-dimensional view of the chosen conformer"}
    buttons = [a["aria-label"] for t, a in found.tags if t == "button"]
    assert buttons == [f"Show conformer {k}" for k in range(1, len(buttons) + 1)] and buttons
    assert any(a.get("role") == "note" for _, a in found.tags)


def test_user_text_cannot_become_markup():
    shown = ensemble(*BUTANE)

    def told(text: str) -> Page:
        row = replace(shown.conformers[0], name=text)
        block = replace(
            shown,
            note=text,
            torsions=(replace(shown.torsions[0], label=text),),
            conformers=(row, *shown.conformers[1:]),
        )
        return Page(
            title=text,
            banner=text,
            lead=text,
            kind=text,
            subtitle=text,
            drawing=Drawing(text),
            key_figures=(KeyFigure(text, text, text),),
            created=text,
            blocks=(
                Text((text,), warnings=(text,), title=text),
                block,
                Table(text, (text,), ((text,),), text),
                Checks((CheckRow(text, text, text, beside={text: text}),), text, text, text),
                Cost((StageRow(text, 1.0, note=text),)),
                Meanings(((text, text),)),
                Method((text,), (Citation(text, "https://doi.org/10.1000/1"),)),
                Provenance(((text, text),), {text: text}, {text: text}, 1, text, text),
            ),
        )

    found, clean = Tags(render(told(EVIL))), Tags(render(told("words")))
    assert not [t for t, a in found.tags if t in ("img", "b") or "onerror" in a or "src" in a]
    assert not [s for s in found.scripts if s.strip() == "alert(1)"]
    assert len(found.scripts) == len(clean.scripts)
    picture = Tags(render(Page("x", (Picture(bytes(24), EVIL, EVIL),))))
    assert [t for t, _ in picture.tags].count("img") == 1 and not picture.scripts


def test_a_bare_page_has_no_empty_sections():
    empty = (Text(()), Checks(()), Cost(()), Meanings(()), Method(), Provenance())
    text = render(Page("x", empty))
    assert "<section" not in text and "plotly.js v" not in text and len(text) < 20_000
    assert "<p" not in text.split("<main>")[0] and "<title>x</title>" in text


def test_a_molecule_that_cannot_be_read_is_not_drawn():
    head = render(Page("x", drawing=Drawing("not a smiles"))).split("<main>")[0]
    assert "<svg" not in head and "not a smiles" in head
    ion = render(Page("x", drawing=Drawing("CC(=O)[O-]"), subtitle="in water"))
    assert "C<sub>2</sub>H<sub>3</sub>O<sub>2</sub><sup>-</sup></span> · in water" in ion


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write the report"):
        write_report(tmp_path / "file" / "report.html", Page("x"))


@pytest.mark.skipif(
    shutil.which("chromium") is None, reason="no chromium here to open the page with"
)
def test_the_page_works_in_a_browser(tmp_path):
    """Opens offline without script errors, draws every figure, and a click changes the
    conformer."""
    smiles = "CC[C@@H](C)O"
    text = render(page(smiles, ensemble(smiles, MOLECULES[smiles])))
    watch = "<script>window.trouble=[];window.addEventListener('error',e=>trouble.push(e.message));"
    watch += "document.addEventListener('securitypolicyviolation',"
    watch += "e=>trouble.push(e.blockedURI));</script>"
    click = "<script>setTimeout(()=>{document.querySelectorAll('.buttons button')[2].click();"
    click += "document.title='trouble:'+JSON.stringify(trouble)},1500)</script></body>"
    path = tmp_path / "page.html"
    path.write_text(
        text.replace("<head>", "<head>" + watch, 1).replace("</body>", click), encoding="utf-8"
    )
    command = (
        "chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
        " --disable-sync"
    )
    command += " --disable-background-networking --disable-component-update --use-angle=swiftshader"
    command += (
        " --enable-unsafe-swiftshader --virtual-time-budget=8000"
        f" --user-data-dir={tmp_path}/profile"
    )
    found = subprocess.run(
        [*command.split(), "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120
    ).stdout
    if "<html" not in found:
        pytest.skip("chromium does not start here")
    assert "<title>trouble:[]</title>" in found
    assert found.count('class="main-svg"') >= 4 and "<canvas" in found
    assert re.search(r'<button type="button" data-structure="2"[^>]*class="selected"', found)
    assert "Conformer 3:" in found.split('structure-name"')[1][:80]
