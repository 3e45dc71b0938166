"""Figures of the sampler documentation, docs/images/samplers/*.png, from finished runs of
benchmarks.quality.sgds and their rows.

    python -m benchmarks.tools.sampler_figures
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from benchmarks.tools.rows import RESULTS
from orbitwise.methods.samplers.gap_figure import GapCurve, PublishedGap, gap_figure
from orbitwise.report.canvas import save

RUNS = Path("runs/sgds")
IMAGES = Path("docs/images/samplers")
# run, picture of its report, name here
PICTURES = [
    ("forty_gaussians-sgds-0", "modes.png", "forty_gaussians.png"),
    ("many_well_128-sgds-0", "wells.png", "many_well_128.png"),
    ("lj13-sgds-0", "energies.png", "lj13.png"),
    ("alanine_dipeptide-sgds-0", "torsions.png", "alanine_dipeptide.png"),
]
METHODS = {
    "sgds": "SGDS",
    "mle": "search + likelihood",
    "adjoint": "adjoint matching",
    "pis": "PIS",
    "tb": "TB",
    "tb_lp": "TB + Langevin",
    "subtb": "SubTB",
    "gafn": "GAFN",
}
PUBLISHED = [  # SGDS 2505.19552, table 1, many-well 32, its own counting of calls
    PublishedGap("SGDS (paper)", 20e6, 3.85),
    PublishedGap("PIS (paper)", 100e6, 174.08),
    PublishedGap("TB + LP (paper)", 300e6, 34.37),
    PublishedGap("TB + LS (paper)", 290e6, 2.93),
]


def gaps() -> list[GapCurve]:
    """Gap against energy calls of every method measured on many-well-32."""
    rows = {row["what"]: row for row in json.loads((RESULTS / "samplers.json").read_text())}
    curves = []
    for method, name in METHODS.items():
        found = [
            row
            for what, row in rows.items()
            if what.startswith("sgds.many_well_32") and what.endswith(f".{method}.gap")
        ]
        if method == "sgds" and "sgds.many_well_32.gap" in rows:
            found.append(rows["sgds.many_well_32.gap"])
        found.sort(key=lambda row: row["energy_calls"])
        if found:
            calls, gap = (
                np.array([row[key] for row in found]) for key in ("energy_calls", "value")
            )
            curves.append(GapCurve(name, calls, gap))
    return curves


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    for run, picture, name in PICTURES:
        if (RUNS / run / picture).exists():
            shutil.copy(RUNS / run / picture, IMAGES / name)
            print(IMAGES / name)
    curves = gaps()
    if curves:
        print(
            save(
                gap_figure(curves, PUBLISHED, "many-well, 32 dimensions"),
                IMAGES / "gap_many_well_32.png",
            )
        )


if __name__ == "__main__":
    main()
