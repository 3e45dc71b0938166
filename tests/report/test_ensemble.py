"""The block of an ensemble: its table, its view, what it says of what is missing."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from orbitwise.report import Distributions, Ensemble, Page
from orbitwise.report.ensemble import FreeEnergy
from orbitwise.report.ensemble_view import difference, table_torsions
from orbitwise.report.figures import energies_beyond
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
    many = replace(data, conformers=(row,) * 40 + (missing,))
    text = drawn(many)
    assert "and 11 more conformers with" in text
    assert len(re.findall(r"<button", text)) == 12
    assert "<td>–</td>" in drawn(replace(data, conformers=(row, missing)))


def test_without_a_reference_the_search_stands_beside():
    data = ensemble(*BUTANOL, reference=False)
    panels = [
        replace(p, angles=replace(p.angles, searcher=p.angles.samples[::2])) for p in data.torsions
    ]
    rows = [
        replace(r, search_population=0.123, search_population_error=0.01) for r in data.conformers
    ]
    text = drawn(replace(data, torsions=tuple(panels), conformers=tuple(rows)))
    assert "<th>Search<br>" in text and "12.3 ± 1.0" in text and '"text":"Search"' in text
    with_both = drawn(replace(ensemble(*BUTANOL), torsions=tuple(panels)))
    assert "<th>Reference<br>" in with_both


def test_broken_samples_do_not_break_the_page():
    """Geometries that are not finite, as a bad sampler leaves them, are left out of the figures."""
    data = ensemble(*BUTANOL)
    panels = tuple(
        replace(
            p,
            angles=replace(p.angles, before=np.where(np.arange(400) < 50, np.nan, p.angles.before)),
        )
        for p in data.torsions
    )
    energies = replace(data.energies_kcal, before=np.full(400, np.inf))
    text = drawn(replace(data, torsions=panels, energies_kcal=energies))
    assert "100 % of before relaxation" in text and "NaN" not in Tags(text).scripts[0]
    # samples far above the reference do not squeeze it into one bar
    far = Distributions(np.linspace(100, 1e4, 300), reference=np.linspace(0, 20, 300))
    assert energies_beyond(far) == "Not on the axis: 100 % of samples."
