"""The report page of a sampler of an energy, and its figures as PNGs beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from orbitwise.data.folder import replacing
from orbitwise.energies import Energy
from orbitwise.methods.samplers.figures import (
    ensemble_figure,
    mixture_figure,
    ramachandran_figure,
    weights_figure,
    wells_figure,
)
from orbitwise.methods.samplers.judge import DrawnPaths, ReferenceSet, SamplerVerdict
from orbitwise.methods.samplers.words import (
    MEANINGS,
    Calls,
    calls_of,
    checks,
    key_figures,
    warnings,
    words,
)
from orbitwise.metrics.modes import ModeWeights, WellCoverage
from orbitwise.metrics.torus import dihedral
from orbitwise.metrics.transport import pair_distances
from orbitwise.report import Citation, Picture, ReportData, StageRow
from orbitwise.report import write_report as write_page
from orbitwise.report.canvas import save

CITATIONS = (
    Citation(
        "On scalable and efficient training of diffusion samplers (2025)",
        "https://arxiv.org/abs/2505.19552",
    ),
    Citation(
        "Blessing et al., Beyond ELBOs: evaluation of variational methods for sampling (2024)",
        "https://arxiv.org/abs/2406.07423",
    ),
)
_TRAINING = ("likelihood", "balance", "learn", "train", "training")
_SHOWN = 20_000  # samples in a figure


@dataclass(frozen=True)
class _Drawing:
    """A figure with the name of its file, its heading and caption."""

    file: str
    title: str
    caption: str
    figure: object


def write_report(
    folder: str | Path,
    title: str,
    verdict: SamplerVerdict,
    drawn: DrawnPaths,
    reference: ReferenceSet | None,
    counts: Mapping[str, Calls],
    seconds: Mapping[str, float],
    settings: Mapping,
    *,
    subtitle: str = "",
    command: str = "",
    commit: str = "",
    seed: int | None = None,
    unit: str = "",
    citations: Sequence[Citation] = CITATIONS,
) -> Path:
    """``folder/report.html`` and the figures as PNGs beside it; returns the path of the page.

    ``counts``: evaluations per stage, a ``Count`` or a pair (energies, gradients); ``seconds``: per
    stage, under the same names or finer ones (``search1``, ``balance2``; the steps of the learner
    belong to "training"); ``settings`` may be nested; ``unit`` of lengths. Drawing evaluates the
    energy on grids, which is not counted: no result depends on it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    drawings = _drawings(verdict, drawn, reference, unit)
    for one in drawings:
        with replacing(folder / one.file) as temporary:
            save(one.figure, temporary)
    data = ReportData(
        title=title,
        smiles="",
        temperature_kelvin=math.nan,
        numbers=np.zeros(0, dtype=int),
        bonds=(),
        kicker="Sampler of an energy",
        subtitle=subtitle or f"{verdict.samples:,} samples in {verdict.virial.exact} dimensions",
        key_figures=key_figures(verdict, counts),
        summary=words(verdict, counts),
        warnings=warnings(verdict),
        checks=checks(verdict),
        stages=_stages(counts, seconds),
        pictures=tuple(
            Picture((folder / d.file).read_bytes(), d.title, d.caption) for d in drawings
        ),
        meanings=MEANINGS,
        files=(
            *((d.file, d.title) for d in drawings),
            ("summary.json", "every number on this page"),
        ),
        settings=tuple(_flat(settings)),
        versions=tuple((name, version(name)) for name in ("orbitwise", "torch")),
        seed=seed,
        command=command,
        commit=commit,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        citations=tuple(citations),
    )
    return write_page(folder / "report.html", data)


def _drawings(
    verdict: SamplerVerdict, drawn: DrawnPaths, reference: ReferenceSet | None, unit: str
) -> list[_Drawing]:
    good = torch.isfinite(drawn.energy)
    x = drawn.x[good][:_SHOWN]
    known = None if reference is None else reference.x.to(x)[:_SHOWN]
    out = []
    if isinstance(verdict.modes, ModeWeights) and verdict.target.event_shape == (2,):
        figure = mixture_figure(_array(x), _log_density(verdict.target), verdict.modes)
        caption = (
            "Left: samples on contours of the density. Right: weight of each mode with its standard"
            " error; the band holds all weights of 19 of 20 sets of as many exact samples."
        )
        out.append(_Drawing("modes.png", "Modes", caption, figure))
    elif isinstance(verdict.modes, WellCoverage) and len(verdict.modes.minor) > 1:
        figure = wells_figure(_array(x), _log_density(verdict.target), verdict.modes)
        caption = (
            "Above: two double wells against each other, samples as colours, the exact density as"
            " lines. Below: mass on the less probable side of every well, and how many wells of a"
            " sample are on it; independent wells make it binomial. Error bars are those of as many"
            " exact samples."
        )
        out.append(_Drawing("wells.png", "Wells", caption, figure))
    for k, two in enumerate(verdict.torsions):
        angles = [
            None if v is None else _array(dihedral(v, list(two.atoms)))
            for v in (drawn.x[good], reference and reference.x)
        ]
        figure = ramachandran_figure(*angles, two.kl, two.w2, two.names)
        caption = (
            "−ln p relative to the deepest point, in kT, smoothed over a few degrees; white: not"
            " seen, or above the scale."
        )
        out.append(
            _Drawing(f"torsions{k + 1 if k else ''}.png", " and ".join(two.names), caption, figure)
        )
    distances = [None, None]
    if len(verdict.target.event_shape) == 2:
        distances = [None if v is None else _array(pair_distances(v[:5000])) for v in (x, known)]
    figure = ensemble_figure(
        _array(drawn.energy),
        None if reference is None else _array(reference.energy),
        *distances,
        unit,
    )
    title = "Energies" if distances[0] is None else "Energies and pair distances"
    out.append(_Drawing("energies.png", title, "", figure))
    back = drawn.backward_log_weight
    figure = weights_figure(
        _array(drawn.log_weight), verdict.evidence, None if back is None else _array(back)
    )
    caption = (
        "For any sampler the two densities cross at log Z; a good sampler's lie on each other."
        if back is not None
        else ""
    )
    out.append(_Drawing("weights.png", "Weights of the paths", caption, figure))
    return out


def _log_density(energy: Energy):
    """``-U`` on grids, in the dtype and on the device of the target's own numbers."""
    like = next(iter(energy.buffers()))

    def evaluate(points: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return _array(-energy(torch.from_numpy(points).to(like)))

    return evaluate


def _array(v: torch.Tensor) -> np.ndarray:
    return v.detach().double().cpu().numpy()


def _stages(counts: Mapping[str, Calls], seconds: Mapping[str, float]) -> tuple[StageRow, ...]:
    """One row per counted stage, the time of its parts added up; then what took time but no
    evaluations."""
    time = dict.fromkeys(counts, 0.0)
    for name, value in seconds.items():
        bare = name.rstrip("0123456789 _")
        heading = name if name in time else "training" if bare in _TRAINING else bare
        time[heading] = time.get(heading, 0.0) + value
    return tuple(
        StageRow(name, value, *calls_of(counts.get(name, (0, 0)))) for name, value in time.items()
    )


def _flat(settings: Mapping, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as ``a.b`` and text."""
    out: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{prefix}{key}"
        out += _flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, str(value))]
    return out
