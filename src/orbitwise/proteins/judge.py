"""Sampled backbones beside held-out chains: geometry, clashes, secondary structure, size,
diversity, novelty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from orbitwise.proteins.chain import Chain, ChainBatch, chain_batch
from orbitwise.proteins.geometry import (
    Quantity,
    SizeLaw,
    clashes,
    deviation,
    handedness,
    measure,
    quantities,
    radius_of_gyration,
)
from orbitwise.proteins.secondary_structure import fractions
from orbitwise.proteins.tm_score import nearest_chain, tm_score
from orbitwise.runs.config import Config

SIMILAR = 0.5  # TM-score above which two chains are said to have one fold
_SPLITS = 10  # random halves of the held-out set, and bootstraps of the samples


class JudgeConfig(Config):
    """``pairs`` of samples of one length for the diversity, and samples for the ``novelty``, at
    most (0: none)."""

    pairs: int = Field(500, ge=0)
    novelty: int = Field(64, ge=0)


@dataclass(frozen=True)
class Mean:
    """A mean with its standard error over ``count`` chains or pairs; not a number where there are
    none."""

    value: float
    error: float
    count: int

    @staticmethod
    def of(values: Tensor | np.ndarray) -> Mean:
        v = np.asarray(values, dtype=float)
        if not len(v):
            return Mean(math.nan, math.nan, 0)
        error = float(v.std(ddof=1) / math.sqrt(len(v))) if len(v) > 1 else math.nan
        return Mean(float(v.mean()), error, len(v))


@dataclass(frozen=True)
class GeometryRow:
    """One quantity: means and spreads, ``W_1`` from the samples (``w1_error``: its standard error
    over the draw of the chains, by bootstrap) and from the training chains to the held-out ones,
    and between random halves of the held-out ones, in ``unit``."""

    name: str
    label: str
    unit: str
    mean: float
    spread: float
    held_out_mean: float
    held_out_spread: float
    w1: float
    w1_error: float
    w1_training: float
    w1_halves: float


@dataclass(frozen=True)
class ChainSet:
    """What is said of a set of chains by itself. ``clashes`` per 100 residues; ``clean``: share of
    chains without one; ``helix``, ``strand``, ``coil``: shares of residues; ``right``: share of
    helical turns that are right-handed, of ``turns``; ``size``: ln of R_g over the law of the
    held-out chains."""

    chains: int
    clashes: Mean
    clean: Mean
    helix: Mean
    strand: Mean
    coil: Mean
    right: float
    turns: int
    size: Mean
    size_spread: float


@dataclass(frozen=True)
class ProteinVerdict:
    """Everything ``summary.json`` says. ``size_w1``: ``W_1`` of ln(R_g/law) to the held-out chains,
    ``size_halves`` between halves of those; ``diversity``: TM-score of pairs of one length
    (``diversity_training``: of training chains); ``novelty``: TM-score to the nearest training
    chain (``novelty_held_out``: of held-out chains); ``similar``: share of samples for which that
    is above 0.5."""

    geometry: tuple[GeometryRow, ...]
    samples: ChainSet
    held_out: ChainSet
    size_law: SizeLaw
    size_w1: float
    size_halves: float
    diversity: Mean
    diversity_training: Mean
    novelty: Mean
    novelty_held_out: Mean
    similar: Mean
    evaluations: int

    def lines(self) -> list[str]:
        """The result in a few lines of text."""
        s, h = self.samples, self.held_out
        found = [
            f"{g.label}: {g.mean:.2f} ± {g.spread:.2f} {g.unit} (held-out {g.held_out_mean:.2f} ± "
            f"{g.held_out_spread:.2f}), W1 {g.w1:.3g} (training chains {g.w1_training:.3g})"
            for g in self.geometry
            if g.unit == "Å"
        ]
        return [
            (
                f"{s.chains} samples, {self.evaluations} network calls each, beside {h.chains}"
                " held-out chains"
            ),
            *found,
            (
                f"helix {s.helix.value:.0%}, strand {s.strand.value:.0%} (held-out"
                f" {h.helix.value:.0%}, {h.strand.value:.0%}); right-handed turns {s.right:.1%}"
                f" (held-out {h.right:.1%})"
            ),
            (
                f"clashes per 100 residues {s.clashes.value:.2g} (held-out {h.clashes.value:.2g});"
                f" radius of gyration {math.exp(s.size.value):.2f} of the held-out law"
            ),
            (
                f"TM-score between samples {self.diversity.value:.2f} (training chains"
                f" {self.diversity_training.value:.2f}), to the nearest training chain"
                f" {self.novelty.value:.2f} (held-out {self.novelty_held_out.value:.2f})"
            ),
        ]


def judge(
    samples: Sequence[Chain],
    held_out: Sequence[Chain],
    training: Sequence[Chain],
    config: JudgeConfig,
    evaluations: int,
    seed: int = 0,
) -> ProteinVerdict:
    """Compare; ``seed`` chooses halves and pairs. Raises ``MissingExtraError`` without biotite."""
    generator = torch.Generator().manual_seed(seed)
    drawn, judged, known = (chain_batch(c) for c in (samples, held_out, training))
    law = SizeLaw.of(judged.lengths, radius_of_gyration(_ca(judged), judged.residues))
    own, other = _chain_set(drawn, law), _chain_set(judged, law)
    sizes = [law.excess(b.lengths, radius_of_gyration(_ca(b), b.residues)) for b in (drawn, judged)]
    plain = Quantity("size", "", (("CA", 0), ("CA", 1)))  # a number on the line
    halves = [sizes[1][h] for k in range(_SPLITS) for h in _halves(len(judged), generator)]
    nearest = nearest_of(drawn[: config.novelty], known) if config.novelty else np.zeros(0)
    return ProteinVerdict(
        geometry=tuple(
            _geometry(q, drawn, judged, known, generator) for q in quantities(drawn.atoms)
        ),
        samples=own,
        held_out=other,
        size_law=law,
        size_w1=deviation(sizes[0], sizes[1], plain),
        size_halves=float(
            np.mean(
                [deviation(a, b, plain) for a, b in zip(halves[::2], halves[1::2], strict=True)]
            )
        ),
        diversity=Mean.of(pair_scores(drawn, config.pairs, generator)),
        diversity_training=Mean.of(pair_scores(known, config.pairs, generator)),
        novelty=Mean.of(nearest),
        novelty_held_out=Mean.of(
            nearest_of(judged[: config.novelty], known) if config.novelty else np.zeros(0)
        ),
        similar=Mean.of(nearest > SIMILAR),
        evaluations=evaluations,
    )


def nearest_of(chains: ChainBatch, library: ChainBatch) -> np.ndarray:
    """TM-score of each chain to the nearest one of a library, gapless
    (``metrics.tm_score.nearest_chain``)."""
    found = nearest_chain(_ca(chains), chains.residues, _ca(library), library.residues)
    return found.score.cpu().numpy()


def pair_scores(chains: ChainBatch, most: int, generator: torch.Generator) -> Tensor:
    """TM-scores of at most ``most`` random pairs of chains of one length."""
    same = torch.triu(chains.lengths[:, None] == chains.lengths, 1).nonzero()
    same = same[torch.randperm(len(same), generator=generator)[:most]]
    if not len(same):
        return torch.zeros(0)
    ca = _ca(chains)
    scores = [
        tm_score(ca[i], ca[j], chains.residues[i])
        for i, j in (p.unbind(-1) for p in same.split(256))
    ]
    return torch.cat(scores)


def _ca(chains: ChainBatch) -> Tensor:
    return chains.by_residue[:, :, min(1, chains.atoms - 1)]


def _halves(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    first, second = torch.randperm(count, generator=generator).tensor_split(2)
    return first, second


def _geometry(
    quantity: Quantity,
    drawn: ChainBatch,
    judged: ChainBatch,
    known: ChainBatch,
    generator: torch.Generator,
) -> GeometryRow:
    (a, real_a), (b, real_b), (c, real_c) = (
        measure(v.by_residue, v.residues, quantity) for v in (drawn, judged, known)
    )
    halves, again = [], []
    for _ in range(_SPLITS):
        first, second = _halves(len(b), generator)
        halves.append(deviation(b[first][real_b[first]], b[second][real_b[second]], quantity))
        some = torch.randint(len(a), (len(a),), generator=generator)
        again.append(deviation(a[some][real_a[some]], b[real_b], quantity))
    a, b, c = a[real_a], b[real_b], c[real_c]
    return GeometryRow(
        quantity.name,
        quantity.label,
        quantity.unit,
        *(float(f(v)) for v in (a, b) for f in (torch.mean, torch.std)),
        w1=deviation(a, b, quantity),
        w1_error=float(np.std(again, ddof=1)),
        w1_training=deviation(c, b, quantity),
        w1_halves=float(np.mean(halves)),
    )


def _chain_set(chains: ChainBatch, law: SizeLaw) -> ChainSet:
    ca, real = _ca(chains), chains.residues
    found = clashes(ca, real)
    traces = ca.double().cpu().numpy()
    shares = np.array(
        [fractions(x[:n]) for x, n in zip(traces, chains.lengths.tolist(), strict=True)]
    )
    sense = handedness(ca, real)
    excess = law.excess(chains.lengths, radius_of_gyration(ca, real))
    return ChainSet(
        len(chains),
        Mean.of(100 * found / chains.lengths),
        Mean.of(found == 0),
        *(Mean.of(shares[:, k]) for k in range(3)),
        sense.share_right,
        sense.right + sense.left,
        Mean.of(excess),
        float(excess.std()),
    )
