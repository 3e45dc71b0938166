"""The report page: one HTML file that holds everything it shows and opens offline."""

from __future__ import annotations

import base64
import json
import math
import os
from functools import cache
from pathlib import Path

from orbitwise.errors import InputError
from orbitwise.report.data import (
    ConformerRow,
    FreeEnergy,
    ReportData,
    StageRow,
    TorsionPanel,
    beside,
)

_HERE = Path(__file__).parent
_ROWS, _STRUCTURES, _TORSIONS = 30, 12, 12


def write_report(path: str | Path, data: ReportData) -> Path:
    """Write ``data`` as a self-contained page to ``path`` (atomically) and return the path.

    plotly.js is embedded once; the page carries a content policy that forbids loading anything. All
    text of ``data`` is escaped. Raises ``InputError`` where the file cannot be written.
    """
    path = Path(path)
    text = render(data)
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write the report {path}: {error.strerror}") from error
    return path


def render(data: ReportData) -> str:
    """The page as text."""
    from jinja2 import Environment
    from markupsafe import Markup

    from orbitwise.report.cells import cells_data
    from orbitwise.report.viewer import viewer_data

    figures = {
        name: Markup(_inside_script(figure.to_json())) for name, figure in _figures(data).items()
    }
    viewer = cells_data(data.cells, _STRUCTURES) or viewer_data(data, _STRUCTURES)
    rows = data.conformers[:_ROWS]
    shown = _table_torsions(data)
    left_out = len(data.torsions) - _TORSIONS
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    formula, drawing = _drawing(data)
    return environment.from_string((_HERE / "template.html").read_text(encoding="utf-8")).render(
        data=data,
        style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        script=Markup((_HERE / "viewer.js").read_text(encoding="utf-8")),
        plotly=Markup(_plotly()) if figures or viewer else "",
        formula=Markup(formula),
        drawing=Markup(drawing),
        figures=figures,
        viewer=Markup(_inside_script(json.dumps(viewer))) if viewer else None,
        structures=min(len(data.conformers or data.cells), _STRUCTURES),
        cells=data.cells[:_ROWS],
        cells_left_out=max(0, len(data.cells) - _ROWS),
        rows=[_row(k, row, data, shown, beside(rows)) for k, row in enumerate(rows, 1)],
        rest=_rest(data.conformers[_ROWS:]),
        named=any(r.name for r in rows),
        compared=(beside(rows) or "").capitalize(),
        compared_energies=bool(beside(rows)) and any(r.free_energy_in(beside(rows)) for r in rows),
        torsion_labels=[
            (data.torsions[k].label.split("–"), _path(data, data.torsions[k])) for k in shown
        ],
        legend=_legend(data),
        energies_beyond=_energies_beyond(data),
        torsion_figures=[name for name in figures if name.startswith("torsion-")],
        torsions_left_out=f"{left_out} more torsions are not drawn." if left_out > 0 else "",
        map_caption=_map_caption(data),
        checks_before=any(c.before for c in data.checks),
        pictures=[
            (p, base64.b64encode(p.png).decode("ascii"), _screen_width(p.png))
            for p in data.pictures
        ],
        stages=_stages(data.stages),
        stage_notes=any(s.note for s in data.stages),
        total=_stage(
            StageRow(
                "Total",
                sum(s.seconds for s in data.stages),
                sum(s.energy_calls for s in data.stages),
                sum(s.gradient_calls for s in data.stages),
            ),
            1.0,
        ),
        provenance=_provenance(data),
    )


