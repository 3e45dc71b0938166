"""The report page of a sampler of an energy, and its figures as PNGs beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

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
from orbitwise.report import (
    Checks,
    Citation,
    Cost,
    Meanings,
    Method,
    Page,
    Provenance,
    StageRow,
    Text,
)
from orbitwise.report import write_report as write_page
from orbitwise.report.canvas import keep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    figure: Figure


def write_report(
    folder: str | Path,
    title: str,
    verdict: SamplerVerdict,
    drawn: DrawnPaths,
    reference: ReferenceSet | None,
    *,
    counts: Mapping[str, Calls],
    seconds: Mapping[str, float],
    settings: Mapping,
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
    pictures = {
        d.file: keep(d.figure, folder / d.file, d.title, d.caption)
        for d in _drawings(verdict, drawn, reference, unit)
    }
    page = Page(
        title=title,
        kind="Sampler of an energy",
        subtitle=subtitle or f"{verdict.samples:,} samples in {verdict.virial.exact} dimensions",
        key_figures=key_figures(verdict, counts),
        blocks=(
            Text(words(verdict, counts), warnings=warnings(verdict)),
            *pictures.values(),
            Checks(checks(verdict)),
            Cost(_stages(counts, seconds)),
            Meanings(MEANINGS),
            Method(citations=tuple(citations)),
            Provenance(
                files=(
                    *((file, p.title) for file, p in pictures.items()),
                    ("summary.json", "every number on this page"),
                ),
                settings=settings,
                versions={name: version(name) for name in ("orbitwise", "torch")},
                seed=seed,
                commit=commit,
                command=command,
            ),
        ),
    )
    return write_page(folder / "report.html", page)


def _drawings(
    verdict: SamplerVerdict, drawn: DrawnPaths, reference: ReferenceSet | None, unit: str
) -> list[_Drawing]:
    good = torch.isfinite(drawn.energy)
    x = drawn.x[good][:_SHOWN]
    known = None if reference is None else reference.x.to(x)[:_SHOWN]
    back = drawn.backward_log_weight
    return [
        *_modes(verdict, x),
        *_torsions(verdict, drawn.x[good], None if reference is None else reference.x),
        _energies(verdict, drawn, reference, x, known, unit),
        _Drawing(
            "weights.png",
            "Weights of the paths",
            ""
            if back is None
            else "For any sampler the two densities cross at log Z; a good sampler's lie on each"
            " other.",
            weights_figure(
                _array(drawn.log_weight), verdict.evidence, None if back is None else _array(back)
            ),
        ),
    ]


def _modes(verdict: SamplerVerdict, x: torch.Tensor) -> Iterator[_Drawing]:
    """Of a mixture in the plane, or of many double wells."""
    if isinstance(verdict.modes, ModeWeights) and verdict.target.event_shape == (2,):
        caption = (
            "Left: samples on contours of the density. Right: weight of each mode with its standard"
            " error; the band holds all weights of 19 of 20 sets of as many exact samples."
        )
        figure = mixture_figure(_array(x), _log_density(verdict.target), verdict.modes)
        yield _Drawing("modes.png", "Modes", caption, figure)
    elif isinstance(verdict.modes, WellCoverage) and len(verdict.modes.minor) > 1:
        caption = (
            "Above: two double wells against each other, samples as colours, the exact density as"
            " lines. Below: mass on the less probable side of every well, and how many wells of a"
            " sample are on it; independent wells make it binomial. Error bars are those of as many"
            " exact samples."
        )
        figure = wells_figure(_array(x), _log_density(verdict.target), verdict.modes)
        yield _Drawing("wells.png", "Wells", caption, figure)


def _torsions(
    verdict: SamplerVerdict, x: torch.Tensor, known: torch.Tensor | None
) -> Iterator[_Drawing]:
    """Maps of pairs of torsions, of the samples and of the reference."""
    caption = (
        "−ln p relative to the deepest point, in kT, smoothed over a few degrees; white: not seen,"
        " or above the scale."
    )
    for k, two in enumerate(verdict.torsions):
        angles = [None if v is None else _array(dihedral(v, list(two.atoms))) for v in (x, known)]
        figure = ramachandran_figure(*angles, two.kl, two.w2, two.names)
        file = f"torsions{k + 1 if k else ''}.png"
        yield _Drawing(file, " and ".join(two.names), caption, figure)


def _energies(
    verdict: SamplerVerdict,
    drawn: DrawnPaths,
    reference: ReferenceSet | None,
    x: torch.Tensor,
    known: torch.Tensor | None,
    unit: str,
) -> _Drawing:
    """Energies; of particles the distances of pairs too."""
    title, distances = "Energies", (None, None)
    if len(verdict.target.event_shape) == 2:
        title = "Energies and pair distances"
        distances = (None if v is None else _array(pair_distances(v[:5000])) for v in (x, known))
    energy = None if reference is None else _array(reference.energy)
    figure = ensemble_figure(_array(drawn.energy), energy, *distances, unit)
    return _Drawing("energies.png", title, "", figure)


def _log_density(energy: Energy) -> Callable[[np.ndarray], np.ndarray]:
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
