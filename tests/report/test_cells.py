"""Unit cells as they are drawn: atoms on the border, near-neighbour bonds, edges."""

import numpy as np

from orbitwise.report.cells import CellRow, Cells, cells_data
from orbitwise.report.page import Page, render

IDEAL = [[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


def row(frac, lattice, numbers) -> CellRow:
    return CellRow(
        np.array(frac, dtype=float),
        np.array(lattice, dtype=float),
        np.array(numbers),
        ("P1",),
        "1: P1",
    )


def perovskite(shift: float = 0.0) -> CellRow:
    return row(np.array(IDEAL) + shift, 3.9 * np.eye(3), [38, 22, 8, 8, 8])


def test_a_perovskite_is_drawn_with_its_corners_faces_and_octahedron():
    for shift in (0.0, 0.01, -0.01):  # on either side of the border
        (item,) = cells_data([perovskite(shift)])["items"]
        symbols = item["symbols"]
        assert (symbols.count("Sr"), symbols.count("Ti"), symbols.count("O")) == (8, 1, 6)
        titanium = symbols.index("Ti")
        assert len(item["bonds"]) == 6 and all(titanium in bond for bond in item["bonds"])
    positions = np.array(item["positions"])
    lengths = [np.linalg.norm(positions[i] - positions[j]) for i, j in item["bonds"]]
    np.testing.assert_allclose(lengths, 1.95, atol=2e-3)


def test_edges_have_the_lengths_of_the_cell_whatever_its_orientation():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    for lattice in (np.diag([3.0, 4.0, 5.0]), np.diag([3.0, 4.0, 5.0]) @ turn):
        (item,) = cells_data([row([[0.2, 0.3, 0.4]], lattice, [29])])["items"]
        edges = np.array(item["edges"])
        lengths = np.sort(np.linalg.norm(edges[:, 1] - edges[:, 0], axis=-1))
        np.testing.assert_allclose(lengths, np.repeat([3.0, 4.0, 5.0], 4), atol=3e-3)
        np.testing.assert_allclose(edges.mean((0, 1)), 0, atol=1e-3)  # in the middle of the view
        up = np.array(item["axes"][2][:3])
        assert (
            item["axes"][2][3] == "c"
            and up[1] > 0.8 * np.linalg.norm(up - np.array(item["axes"][0][:3])) / 2
        )
        assert np.abs(edges).max() <= item["reach"]
    copper = row(
        [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], 3.6 * np.eye(3), [29] * 4
    )
    (item,) = cells_data([copper])["items"]
    assert (
        len(item["symbols"]) == 14 and len(item["bonds"]) == 36
    )  # 8 corners, 6 faces; 24 to corners, 12 of faces


def test_the_page_holds_cells_and_nothing_where_there_are_none():
    assert cells_data([]) is None
    block = Cells((perovskite(),) * 40, ("Space group",), note="<a note>", rest="crystals.csv")
    page = render(Page("Crystals", (block,)))
    assert page.count("<tr data-structure") == 12 and "and 10 more in crystals.csv" in page
    assert "&lt;a note&gt;" in page and 'class="viewer"' in page and "chooses the crystal" in page
    assert "<section" not in render(Page("Crystals", (Cells((), ("Space group",)),)))
