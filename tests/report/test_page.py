"""The report page and the static picture, from ensembles made of RDKit minima and thermal noise."""

import html.parser
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolTransforms
from scipy.spatial.transform import Rotation

from orbitwise.errors import InputError
from orbitwise.report import (
    CheckRow,
    Citation,
    ConformerRow,
    Ensembles,
    KeyFigure,
    ReportData,
    StageRow,
    TorsionPanel,
    main_picture,
    write_report,
)
from orbitwise.report.figures import energies_beyond, free_energy_map
from orbitwise.report.page import duration, render, with_error
from orbitwise.report.viewer import superpose, viewer_data

EVIL = '</script><script>alert(1)</script>"><img src=http://bad.example/x.png onerror=alert(2)>&<b>'
MOLECULES = {
    "O": (),
    "CCCC": ((0, 1, 2, 3),),
    "CC[C@@H](C)O": ((0, 1, 2, 3), (1, 2, 4, 14)),
    "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O": (
        (0, 1, 3, 4),
        (1, 3, 4, 5),
        (6, 7, 10, 11),
        (7, 10, 12, 13),
        (13, 12, 14, 32),
    ),
}


def report(smiles: str, torsions=(), reference: bool = True, samples: int = 400) -> ReportData:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMultipleConfs(mol, 12, randomSeed=3)
    energies = np.array([e for _, e in AllChem.MMFFOptimizeMoleculeConfs(mol, maxIters=2000)])
    energies -= energies.min()
    positions = np.stack([c.GetPositions() for c in mol.GetConformers()])
    angles = np.array(
        [[rdMolTransforms.GetDihedralRad(c, *t) for t in torsions] for c in mol.GetConformers()]
    ).reshape(len(positions), -1)
    weights = np.exp(-energies / 0.596)
    weights /= weights.sum()
    order = weights.argsort()[::-1][:6]
    rng = np.random.default_rng(0)

    def draw(n, noise):
        pick = rng.choice(len(weights), n, p=weights)
        return angles[pick] + noise * rng.normal(size=(n, len(torsions))), rng.gamma(10, 0.6, n)

    (a, ea), (b, eb), (r, er) = draw(samples, 0.15), draw(samples, 0.25), draw(3 * samples, 0.15)
    panels = tuple(
        TorsionPanel(f"T{k}", Ensembles(a[:, k], b[:, k], None, r[:, k] if reference else None), t)
        for k, t in enumerate(torsions)
    )
    rows = tuple(
        ConformerRow(
            population=weights[k],
            population_error=0.01,
            free_energy_kcal=-0.596 * math.log(weights[k] / weights.max()),
            free_energy_error_kcal=0.0 if k == order[0] else 0.05,
            energy_kcal=energies[k],
            positions_angstrom=positions[k],
            torsions=tuple(angles[k]),
            reference_population=weights[k] if reference else None,
            reference_population_error=0.004 if reference else None,
        )
        for k in order
    )
    return ReportData(
        title=smiles,
        smiles=smiles,
        temperature_kelvin=300.0,
        numbers=np.array([x.GetAtomicNum() for x in mol.GetAtoms()]),
        bonds=tuple((x.GetBeginAtomIdx(), x.GetEndAtomIdx()) for x in mol.GetBonds()),
        key_figures=(KeyFigure("Conformers", str(len(rows)), "6 shown"),),
        summary=("A few words.",),
        warnings=("Populations below 1 % are rough.",),
        torsions=panels,
        map_pair=(0, 1) if len(torsions) > 1 else None,
        energies_kcal=Ensembles(ea, eb + 3, None, er if reference else None),
        conformers=rows,
        checks=(CheckRow("JS divergence", "0.03", "0.20", "≤ 0.05", True),) if reference else (),
        stages=(StageRow("Search", 61.0, 400_000, 400_000), StageRow("Learning", 182.4)),
        settings=(("Samples", str(samples)),),
        versions=(("orbitwise", "0"),),
        seed=7,
        commit="abc1234",
        citations=(Citation("A paper.", "https://arxiv.org/abs/2502.09890"),),
    )


