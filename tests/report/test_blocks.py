"""Each block alone on a page."""

import html
import io
import re
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from orbitwise.report import (
    CheckRow,
    Checks,
    Citation,
    Cost,
    Meanings,
    Method,
    Page,
    Picture,
    Provenance,
    StageRow,
    Table,
    Text,
)
from orbitwise.report.page import render


def lines(*blocks) -> list[str]:
    """The text of a page's blocks, cell by cell."""
    body = render(Page("x", blocks)).split("<main>")[1].split("</main>")[0]
    cells = re.split(r"<[^>]+>", body)
    return [html.unescape(c).strip() for c in cells if c.strip()]


def test_text_with_its_warnings():
    assert lines(Text(("One.", "Two."), warnings=("Mind.",))) == [
        "In plain words",
        "One.",
        "Two.",
        "Mind.",
    ]
    assert lines(Text((), warnings=("Mind.",), title="T")) == ["T", "Mind."]


def test_table():
    table = Table("Found", ("a", "b"), (("x", "1"), ("y", "2")), note="A note.")
    assert lines(table) == ["Found", "a", "b", "x", "1", "y", "2", "A note."]


def test_checks_show_what_stands_beside_where_any_row_has_it():
    plain = CheckRow("bond", "1.5", target="1.6")
    assert lines(Checks((plain,))) == [
        *("Agreement with the reference", "Quantity", "Samples", "Target"),
        *("bond", "1.5", "1.6"),
    ]
    rows = (
        CheckRow("js", "0.1", "0.2", True, {"Learned": "0.4"}),
        CheckRow("gap", "9", "1", False),
    )
    assert lines(Checks(rows, title="C", head="Final", target="Goal")) == [
        *("C", "Quantity", "Final", "Learned", "Goal"),
        *("js", "0.1", "0.4", "0.2", "reached"),
        *("gap", "9", "1", "MISSED"),
    ]


def test_cost_adds_up_and_its_bars_are_shares_of_the_longest():
    cost = Cost((StageRow("search", 120.0, 1000, 900), StageRow("learn", 60.0)))
    said = lines(cost)
    assert said[6:] == [
        *("search", "2 min 00 s", "1,000", "900"),
        *("learn", "1 min 00 s", "–", "–"),
        *("Total", "3 min 00 s", "1,000", "900"),
        said[-1],
    ]
    widths = re.findall(r"width: ([\d.]+)%", render(Page("x", (cost,))).split("<main>")[1])
    assert widths == ["100.0", "50.0"]
    assert "Note" in lines(Cost((StageRow("search", 0.0, note="kept"),)))


def test_meanings_method_and_provenance():
    assert lines(Meanings((("W1", "a distance"),))) == [
        "What the numbers mean",
        "W1",
        "a distance",
    ]
    paper = Citation.arxiv(" A paper.\n", "2502.09890")
    assert lines(Method(("Words.",), (paper, Citation.arxiv("A book.", None)))) == [
        *("Method", "Words.", "Please cite"),
        *("A paper.", "https://arxiv.org/abs/2502.09890", "A book."),
    ]
    whole = Provenance(
        files=(("a.csv", "a table"),),
        settings={"n": 3, "train": {"steps": [1, 2], "rate": None}},
        versions={"torch": "2"},
        seed=0,
        commit="abc",
        command="orbitwise x",
    )
    assert lines(whole) == [
        *("Files and settings", "a.csv", "a table"),
        *("Command", "orbitwise x", "Seed", "0", "Commit", "abc"),
        *("n", "3", "train.steps", "1, 2", "torch", "2"),
    ]


@pytest.mark.parametrize("width", [290, 1450])
def test_a_picture_stands_in_the_page_at_the_size_of_its_type(width):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((10, width), np.uint8)).save(buffer, "PNG")
    text = render(Page("x", (Picture(buffer.getvalue(), "Seen", "A caption."),)))
    assert f'<img width="{width / 1.45:.0f}"' in text and 'alt="Seen"' in text
    kept = re.search(r'src="data:image/png;base64,([^"]+)"', text).group(1)
    assert b64decode(kept) == buffer.getvalue() and "A caption." in text


def test_blocks_stand_in_their_order():
    text = render(Page("x", (Text(("b",), title="B"), Text(("a",), title="A"), Text(("c",)))))
    assert re.findall("<h2>(.*?)</h2>", text) == ["B", "A", "In plain words"]
