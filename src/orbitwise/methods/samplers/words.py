"""What a verdict on a sampler says on its page: numbers in large type, sentences, warnings,
comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from orbitwise.energies import Count
from orbitwise.methods.samplers.judge import Compared, SamplerVerdict
from orbitwise.metrics.modes import Deviation, ModeWeights, WellCoverage
from orbitwise.report import CheckRow, KeyFigure

MEANINGS = (
    (
        "weight of a path",
        (
            "log w = −U + log P(path, backwards) − log P(path, forwards). Its mean over the"
            " sampler's paths is Z."
        ),
    ),
    (
        "ELBO, EUBO",
        (
            "Mean log w over the sampler's own paths, and over paths run backwards from reference"
            " samples; log Z lies between them. A mode that the sampler never visits hardly lowers"
            " the ELBO, but raises the EUBO without limit, so the gap EUBO − ELBO sees what is"
            " drawn wrongly and what is missing."
        ),
    ),
    (
        "log Z",
        (
            "Logarithm of ∫ exp(−U), from the weights of the sampler's paths; the bridge uses both"
            " sets of paths."
        ),
    ),
    (
        "ESS",
        (
            "How many exact samples the weighted paths are worth, as a share of their number. The"
            " sampler's own paths cannot show modes that are missing; reference paths can."
        ),
    ),
    (
        "exact samples",
        (
            "What the same number is for a random part of the reference against the rest, or for as"
            " many exact draws: a perfect sampler comes down to it, not below."
        ),
    ),
    ("virial", "Mean of x·∇U: the number of dimensions, for samples of exp(−U)."),
)
Calls = Count | Sequence[int]


def key_figures(verdict: SamplerVerdict, counts: Mapping[str, Calls]) -> tuple[KeyFigure, ...]:
    """The numbers in large type."""
    found, out = verdict.evidence, []
    if found.gap is not None:
        out.append(KeyFigure("gap EUBO − ELBO", _nats(found.gap, found.gap_error), "nats"))
    best, error = (found.log_z_bridge, found.log_z_bridge_error)
    if best is None:
        best, error = found.log_z, found.log_z_error
    exact = f"exact {found.log_z_true:.2f}" if found.log_z_true is not None else "estimate"
    out.append(KeyFigure("log Z", _nats(best, error), exact))
    out.append(KeyFigure("ESS", f"{100 * found.ess:.3g} %", f"± {100 * found.ess_error:.1g} %"))
    if isinstance(verdict.modes, ModeWeights):
        out.append(KeyFigure("modes", f"{verdict.modes.found} of {len(verdict.modes.exact)}"))
    if isinstance(verdict.modes, WellCoverage):
        mean = float(verdict.modes.minor.mean())
        out.append(
            KeyFigure(
                "minor mass", f"{100 * mean:.2f} %", f"exact {100 * verdict.modes.exact:.2f} %"
            )
        )
    elif verdict.torsions:
        w2 = verdict.torsions[0].w2
        out.append(
            KeyFigure("torsions, W₂", f"{w2.value:.3f} rad", f"exact samples {w2.floor:.3f}")
        )
    elif verdict.energy_w2 is not None and verdict.modes is None:
        w2 = verdict.energy_w2
        out.append(KeyFigure("energy W₂", f"{w2.value:.2f} kT", f"exact samples {w2.floor:.2f}"))

    total = sum(calls_of(c)[0] for c in counts.values())
    before = total - sum(
        calls_of(c)[0] for name, c in counts.items() if name in ("evaluation", "reference")
    )
    text = f"{before / 1e6:.2f} M" if before >= 1e6 else f"{before:,}"
    out.append(KeyFigure("energy evaluations", text, f"search and training; {total:,} in all"))
    return tuple(out)


def words(verdict: SamplerVerdict, counts: Mapping[str, Calls]) -> tuple[str, ...]:
    """The result in a few sentences."""
    found = verdict.evidence
    text = []
    if found.gap is not None:
        text.append(
            f"The bounds on log Z are {_nats(found.gap, found.gap_error)} nats apart: from "
            f"{_nats(found.elbo, found.elbo_error)} (the sampler's own paths) to "
            f"{_nats(found.eubo, found.eubo_error)} (paths from the reference)."
        )
    else:
        text.append(
            f"The ELBO is {_nats(found.elbo, found.elbo_error)}. No paths were drawn back from"
            " reference samples, so the weights cannot show modes that the sampler misses."
        )

    share = f"{100 * found.ess:.3g} %"
    text.append(f"Weighted, the {found.paths:,} paths are worth {share} of as many exact samples.")
    if isinstance(verdict.modes, ModeWeights):
        off = "as in" if not verdict.modes.largest.excess else "more than in"
        text.append(
            f"{verdict.modes.found} of {len(verdict.modes.exact)} modes are found; the largest"
            f" error of a weight is {100 * verdict.modes.largest.value:.2f} %, {off} 19 of 20 exact"
            " sets of this size."
        )

    if isinstance(verdict.modes, WellCoverage):
        off = "as small as" if not verdict.modes.largest.excess else "larger than"
        text.append(
            f"The minor sides of the wells hold {100 * float(verdict.modes.minor.mean()):.2f} % on"
            f" average (exact {100 * verdict.modes.exact:.2f} %); the largest deviation of a well,"
            f" {100 * verdict.modes.largest.value:.2f} %, is {off} those of 19 of 20 exact sets of"
            " this size."
        )

    calls = [(name, *calls_of(c)) for name, c in counts.items()]
    spent = ", ".join(f"{energies:,} in the {name}" for name, energies, _ in calls if energies)
    if spent:
        text.append(f"Energies asked for: {spent}.")
    return tuple(text)


def warnings(verdict: SamplerVerdict) -> tuple[str, ...]:
    """What makes a number untrustworthy."""
    told = [text[0].upper() + text[1:] + "." for text in verdict.evidence.cautions]
    if verdict.not_finite:
        told.append(
            f"{verdict.not_finite} of {verdict.samples} samples have no finite energy; distances"
            " leave them out."
        )
    return tuple(told)


def checks(verdict: SamplerVerdict) -> tuple[CheckRow, ...]:
    """Every number beside its exact value, or beside what exact samples show."""
    rows = []

    def against(what: str, found: Compared | None, digits: int = 3) -> None:
        if found is not None:
            rows.append(
                CheckRow(
                    what,
                    f"{found.value:.{digits}f}",
                    target=f"{found.floor:.{digits}f} (exact samples)",
                )
            )

    def deviation(what: str, found: Deviation, scale: float = 1.0) -> None:
        value, limit = f"{found.value * scale:.3g}", f"{found.exact_95 * scale:.3g}"
        rows.append(
            CheckRow(what, value, target=f"below {limit} (exact samples)", good=not found.excess)
        )

    exact = verdict.evidence.log_z_true
    for what, value, error in (
        ("log Z, importance-weighted", verdict.evidence.log_z, verdict.evidence.log_z_error),
        ("log Z, bridge", verdict.evidence.log_z_bridge, verdict.evidence.log_z_bridge_error),
        ("log Z, learned", verdict.log_z_parameter, None),
    ):
        if value is not None:
            known = "" if exact is None else f"{exact:.3f} (exact)"
            rows.append(CheckRow(what, _nats(value, error), target=known))
    against("energies, W1 (kT)", verdict.energy_w1)
    against("energies, W2 (kT)", verdict.energy_w2)
    against("pair distances, W1", verdict.distance_w1, 4)
    against("W2, symmetries removed", verdict.symmetric_w2)
    virial = verdict.virial
    inside = abs(virial.value - virial.exact) < 3 * virial.error
    rows.append(
        CheckRow(
            "virial",
            _nats(virial.value, virial.error),
            target=f"{virial.exact} (exact)",
            good=inside,
        )
    )
    if isinstance(verdict.modes, ModeWeights):
        deviation("largest error of a mode's weight (%)", verdict.modes.largest, 100)
        deviation("total variation of the modes' weights", verdict.modes.total_variation)
    if isinstance(verdict.modes, WellCoverage):
        deviation("largest error of a well's minor mass (%)", verdict.modes.largest, 100)
        deviation("rms error of the minor mass (%)", verdict.modes.rms, 100)
        deviation("number of minor wells, total variation", verdict.modes.total_variation)
        deviation("largest correlation between two wells", verdict.modes.correlation)
    for pair in verdict.torsions:
        where = f"({', '.join(pair.names)})"
        against(f"{where} W2 (rad)", Compared(pair.w2.value, pair.w2.floor))
        against(f"{where} KL(reference‖samples)", Compared(pair.kl.value, pair.kl.floor))
        against(f"{where} Jensen-Shannon", Compared(pair.js.value, pair.js.floor), 4)
    return tuple(rows)


def _nats(value: float, error: float | None) -> str:
    """``value ± error`` with two digits of the error, two to four decimals."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else str(value).replace("-", "−").replace("inf", "∞")
    known = error is not None and math.isfinite(error) and error > 0
    digits = min(4, max(2, 1 - math.floor(math.log10(error)))) if known else 3
    text = f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if known else "")
    return text.replace("-", "−")


def calls_of(calls: Calls) -> tuple[int, int]:
    """Energies and gradients of one stage."""
    return (
        (calls.energy, calls.gradient)
        if isinstance(calls, Count)
        else (int(calls[0]), int(calls[1]))
    )
