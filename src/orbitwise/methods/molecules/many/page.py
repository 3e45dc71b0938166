"""What the evaluation of a model of many molecules leaves: ``summary.json``, two pictures and
``report.html``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from orbitwise.data.folder import replacing
from orbitwise.methods.molecules.many.evaluation import Comparison, Scores
from orbitwise.methods.molecules.many.parts import MoleculeConformersConfig
from orbitwise.molecules.figures import Overlay, overlay_figure, scatter_figure
from orbitwise.molecules.files.sets import Conformers
from orbitwise.molecules.metrics.conformers import Matching, symmetric_rmsd
from orbitwise.molecules.metrics.coverage import Average, heavy_matching
from orbitwise.report import (
    Citation,
    KeyFigure,
    Method,
    Page,
    Picture,
    Provenance,
    Table,
    Text,
    write_report,
)
from orbitwise.report.canvas import keep
from orbitwise.runs import provenance
from orbitwise.runs.registry import card

FILES = (
    ("samples.npz", "samples of the model"),
    ("samples.sdf", "the same for other programs"),
    ("summary.json", "every figure, molecule by molecule"),
)
_SHOWN = 8


def write(
    folder: Path, config: MoleculeConformersConfig, comparison: Comparison, seed: int
) -> Path:
    """Write all; returns the page."""
    origin = {
        "config": config.resolved(),
        "seed": seed,
        "evaluations_per_sample": comparison.evaluations,
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "device": provenance.device(torch.device("cpu")),
    }
    with replacing(folder / "summary.json") as temporary:
        text = json.dumps(origin | _summary(comparison), indent=1)
        temporary.write_text(text, encoding="utf-8")
    return write_report(folder / "report.html", _page(folder, config, comparison, origin))


def _summary(comparison: Comparison) -> dict:
    """Every figure: means over molecules, and molecule by molecule."""
    both = (comparison.model, comparison.etkdg)
    return {
        "left_out": comparison.left_out,
        "means": {s.name: {k: asdict(v) for k, v in s.figures().items()} for s in both},
        "molecules": [
            {
                "smiles": m.smiles,
                "atoms": m.atoms,
                "where": m.where,
                **{s.name: asdict(s.coverage[k]) | asdict(s.handedness[k]) for s in both},
            }
            for k, m in enumerate(comparison.molecules)
        ],
    }


def _pictures(folder: Path, comparison: Comparison) -> tuple[Picture, Picture]:
    """Written beside the page."""
    model, baseline = comparison.model, comparison.etkdg
    recall = scatter_figure(
        [c.recall_amr for c in model.coverage],
        [c.recall_amr for c in baseline.coverage],
        baseline.name,
        [m.atoms for m in comparison.molecules],
    )
    overlays = overlay_figure(_overlays(comparison), baseline.name)
    return (
        keep(
            recall,
            folder / "recall.png",
            title="Molecule by molecule",
            caption="Below: the model is nearer.",
        ),
        keep(
            overlays,
            folder / "overlays.png",
            title="Structures",
            caption="Dark: a reference conformer. Blue and orange: the nearest sample of the model"
            " and of ETKDGv3.",
        ),
    )


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
    """Bonds and positions of the heavy atoms."""
    match = heavy_matching(molecule.mol)
    x = torch.from_numpy(molecule.positions_angstrom).double()
    apart = symmetric_rmsd(x, torch.from_numpy(model), match).min(1).values
    middle = int(apart.argsort()[len(apart) // 2])
    one, atoms = x[middle : middle + 1], match.atoms
    ours, theirs = (_nearest(one, torch.from_numpy(y), match) for y in (model, baseline))

    place = {int(a): k for k, a in enumerate(atoms)}
    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in molecule.mol.GetBonds()]
    return Overlay(
        title=molecule.smiles,
        reference=(one[0, atoms] - one[0, atoms].mean(0)).numpy(),
        model=ours[0],
        baseline=theirs[0],
        bonds=tuple((place[i], place[j]) for i, j in bonds if i in place and j in place),
        model_rmsd=ours[1],
        baseline_rmsd=theirs[1],
    )


def _nearest(one: torch.Tensor, samples: torch.Tensor, match: Matching) -> tuple[np.ndarray, float]:
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


def _table(scores: Sequence[Scores]) -> Table:
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
    return Table(
        "Coverage and matching",
        head=("", "AMR (Å)", "median", "COV at 0.5 Å (%)", "0.75 Å", "1.25 Å"),
        rows=tuple(rows),
        note="Heavy-atom RMSD, minimal over rotations and exchanges of equivalent atoms; ± one"
        " standard error over molecules (bootstrap). The same number of samples for both.",
    )


def _key_figures(comparison: Comparison) -> tuple[KeyFigure, ...]:
    ours, theirs = comparison.model.figures(), comparison.etkdg.figures()
    return (
        KeyFigure(
            "recall AMR",
            f"{ours['recall_amr'].mean:.3f} Å",
            f"{comparison.etkdg.name}: {theirs['recall_amr'].mean:.3f} Å",
        ),
        KeyFigure("molecules", f"{len(comparison.molecules)}", "held out"),
        KeyFigure("network calls", f"{comparison.evaluations}", "for each sample"),
        KeyFigure("right stereoisomer", f"{100 * ours['isomer'].mean:.1f} %", "before any repair"),
    )


def _warnings(model: Scores) -> tuple[str, ...]:
    isomer = model.figures()["isomer"].mean
    if isomer >= 0.98:
        return ()
    return (f"{100 * (1 - isomer):.1f} % of the samples are another stereoisomer.",)


def _page(
    folder: Path, config: MoleculeConformersConfig, comparison: Comparison, origin: dict
) -> Page:
    own, model = card("molecule_conformers"), comparison.model
    return Page(
        title="Conformers of molecules that were held out",
        kind="One model, many molecules",
        subtitle=(
            f"trained on {', '.join(p.name for p in config.data)}, {config.prior} prior,"
            f" {config.target} target"
        ),
        key_figures=_key_figures(comparison),
        blocks=(
            Text(tuple(comparison.lines()), warnings=_warnings(model)),
            _table((model, comparison.etkdg)),
            *_pictures(folder, comparison),
            Method((own.summary.strip(),), citations=(Citation.arxiv(own.paper, own.arxiv),)),
            Provenance(
                files=FILES,
                settings=config.resolved(),
                versions=origin["versions"],
                seed=origin["seed"],
                commit=origin["commit"] or "",
            ),
        ),
    )
