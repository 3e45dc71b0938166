"""The block of an ensemble: its table, its view, what it says of what is missing."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from orbitwise.report import Beside, Distributions, Ensemble, Page
from orbitwise.report.ensemble import FreeEnergy
from orbitwise.report.ensemble_view import difference, table_torsions
from orbitwise.report.figures import energies_beyond, marks
from orbitwise.report.page import render
from orbitwise.report.viewer import superpose, viewer_data
from report.example import MOLECULES, Tags, ensemble

BUTANE = "CCCC", MOLECULES["CCCC"]
BUTANOL = "CC[C@@H](C)O", MOLECULES["CC[C@@H](C)O"]


def drawn(block: Ensemble) -> str:
    """A page of nothing else."""
    return render(Page("x", (block,)))


def test_a_block_holds_the_sections_that_it_has_something_for():
    water = Ensemble(np.array([8, 1, 1]), 300.0, bonds=((0, 1), (0, 2)))
    assert "<section" not in drawn(water)
    assert "<h2>Energies</h2>" in drawn(replace(water, energies_kcal=Distributions(np.ones(9))))
    whole = ensemble(*BUTANE)
    assert re.findall("<h2>(.*?)</h2>", drawn(whole)) == ["Conformers", "Torsions", "Energies"]
    without = replace(whole, conformers=(), energies_kcal=None)
    assert re.findall("<h2>(.*?)</h2>", drawn(without)) == ["Torsions"]


def test_two_ensembles_on_a_page_keep_their_own_structures():
    first, second = ensemble(*BUTANE), ensemble(*BUTANOL)
    page = Tags(render(Page("x", (first, second))))
    views = [json.loads(s) for s in page.scripts if s.lstrip().startswith('{"symbols"')]
    assert views == [viewer_data(first), viewer_data(second)]
    assert sum("plotly.js v" in s for s in page.scripts) == 1
    assert not [a for _, a in page.tags if "id" in a]  # so none can be there twice


def test_columns_are_the_torsions_that_turn():
    block = ensemble(*BUTANOL)
    still = replace(
        block,
        map_pair=None,
        conformers=tuple(replace(r, torsions=(0.1, r.torsions[1])) for r in block.conformers),
    )
    assert table_torsions(block) == [0, 1] and table_torsions(still) == [1]


def test_a_free_energy_has_an_error_or_an_interval():
    inf = math.inf
    said = [
        difference(FreeEnergy(*values))
        for values in (
            (0.714, 0.05, (0.6, 0.8)),
            (2.4, None, (1.93, 3.01)),
            (inf, None, (2.12, inf)),
            (-inf, None, (-inf, -1.2)),
            (inf, None, (-inf, inf)),
        )
    ]
    assert said == ["0.71 ± 0.05", "1.9 to 3.0", "> 2.1", "< −1.2", "–"]
    assert difference(None) == "–"


def test_viewer_data_is_the_molecule():
    data = ensemble(*BUTANE)
    view = viewer_data(data)
    page = Tags(drawn(data))
    block = next(s for s in page.scripts if s.lstrip().startswith('{"symbols"'))
    assert json.loads(block) == view
    assert view["symbols"] == ["C"] * 4 + ["H"] * 10 and len(view["bonds"]) == 13
    for shown, row in zip(view["structures"], data.conformers, strict=True):
        for i, j in data.bonds:
            length = np.linalg.norm(row.positions_angstrom[i] - row.positions_angstrom[j])
            assert math.dist(shown[i], shown[j]) == pytest.approx(length, abs=0.003)
    assert max(np.linalg.norm(p) for s in view["structures"] for p in s) < view["extent"]


def test_superposition_is_a_proper_rotation_and_the_best_one():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 9, 3))
    many = np.concatenate(
        [x, x @ Rotation.random(rng=rng).as_matrix() + 4, rng.normal(size=(3, 9, 3))]
    )
    chosen = np.arange(9) < 7
    laid = superpose(many, chosen)
    assert np.abs(laid[1] - laid[0]).max() < 1e-12
    for before, after in zip(many, laid, strict=True):
        a, b = before - before[chosen].mean(0), after - after[chosen].mean(0)
        rotation, residual = Rotation.align_vectors(a[chosen], b[chosen])
        assert residual < 1e-6 and np.abs(rotation.apply(b) - a).max() < 1e-6  # same handedness
        best = Rotation.align_vectors(laid[0][chosen], a[chosen])[1]
        assert np.linalg.norm((after - laid[0])[chosen]) == pytest.approx(best, abs=1e-6)


def test_conformer_only_in_the_reference_and_many_conformers():
    data = ensemble(*BUTANE)
    row = data.conformers[0]
    missing = replace(
        row,
        population=0.0,
        population_error=0.0,
        free_energy_kcal=math.inf,
        free_energy_error_kcal=math.inf,
    )
    many = replace(data, conformers=(row,) * 510 + (missing,))
    assert "and 11 more conformers with" in drawn(many)
    assert "<td>–</td>" in drawn(replace(data, conformers=(row, missing)))


def test_every_row_opens_in_the_viewer_and_the_later_ones_are_folded():
    data = ensemble(*BUTANE)
    page = Tags(drawn(replace(data, conformers=data.conformers[:1] * 40)))
    rows = [a for t, a in page.tags if t == "tr" and "data-structure" in a]
    assert [int(a["data-structure"]) for a in rows] == list(range(40))
    assert [k for k, a in enumerate(rows) if "folded" in a["class"]] == list(range(15, 40))
    view = next(json.loads(s) for s in page.scripts if s.lstrip().startswith('{"symbols"'))
    assert len(view["structures"]) == 40
    buttons = [a.get("aria-label", "more") for t, a in page.tags if t == "button"]
    assert buttons.count("more") == 1 and len(buttons) == 1 + 12 + 2  # of more, before and after
    few = Tags(drawn(replace(data, conformers=data.conformers[:1] * 18)))  # none worth folding
    assert not [a for _, a in few.tags if "folded" in a.get("class", "")]


def test_other_ensembles_have_columns_in_their_order():
    data = ensemble(*BUTANOL, reference=False)
    free = FreeEnergy(0.714, 0.05, (0.6, 0.8))
    beside = {"Search": Beside(0.123, 0.01, free), "Reference": Beside(0.2, None)}
    rows = tuple(replace(r, beside=beside, degeneracy=6) for r in data.conformers)
    text = drawn(replace(data, conformers=rows, head="Final"))
    head = re.findall(r"<th[^>]*>(.*?)</th>", text.split("</thead>")[0])
    plain = [re.sub("<[^>]+>", " ", cell).split()[0].replace("&shy;", "") for cell in head]
    assert plain[-4:] == ["Final", "Search", "Reference", "Degeneracy"]
    assert "ΔE" in re.sub("<[^>]+>", "", head[-6]) and "ΔG" in re.sub("<[^>]+>", "", head[-5])
    assert '<td title="ΔG 0.71 ± 0.05 kcal/mol">12.3 ± 1.0</td><td>20.00</td><td>6</td>' in text
    assert "<th>Population<br>" in drawn(data) and "<th>Final<br>" not in drawn(data)


def test_numbers_on_the_map_do_not_cover_each_other():
    data = ensemble(*BUTANOL)
    rows = tuple(
        replace(data.conformers[0], torsions=tuple(np.radians(at)))
        for at in ((179, 0), (-176, 5), (150, 0))
    )
    x, y, text = marks(replace(data, conformers=rows))
    assert text == ["1", "3"] and x == pytest.approx([179, 150]) and y == pytest.approx([0, 0])


def test_broken_samples_do_not_break_the_page():
    """Geometries that are not finite, as a bad sampler leaves them, are left out of the figures."""
    data = ensemble(*BUTANOL)
    panels = tuple(
        replace(
            p,
            angles=replace(
                p.angles, learned=np.where(np.arange(400) < 50, np.nan, p.angles.learned)
            ),
        )
        for p in data.torsions
    )
    energies = replace(data.energies_kcal, learned=np.full(400, np.inf))
    text = drawn(replace(data, torsions=panels, energies_kcal=energies))
    assert "100 % of learned samples" in text and "NaN" not in Tags(text).scripts[0]
    # samples far above the reference do not squeeze it into one bar
    far = Distributions(np.linspace(100, 1e4, 300), reference=np.linspace(0, 20, 300))
    assert energies_beyond(far) == "Not on the axis: 100 % of samples."
