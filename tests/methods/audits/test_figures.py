"""Figures of an audit draw what they are given, for every kind of result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from orbitwise.methods.audits.figures import AuditPoint, levels_figure, outputs_figure
from orbitwise.report import Page, Table
from orbitwise.report.canvas import save
from orbitwise.report.page import render

POINT = AuditPoint("forces", None, 12.0, 0.5, 1.5, 1.32, 0.18, 0.4, False)
EVEN = replace(
    POINT, name="energy", percent=0.0, equivariance=-1e-18, deviation=0.0, symmetric=True
)


def test_outputs_side_by_side(tmp_path):
    fig = outputs_figure([POINT, EVEN], True, [("float64", 2.2e-16)])
    left, right = fig.axes
    widths = [bar.get_width() for bar in left.patches]
    assert widths == pytest.approx([88, 100, 12, 0])  # wrong in every pose, then the noise
    assert {t.get_text() for t in left.texts} == {"12 %", "none"}
    assert right.get_xscale() == "log" and right.get_xlim()[0] < 1e-16
    with Image.open(save(fig, tmp_path / "a.png")) as image:
        assert np.asarray(image.convert("L")).std() > 10
    assert len(outputs_figure([POINT], False, []).axes) == 1


def test_levels_in_order_and_without_what_a_logarithm_cannot_show():
    points = [replace(POINT, level=t, percent=p) for t, p in ((0.9, 3.0), (0.2, 0.5))]
    points.append(replace(EVEN, level=0.5, percent_error=float("nan")))
    left, right = levels_figure(points, "noise level t", "Å²").axes
    drawn = left.containers[0].lines[0]
    np.testing.assert_allclose(drawn.get_xdata(), [0.2, 0.5, 0.9])
    np.testing.assert_allclose(drawn.get_ydata(), [0.5, 0.0, 3.0])
    noise = right.lines[2]
    np.testing.assert_allclose(noise.get_xdata(), [0.2, 0.9])
    assert right.get_ylabel() == "loss (Å²)"


def test_tables_are_escaped():
    table = Table("Found <b>", ("a", "b"), (("x & y", "1 < 2"),), "a note")
    page = render(Page("t", (table,)))
    assert "Found &lt;b&gt;" in page and "1 &lt; 2" in page and "a note" in page
