"""What the evaluation of a model of many molecules leaves: ``summary.json``, two pictures and
``report.html``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from orbitwise.data.folder import replacing
from orbitwise.methods.molecules.many.evaluation import Comparison, Scores
from orbitwise.molecules.figures import Overlay, overlay_figure, scatter_figure
from orbitwise.molecules.files.sets import Conformers
from orbitwise.molecules.metrics.conformers import symmetric_rmsd
from orbitwise.molecules.metrics.coverage import Average, heavy_matching
from orbitwise.report import Citation, KeyFigure, Picture, ReportData, Table, write_report
from orbitwise.report.canvas import save
from orbitwise.runs import provenance
from orbitwise.runs.registry import card

_SHOWN = 8


def write(folder: Path, config, comparison: Comparison, seed: int) -> Path:
    """Write all; returns the page."""
    origin = {
        "config": config.resolved(),
        "seed": seed,
        "evaluations_per_sample": comparison.evaluations,
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "device": provenance.device(torch.device("cpu")),
    }
    rows = [
        {
            "smiles": m.smiles,
            "atoms": m.atoms,
            "where": m.where,
            **{
                s.name: asdict(s.coverage[k]) | asdict(s.handedness[k])
                for s in (comparison.model, comparison.etkdg)
            },
        }
        for k, m in enumerate(comparison.molecules)
    ]
    means = {
        s.name: {key: asdict(value) for key, value in s.figures().items()}
        for s in (comparison.model, comparison.etkdg)
    }
    with replacing(folder / "summary.json") as temporary:
        text = {**origin, "left_out": comparison.left_out, "means": means, "molecules": rows}
        temporary.write_text(json.dumps(text, indent=1), encoding="utf-8")
    model, baseline = comparison.model, comparison.etkdg
    with replacing(folder / "recall.png") as temporary:
        save(
            scatter_figure(
                [c.recall_amr for c in model.coverage],
                [c.recall_amr for c in baseline.coverage],
                baseline.name,
                [m.atoms for m in comparison.molecules],
            ),
            temporary,
        )
    with replacing(folder / "overlays.png") as temporary:
        save(overlay_figure(_overlays(comparison), baseline.name), temporary)
    return write_report(folder / "report.html", _page(folder, config, comparison, origin))


def _overlays(comparison: Comparison) -> list[Overlay]:
    """Molecules spread over the sizes, each with a reference conformer near the median of its
    distances."""
    order = np.argsort([m.atoms for m in comparison.molecules], kind="stable")
    picked = order[
        np.unique(np.linspace(0, len(order) - 1, min(_SHOWN, len(order))).round().astype(int))
    ]
    return [
        _overlay(comparison.molecules[k], comparison.model_samples[k], comparison.etkdg_samples[k])
        for k in picked
    ]


def _overlay(molecule: Conformers, model: np.ndarray, baseline: np.ndarray) -> Overlay:
    match = heavy_matching(molecule.mol)
    x = torch.from_numpy(molecule.positions_angstrom).double()
    apart = symmetric_rmsd(x, torch.from_numpy(model), match).min(1).values
    middle = int(apart.argsort()[len(apart) // 2])
    one, atoms = x[middle : middle + 1], match.atoms
    laid = [_nearest(one, torch.from_numpy(y), match) for y in (model, baseline)]
    place = {int(a): k for k, a in enumerate(atoms)}
    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in molecule.mol.GetBonds()]
    return Overlay(
        molecule.smiles,
        (one[0, atoms] - one[0, atoms].mean(0)).numpy(),
        laid[0][0],
        laid[1][0],
        tuple((place[i], place[j]) for i, j in bonds if i in place and j in place),
        laid[0][1],
        laid[1][1],
    )


def _nearest(one: torch.Tensor, samples: torch.Tensor, match) -> tuple[np.ndarray, float]:
    """The heavy atoms of the sample nearest to ``one: (1, N, 3)``, laid over it, and their RMSD."""
    import roma

    distance = symmetric_rmsd(one, samples, match)[0]
    y = samples[distance.argmin(), match.atoms]
    x = one[0, match.atoms] - one[0, match.atoms].mean(0)
    images = (y - y.mean(0))[match.permutations]
    turn = roma.special_procrustes((x.T @ images).mT)  # of each renaming
    turned = images @ turn
    best = (turned - x).square().sum((-2, -1)).argmin()
    return turned[best].numpy(), float(distance.min())


def _text(value: Average, scale: float = 1.0, digits: int = 3) -> str:
    return f"{scale * value.mean:.{digits}f} ± {scale * value.error:.{digits}f}"


def _rows(scores: Sequence[Scores]) -> tuple[tuple[str, ...], ...]:
    rows = []
    for s in scores:
        f = s.figures()
        for side in ("recall", "precision"):
            rows.append(
                (
                    f"{s.name}, {side}",
                    _text(f[f"{side}_amr"]),
                    f"{f[f'{side}_amr'].median:.3f}",
                    *(_text(f[f"{side}_cov_{d}"], 100, 1) for d in (0.5, 0.75, 1.25)),
                )
            )
    return tuple(rows)


def _page(folder: Path, config, comparison: Comparison, origin: dict) -> ReportData:
    own, model, baseline = card("molecule_conformers"), comparison.model, comparison.etkdg
    ours, theirs = model.figures(), baseline.figures()
    isomer = ours["isomer"].mean
    head = ("", "AMR (Å)", "median", "COV at 0.5 Å (%)", "0.75 Å", "1.25 Å")
    return ReportData(
        title="Conformers of molecules that were held out",
        smiles="",
        temperature_kelvin=math.nan,
        numbers=np.zeros(0, dtype=int),
        bonds=(),
        kicker="One model, many molecules",
        subtitle=(
            f"trained on {', '.join(p.name for p in config.data)}, {config.prior} prior,"
            f" {config.target} target"
        ),
        key_figures=(
            KeyFigure(
                "recall AMR",
                f"{ours['recall_amr'].mean:.3f} Å",
                f"{baseline.name}: {theirs['recall_amr'].mean:.3f} Å",
            ),
            KeyFigure("molecules", f"{len(comparison.molecules)}", "held out"),
            KeyFigure("network calls", f"{comparison.evaluations}", "for each sample"),
            KeyFigure("right stereoisomer", f"{100 * isomer:.1f} %", "before any repair"),
        ),
        summary=tuple(comparison.lines()),
        warnings=(
            (f"{100 * (1 - isomer):.1f} % of the samples are another stereoisomer.",)
            if isomer < 0.98
            else ()
        ),
        tables=(
            Table(
                "Coverage and matching",
                head,
                _rows((model, baseline)),
                "Heavy-atom RMSD, minimal over rotations and exchanges of equivalent atoms; ± one"
                " standard error over molecules (bootstrap). The same number of samples for both.",
            ),
        ),
        pictures=(
            Picture(
                (folder / "recall.png").read_bytes(),
                "Molecule by molecule",
                "Below: the model is nearer.",
            ),
            Picture(
                (folder / "overlays.png").read_bytes(),
                "Structures",
                "Dark: a reference conformer. Blue and orange: the nearest sample of the model and"
                " of ETKDGv3.",
            ),
        ),
        method=(own.summary.strip(),),
        files=(
            ("samples.npz", "samples of the model"),
            ("samples.sdf", "the same for other programs"),
            ("summary.json", "every figure, molecule by molecule"),
        ),
        settings=tuple((k, str(v)) for k, v in config.resolved().items()),
        versions=tuple(origin["versions"].items()),
        seed=origin["seed"],
        commit=origin["commit"] or "",
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        citations=(Citation(own.paper.strip(), f"https://arxiv.org/abs/{own.arxiv}"),),
    )
