"""The report page of a model of protein backbones: samples beside the chains that were held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orbitwise.proteins.chain import Chain, ChainBatch, chain_batch
from orbitwise.proteins.designability import DESIGNABLE, Designability
from orbitwise.proteins.figures import (
    Compared,
    Trace,
    angle_maps,
    histograms_figure,
    size_figure,
    traces_figure,
)
from orbitwise.proteins.geometry import (
    BACKBONE,
    TRACE,
    Quantity,
    measure,
    quantities,
    radius_of_gyration,
)
from orbitwise.proteins.judge import GeometryRow, Mean, ProteinVerdict
from orbitwise.proteins.secondary_structure import secondary_structure
from orbitwise.report import (
    CheckRow,
    Checks,
    Citation,
    KeyFigure,
    Meanings,
    Method,
    Page,
    Provenance,
    Table,
    Text,
    write_report,
)
from orbitwise.report.canvas import keep
from orbitwise.report.numbers import with_error
from orbitwise.runs.config import Config
from orbitwise.runs.provenance import commit, versions
from orbitwise.runs.registry import card

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROTEINA = Citation(
    "Geffner et al., Proteina: scaling flow-based protein structure generative models (2025)",
    "https://arxiv.org/abs/2503.00710",
)
FILES = (
    ("samples/", "one PDB file per sample"),
    ("samples.npz", "the same as arrays"),
    ("summary.json", "every number on this page"),
)
_SHOWN = 8  # traces
_CIRCULAR = {q.label for q in BACKBONE if q.circular}  # TRACE is part of it
MEANINGS = (
    (
        "W1",
        (
            "Wasserstein distance: how far values must be moved on average to turn one distribution"
            " into the other"
        ),
    ),
    (
        "held-out halves",
        "W1 between random halves of the held-out chains: what their number alone explains",
    ),
    ("P-SEA", "helix and strand from Cα distances and angles alone"),
    (
        "TM-score",
        (
            "likeness of two chains after superposition, 1 = equal; unrelated chains of this size"
            " have 0.1 to 0.3"
        ),
    ),
)


def write(
    folder: Path,
    config: Config,
    samples: Sequence[Chain],
    held_out: Sequence[Chain],
    verdict: ProteinVerdict,
    design: Designability | None,
    notes: Sequence[str],
) -> Path:
    """``report.html`` and its figures as PNGs beside it; ``notes`` say how the data were made."""
    own = card("protein_backbones")
    pictures = {
        file: keep(figure, folder / file, title, caption)
        for file, title, caption, figure in _drawings(samples, held_out, verdict)
    }
    page = Page(
        title="Protein backbones: " + ("Cα traces" if config.mode == "ca" else "N, Cα and C"),
        kind="Generative model of proteins",
        subtitle=(
            f"samples of {config.shortest} to {config.longest} residues beside chains that were"
            " held out"
        ),
        key_figures=_key_figures(verdict, design),
        blocks=(
            Text(tuple(verdict.lines()), warnings=_warnings(verdict)),
            _geometry(verdict),
            *pictures.values(),
            Checks(_checks(verdict)),
            Meanings(MEANINGS),
            Method(
                (own.summary.strip(), *notes),
                citations=(Citation.arxiv(own.paper, own.arxiv), PROTEINA),
            ),
            Provenance(
                files=(*FILES, *((file, p.title) for file, p in pictures.items())),
                settings=config.resolved(),
                versions=versions(),
                seed=config.train.seed,
                commit=commit() or "",
            ),
        ),
    )
    return write_report(folder / "report.html", page)


def _drawings(
    samples: Sequence[Chain], held_out: Sequence[Chain], verdict: ProteinVerdict
) -> Iterator[tuple[str, str, str, Figure]]:
    """File, heading, caption and figure, one after the other."""
    drawn, judged = chain_batch(samples), chain_batch(held_out)
    middle = min(1, drawn.atoms - 1)

    traces = [
        Trace(
            c.xyz[:, middle], secondary_structure(c.xyz[:, middle]), f"{c.name}, {len(c)} residues"
        )
        for c in sorted(samples[:_SHOWN], key=len)
    ]
    caption = "Smoothed Cα traces of the first samples, not chosen; helices and strands by P-SEA."
    yield "traces.png", "Samples", caption, traces_figure(traces)

    whole = drawn.atoms == 3
    pair = (BACKBONE[9], BACKBONE[10]) if whole else (TRACE[2], TRACE[1])
    first, second, limits = _pair(pair, drawn, judged)
    caption = (
        "φ and ψ of every residue that has both."
        if whole
        else (
            "Cα torsion and the angle at its second atom: helices near +50° and 91°, strands near"
            " −170° and 120°. A mirrored model would have its helices near −50°."
        )
    )
    yield "angles.png", "Angles of the backbone", caption, angle_maps(first, second, limits)

    compared = [_compared(q, drawn, judged) for q in quantities(drawn.atoms) if not q.circular]
    yield "lengths.png", "Bond lengths and angles", "", histograms_figure(compared)

    sizes = [
        v.cpu().numpy()
        for b in (drawn, judged)
        for v in (b.lengths, radius_of_gyration(b.by_residue[:, :, middle], b.residues))
    ]
    figure = size_figure(*sizes, verdict.size_law.scale, verdict.size_law.power)
    yield "size.png", "Size against length", "Each point is a chain.", figure


def _compared(quantity: Quantity, drawn: ChainBatch, judged: ChainBatch) -> Compared:
    values = [
        v[real].cpu().numpy()
        for v, real in (measure(b.by_residue, b.residues, quantity) for b in (drawn, judged))
    ]
    return Compared(quantity.label, quantity.unit, *values)


def _pair(
    pair: tuple[Quantity, Quantity], drawn: ChainBatch, judged: ChainBatch
) -> tuple[Compared, Compared, tuple[tuple[int, int], tuple[int, int]]]:
    """Two angles at the same place of the chain; ψ of the residue whose φ begins one residue
    before."""
    ahead = 1 if drawn.atoms == 3 else 0
    found = []
    for b in (drawn, judged):
        (x, real_x), (y, real_y) = (measure(b.by_residue, b.residues, q) for q in pair)
        y, real_y = y[:, ahead:], real_y[:, ahead:]
        width = min(x.shape[1], y.shape[1])
        both = real_x[:, :width] & real_y[:, :width]
        found.append([v[:, :width][both].cpu().numpy() for v in (x, y)])
    first, second = (
        Compared(q.label, q.unit, found[0][k], found[1][k]) for k, q in enumerate(pair)
    )
    return first, second, ((-180, 180), (-180, 180) if ahead else (60, 180))


def _key_figures(verdict: ProteinVerdict, design: Designability | None) -> tuple[KeyFigure, ...]:
    bond, s, h = verdict.geometry[0], verdict.samples, verdict.held_out
    found = [
        KeyFigure("samples", f"{s.chains:,}", f"{verdict.evaluations} network calls each"),
        KeyFigure(
            "Cα–Cα",
            f"{bond.mean:.2f} ± {bond.spread:.2f} Å",
            f"held-out: {bond.held_out_mean:.2f} ± {bond.held_out_spread:.2f} Å",
        ),
        KeyFigure(
            "right-handed turns", f"{100 * s.right:.1f} %", f"held-out: {100 * h.right:.1f} %"
        ),
        KeyFigure(
            "nearest training chain",
            f"TM {verdict.novelty.value:.2f}",
            f"held-out: {verdict.novelty_held_out.value:.2f}",
        ),
    ]
    if design is not None:
        found.append(
            KeyFigure(
                "designable",
                f"{100 * design.share:.0f} %",
                f"scRMSD < {DESIGNABLE:g} Å, {len(design.sc_rmsd)} samples",
            )
        )
    return tuple(found)


def _checks(verdict: ProteinVerdict) -> tuple[CheckRow, ...]:
    s, h = verdict.samples, verdict.held_out
    pairs: list[tuple[str, Mean, Mean, float, str]] = [
        ("helix", s.helix, h.helix, 100, " %"),
        ("strand", s.strand, h.strand, 100, " %"),
        ("clashes per 100 residues", s.clashes, h.clashes, 1, ""),
        ("chains without a clash", s.clean, h.clean, 100, " %"),
        ("ln of the radius of gyration over the law", s.size, h.size, 1, ""),
        (
            "TM-score of chains of one length (right: training)",
            verdict.diversity,
            verdict.diversity_training,
            1,
            "",
        ),
        (
            "TM-score to the nearest training chain",
            verdict.novelty,
            verdict.novelty_held_out,
            1,
            "",
        ),
    ]

    return tuple(
        CheckRow(
            what,
            with_error(a.value, a.error, scale) + unit,
            target=with_error(b.value, b.error, scale) + unit,
        )
        for what, a, b, scale, unit in pairs
    )


def _geometry(verdict: ProteinVerdict) -> Table:
    return Table(
        "Geometry",
        head=(
            "quantity",
            "samples",
            "held-out",
            "W1",
            "W1, training chains",
            "W1, held-out halves",
        ),
        rows=tuple(
            (
                g.label,
                _mean(g, g.mean, g.spread),
                _mean(g, g.held_out_mean, g.held_out_spread),
                *(f"{v:.3g} {g.unit}" for v in (g.w1, g.w1_training, g.w1_halves)),
            )
            for g in verdict.geometry
        ),
        note="Mean ± standard deviation of all residues; none is given for torsions, which live on"
        " a circle.",
    )


def _mean(row: GeometryRow, mean: float, spread: float) -> str:
    if row.label in _CIRCULAR:
        return ""
    return f"{mean:.2f} ± {spread:.2f} {row.unit}"


def _warnings(verdict: ProteinVerdict) -> tuple[str, ...]:
    found = []
    bond = verdict.geometry[0]
    if bond.spread > 3 * bond.held_out_spread:
        found.append(
            f"Cα–Cα distances spread by {bond.spread:.2f} Å, held-out ones by"
            f" {bond.held_out_spread:.2f} Å: the bonds are not resolved yet; train longer."
        )
    if verdict.samples.turns and verdict.samples.right < 0.9:
        found.append(
            f"{100 * (1 - verdict.samples.right):.0f} % of the helical turns are left-handed."
        )
    return tuple(found)