class Tags(html.parser.HTMLParser):
    """Every start tag with its attributes; text by the element it stands in."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self._open = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = tag == "script"
        if self._open:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._open = self._open and tag != "script"

    def handle_data(self, data):
        if self._open:
            self.scripts[-1] += data


@pytest.mark.parametrize("smiles, torsions", MOLECULES.items())
@pytest.mark.parametrize("reference", [True, False])
def test_page_is_self_contained_and_complete(smiles, torsions, reference, tmp_path):
    data = report(smiles, torsions, reference)
    path = write_report(tmp_path / "report.html", data)
    text = path.read_text(encoding="utf-8")
    page = Tags(text)
    # nothing is loaded: no src, no stylesheet, no link but citations, and a policy that forbids it
    assert not [a for t, a in page.tags if "src" in a or t in ("link", "iframe", "base", "object")]
    links = [a["href"] for t, a in page.tags if "href" in a and not a["href"].startswith("#")]
    assert links == [c.url for c in data.citations]
    policy = next(
        a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy and "http" not in policy
    assert sum("plotly.js v" in s for s in page.scripts) == 1
    # the figures that this molecule has
    names = {a["data-figure"] for t, a in page.tags if "data-figure" in a}
    expected = {f"fig-torsion-{k}" for k in range(len(torsions))} | {"fig-energies"}
    expected |= {"fig-map"} if len(torsions) > 1 else set()
    expected |= {"fig-populations"} if len(data.conformers) > 1 else set()
    assert names == expected
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids)) and names <= set(ids)
    assert ("Reference" in text.split("<main>")[1].split("</table>")[0]) == reference
    assert sum(t == "tr" and "data-structure" in a for t, a in page.tags) == len(data.conformers)
    assert "<svg" in text and "61 s" not in text and "1 min 01 s" in text and "400,000" in text


def test_viewer_data_is_the_molecule():
    data = report("CCCC", MOLECULES["CCCC"])
    view = viewer_data(data)
    page = Tags(render(data))
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


def test_user_text_cannot_become_markup():
    data = report("CCCC", MOLECULES["CCCC"])
    row = replace(data.conformers[0], name=EVIL)
    data = replace(
        data,
        title=EVIL,
        smiles=EVIL,
        subtitle=EVIL,
        summary=(EVIL,),
        warnings=(EVIL,),
        key_figures=(KeyFigure(EVIL, EVIL, EVIL),),
        torsions=(replace(data.torsions[0], label=EVIL),),
        conformers=(row, *data.conformers[1:]),
        checks=(CheckRow(EVIL, EVIL, EVIL, EVIL),),
        stages=(StageRow(EVIL, 1.0, note=EVIL),),
        settings=((EVIL, EVIL),),
        files=((EVIL, EVIL),),
        command=EVIL,
        citations=(Citation(EVIL, "https://doi.org/10.1000/1"),),
    )
    page = Tags(render(data))
    assert not [t for t, a in page.tags if t in ("img", "b") or "onerror" in a or "src" in a]
    assert not [s for s in page.scripts if s.strip() == "alert(1)"]
    clean = Tags(render(report("CCCC", MOLECULES["CCCC"])))
    assert len(page.scripts) == len(clean.scripts)


def test_a_bare_report_has_no_empty_sections():
    bare = ReportData(
        title="x",
        smiles="",
        temperature_kelvin=300.0,
        numbers=np.array([8, 1, 1]),
        bonds=((0, 1), (0, 2)),
    )
    text = render(bare)
    assert "<section" not in text and "plotly.js v" not in text and len(text) < 20_000
    odd = replace(report("CCCC", MOLECULES["CCCC"]), smiles="not a smiles")
    assert "<svg" not in render(odd).split("<main>")[0]


def test_conformer_only_in_the_reference_and_many_conformers():
    data = report("CCCC", MOLECULES["CCCC"])
    row = data.conformers[0]
    missing = replace(
        row,
        population=0.0,
        population_error=0.0,
        free_energy_kcal=math.inf,
        free_energy_error_kcal=math.inf,
    )
    many = replace(data, conformers=(row,) * 40 + (missing,))
    text = render(many)
    assert "and 11 more conformers with" in text
    assert len(re.findall(r"<button", text)) == 12
    assert "<td>–</td>" in render(replace(data, conformers=(row, missing)))


def test_numbers_are_written_as_people_write_them():
    assert with_error(0.41327, 0.0123, 100) == "41.3 ± 1.2"
    assert with_error(0.5, 0.13) == "0.50 ± 0.13"
    assert with_error(12.0, 25.0) == "12 ± 25"
    assert with_error(1.0, 0.0, 100) == "100"
    assert with_error(-0.0, 0.0) == "0" and with_error(-0.4, None) == "−0.40"
    assert with_error(math.inf, 1.0) == "–" and with_error(None, None) == "–"
    assert [duration(s) for s in (0.44, 12.3, 185, 7800)] == [
        "0.4 s",
        "12 s",
        "3 min 05 s",
        "2 h 10 min",
    ]


def test_free_energy_map_is_the_log_density():
    """Against the closed form of a wrapped Gaussian (its width broadened by the smoothing)."""
    rng = np.random.default_rng(2)
    a, b = (
        np.radians(170) + 0.5 * rng.normal(size=200_000),
        np.radians(-60) + 0.35 * rng.normal(size=200_000),
    )
    f = free_energy_map(a, b, kt=0.6)
    centres = np.radians(np.arange(72) * 5 - 177.5)
    wide = [math.hypot(s, math.radians(5)) for s in (0.5, 0.35)]

    def wrapped(x, mean, s):
        return sum(np.exp(-0.5 * ((x - mean + 2 * math.pi * k) / s) ** 2) for k in range(-2, 3))

    p = wrapped(centres, math.radians(-60), wide[1])[:, None] * wrapped(
        centres, math.radians(170), wide[0]
    )
    expected = -0.6 * np.log(p / p.max())
    inside = expected < 2.0
    assert np.abs(f - expected)[inside].max() < 0.1
    assert f.min() == 0 and np.isinf(f).any()


def test_energies_off_the_axis_are_said():
    good = np.linspace(1, 20, 500)
    wild = np.concatenate([good[:300], [1e6] * 100, [np.inf] * 60, [np.nan] * 40])
    assert energies_beyond(Ensembles(good)) == ""
    assert energies_beyond(Ensembles(good, wild)) == "Not on the axis: 40 % of before relaxation."


@pytest.mark.parametrize("smiles, torsions", MOLECULES.items())
def test_picture(smiles, torsions, tmp_path):
    path = main_picture(report(smiles, torsions), tmp_path / "picture.png")
    image = np.asarray(Image.open(path).convert("L"), dtype=float)
    assert image.shape[1] > 700 and 0.02 < (image < 200).mean() < 0.6


def test_without_a_reference_the_search_stands_beside():
    data = report("CC[C@@H](C)O", MOLECULES["CC[C@@H](C)O"], reference=False)
    panels = [
        replace(p, angles=replace(p.angles, searcher=p.angles.samples[::2])) for p in data.torsions
    ]
    rows = [
        replace(r, search_population=0.123, search_population_error=0.01) for r in data.conformers
    ]
    text = render(replace(data, torsions=tuple(panels), conformers=tuple(rows)))
    assert "<th>Search<br>" in text and "12.3 ± 1.0" in text and '"text":"Search"' in text
    with_both = render(
        replace(report("CC[C@@H](C)O", MOLECULES["CC[C@@H](C)O"]), torsions=tuple(panels))
    )
    assert "<th>Reference<br>" in with_both


def test_broken_samples_do_not_break_the_page():
    """Geometries that are not finite, as a bad sampler leaves them, are left out of the figures."""
    data = report("CC[C@@H](C)O", MOLECULES["CC[C@@H](C)O"])
    panels = tuple(
        replace(
            p,
            angles=replace(p.angles, before=np.where(np.arange(400) < 50, np.nan, p.angles.before)),
        )
        for p in data.torsions
    )
    energies = replace(data.energies_kcal, before=np.full(400, np.inf))
    text = render(replace(data, torsions=panels, energies_kcal=energies))
    assert "100 % of before relaxation" in text and "NaN" not in Tags(text).scripts[0]
    # samples far above the reference do not squeeze it into one bar
    far = Ensembles(np.linspace(100, 1e4, 300), reference=np.linspace(0, 20, 300))
    assert energies_beyond(far) == "Not on the axis: 100 % of samples."


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="cannot write the report"):
        write_report(tmp_path / "missing" / "report.html", report("O"))


@pytest.mark.skipif(
    shutil.which("chromium") is None, reason="no chromium here to open the page with"
)
def test_the_page_works_in_a_browser(tmp_path):
    """Opens offline without script errors, draws every figure, and a click changes the
    conformer."""
    data = report("CC[C@@H](C)O", MOLECULES["CC[C@@H](C)O"])
    text = render(data)
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
    assert "Conformer 3:" in found.split('id="structure-name"')[1][:80]