def with_error(value: float, error: float | None, scale: float = 1.0) -> str:
    """``value ± error`` with two digits of the error, at most two decimals: ``41.3 ± 1.2``. Not
    finite: a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    value = value * scale + 0.0  # no "-0.00"
    if not error or not math.isfinite(error):
        text = f"{value:.2f}" if error is None else f"{value:.2f}".rstrip("0").rstrip(".")
    else:
        error *= scale
        digits = min(2, max(0, 1 - math.floor(math.log10(error))))
        text = f"{value:.{digits}f} ± {error:.{digits}f}"
    return text.replace("-", "−")


def difference(found: FreeEnergy | None) -> str:
    """``0.71 ± 0.05``; with too few samples for an error ``1.9 to 3.0``, ``> 2.1``, ``< −1.2``; a
    dash for nothing."""
    if found is None:
        return "–"
    low, high = found.interval
    if found.error is not None or not (math.isfinite(low) or math.isfinite(high)):
        return with_error(found.kcal, found.error)
    if math.isfinite(low) and math.isfinite(high):
        text = f"{low:.1f} to {high:.1f}"
    else:
        text = f"> {low:.1f}" if math.isfinite(low) else f"< {high:.1f}"
    return text.replace("-", "−")


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs().replace("</script", "<\\/script")


def _inside_script(text: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _figures(data: ReportData) -> dict:
    from orbitwise.report import figures

    out = {}
    pair = figures.torsion_pair(data)
    if pair:
        out["map"] = figures.map_figure(data, *pair)
    for k, panel in enumerate(data.torsions[:_TORSIONS]):
        out[f"torsion-{k}"] = figures.torsion_figure(panel, _path(data, panel))
    if data.energies_kcal is not None:
        out["energies"] = figures.energy_figure(data.energies_kcal)
    if len(data.conformers) > 1:
        out["populations"] = figures.population_figure(data.conformers[:_STRUCTURES])
    return out


def _path(data: ReportData, panel: TorsionPanel) -> str:
    """The atoms of a torsion, ``C1–C2–C3–C4``, counted from 1."""
    from ase.data import chemical_symbols

    return "–".join(f"{chemical_symbols[int(data.numbers[i])]}{i + 1}" for i in panel.atoms or ())


def _legend(data: ReportData) -> list[tuple[str, str]]:
    """CSS class and words of the ensembles that the torsion figures show."""
    from orbitwise.report.figures import NAMES

    return [
        (key, word)
        for key, word in NAMES.items()
        if any(getattr(panel.angles, key) is not None for panel in data.torsions)
    ]


def _table_torsions(data: ReportData) -> list[int]:
    """Torsions with a column in the table, at most four: those of the map, then those that differ
    most between conformers; one that stays within 30° everywhere is left out."""
    rows = [r.torsions for r in data.conformers if len(r.torsions) == len(data.torsions)]
    first = list(data.map_pair or ()) if rows else []

    def spread(k: int) -> float:
        turns = [complex(math.cos(r[k]), math.sin(r[k])) for r in rows if r[k] is not None]
        return max((abs(a - turns[0]) for a in turns), default=0.0)

    rest = [
        k
        for k in range(len(data.torsions))
        if k not in first and spread(k) > 2 * math.sin(math.pi / 12)
    ]
    return sorted((first + sorted(rest, key=spread, reverse=True))[:4])


def _row(
    number: int, row: ConformerRow, data: ReportData, shown: list[int], other: str | None
) -> dict:
    angles = [row.torsions[k] if k < len(row.torsions) else None for k in shown]
    population = with_error(row.population, row.population_error, 100)
    name = f"{row.name}, " if row.name else ""
    return {
        "name": row.name,
        "torsions": [
            "–" if a is None else f"{round(math.degrees(a)):d}°".replace("-", "−") for a in angles
        ],
        "population": population,
        "other": with_error(*row.population_in(other), 100) if other else "",
        "free_energy": difference(row.free_energy),
        "other_free_energy": difference(row.free_energy_in(other)) if other else "",
        "energy": with_error(row.energy_kcal, None),
        "caption": f"Conformer {number}: {name}{population} %",
    }


def _rest(rows: tuple[ConformerRow, ...]) -> str:
    if not rows:
        return ""
    share = 100 * sum(r.population for r in rows)
    return f"and {len(rows)} more conformers with {share:.1f} % of the population together"


def _energies_beyond(data: ReportData) -> str:
    from orbitwise.report.figures import energies_beyond

    return "" if data.energies_kcal is None else energies_beyond(data.energies_kcal)


def _map_caption(data: ReportData) -> str:
    if data.map_pair is None:
        return ""
    first, second = (data.torsions[k].label for k in data.map_pair)
    return (
        f"Free energy along {first} and {second}, −kT ln p relative to the deepest point, the same"
        " colours in every panel; white: not seen, or above the scale. Histograms smoothed over a"
        " few degrees. Numbers: the minima of the conformers in the table."
    )


def _screen_width(png: bytes) -> int:
    """Width on the page in CSS pixels, from the header of the PNG: type of one size in all
    pictures."""
    return round(int.from_bytes(png[16:20], "big") / 1.45)


def _stages(stages: tuple[StageRow, ...]) -> list[dict]:
    longest = max((s.seconds for s in stages), default=0.0) or 1.0
    return [_stage(s, s.seconds / longest) for s in stages]


def _stage(row: StageRow, share: float) -> dict:
    return {
        "name": row.name,
        "time": duration(row.seconds),
        "share": f"{100 * share:.1f}",
        "energy_calls": f"{row.energy_calls:,}" if row.energy_calls else "–",
        "gradient_calls": f"{row.gradient_calls:,}" if row.gradient_calls else "–",
        "note": row.note,
    }


def _provenance(data: ReportData) -> tuple[tuple[str, str], ...]:
    seed = "" if data.seed is None else str(data.seed)
    pairs = (("Command", data.command), ("Seed", seed), ("Commit", data.commit))
    return tuple(p for p in pairs if p[1])


def _drawing(data: ReportData) -> tuple[str, str]:
    """Formula (HTML) and 2-D drawing (SVG); both empty where there is no SMILES that RDKit
    reads."""
    from rdkit import Chem, RDLogger
    from rdkit.Chem import rdMolDescriptors
    from rdkit.Chem.Draw import rdMolDraw2D

    if not data.smiles:
        return "", ""
    RDLogger.DisableLog("rdApp.*")
    try:
        mol = Chem.MolFromSmiles(data.smiles)
    finally:
        RDLogger.EnableLog("rdApp.*")
    if mol is None:
        return "", ""
    formula = rdMolDescriptors.CalcMolFormula(mol, True, False)
    named = {
        atom
        for panel in data.torsions
        if any(c.isdigit() for c in panel.label)
        for atom in panel.atoms or ()
    }
    for atom in mol.GetAtoms():
        if atom.GetIdx() in named:
            atom.SetProp("atomNote", str(atom.GetIdx() + 1))
    pen = rdMolDraw2D.MolDraw2DSVG(320, 240)
    options = pen.drawOptions()
    options.clearBackground = False
    options.bondLineWidth = 1.6
    options.annotationFontScale = 0.6
    options.padding = 0.06
    options.setAnnotationColour((0.45, 0.5, 0.57))
    rdMolDraw2D.PrepareAndDrawMolecule(pen, mol)
    pen.FinishDrawing()
    svg = pen.GetDrawingText()
    return _subscripts(formula), svg[svg.index("<svg") :]


def _subscripts(formula: str) -> str:
    from markupsafe import escape

    out, charge = [], False
    for c in str(escape(formula)):
        charge = charge or c in "+-"
        tag = "sup" if charge else "sub" if c.isdigit() else ""
        out.append(f"<{tag}>{c}</{tag}>" if tag else c)
    return "".join(out)
