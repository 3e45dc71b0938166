"""What an audit found, in words: what it says about the choice between an equivariant model and a
plain one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orbitwise.audit import Audit, AuditReport
from orbitwise.audit.subject import AuditSubject

ENOUGH, LARGE = 2.0, 10.0  # percent of the loss; 2 % is the mark of 2512.02303
CONVERGED = (
    1e-5  # relative: self-consistent fields and neighbour lists in single precision end about here
)
SINGLE = 1.2e-4  # a thousand times the precision of float32, as the audit judges rounding
EXACT = 4e-6  # relative: thirty times the precision of float32
NOTHING = {
    "energy": 1e-11,
    "forces": 1e-10,
    "stress": 1e-12,
}  # rms in eV and Å below which all is rounding
GROUPS = {
    "so3": ("orientation", "rotations"),
    "o3": ("orientation", "rotations and reflections"),
    "permutation": ("labelling", "permutations of the atoms"),
}
SYMMETRIC = ("rounding", "to convergence")


@dataclass(frozen=True)
class Verdict:
    """``word`` for a table; ``enough``: no more symmetry is needed."""

    word: str
    enough: bool


def verdict(row: Audit, single_precision: bool = False, calculator: bool = False) -> Verdict:
    """The judgement on one output at one level; ``single_precision`` of the answers."""
    deviation = rms(row.total.value) * row.relative_deviation if row.total.value > 0 else 0.0
    fine = row.rounding or (single_precision and row.relative_deviation <= SINGLE)
    # a denoiser passes most of its input on: what its network adds can be small in the answer, yet
    # all of the error
    if (fine and (row.relative_deviation <= EXACT or not row.percent.value > 0.01)) or _nothing(
        row
    ):
        return Verdict("rounding", True)
    if calculator and row.relative_deviation <= CONVERGED:
        return Verdict("to convergence", True)
    if not math.isfinite(row.percent.value) or deviation == 0:
        return Verdict("no loss", True)
    error = 0.0 if math.isnan(row.percent.error) else 2 * row.percent.error
    if row.percent.value <= ENOUGH:
        return Verdict(
            "symmetric enough" if row.percent.value + error <= ENOUGH else "about 2 %", True
        )
    return Verdict("large" if row.percent.value > LARGE else "not symmetric", False)


def _nothing(row: Audit) -> bool:
    limit = NOTHING.get(row.output)
    return (
        limit is not None
        and rms(row.equivariance.value) < limit
        and rms(row.total.value) < 1e3 * limit
    )


def rms(square: float) -> float:
    """The root of an estimate of a square, which noise can make negative."""
    return math.sqrt(max(square, 0.0))


def share(row: Audit, found: Verdict) -> str:
    """``3.2 ± 0.4``, or the verdict where a percentage would be a row of zeros."""
    if found.word in SYMMETRIC:
        return f"< {_ceiling(row.percent.value):g}" if math.isfinite(row.percent.value) else "–"
    if math.isnan(row.percent.error):
        return f"{row.percent.value:.2g}"
    digits = min(3, max(0, 1 - math.floor(math.log10(max(row.percent.error, 1e-3)))))
    return f"{row.percent.value:.{digits}f} ± {row.percent.error:.{digits}f}"


def _ceiling(value: float) -> float:
    return 10.0 ** math.ceil(math.log10(max(abs(value), 1e-12)))


@dataclass(frozen=True)
class Words:
    """An audit with what it was of, as text: under the ``group`` and with the ``loss`` of these
    names; ``calculator``: of one of ASE; ``single_precision`` of its answers."""

    subject: AuditSubject
    report: AuditReport
    group: str = "so3"
    loss: str = "squared"
    calculator: bool = False
    single_precision: bool = False

    @property
    def verdicts(self) -> list[Verdict]:
        return [verdict(row, self.single_precision, self.calculator) for row in self.report.rows]

    @property
    def squared(self) -> bool:
        return self.loss == "squared"

    def size(self, row: Audit, value: float) -> str:
        """A loss as a length: the root of a squared one, with its unit."""
        return f"{self.number(value)} {self.subject.units[row.output]}"

    def number(self, value: float) -> str:
        """A loss as a length, without its unit."""
        return f"{rms(value) if self.squared else value:.3g}"

    def name(self, row: Audit) -> str:
        text = self.subject.answer if row.output == "prediction" else row.output
        return text if row.level is None else f"{text} at {self.subject.levels} = {row.level:g}"

    def table(self) -> list[tuple[str, ...]]:
        """Header and rows: output or level, items, size of the loss and of its parts, percent,
        deviation, verdict."""
        squared, reference = self.squared, self.subject.reference
        measure = "rms" if squared else self.loss
        gradients = any(row.gradients for row in self.report.rows)
        first = self.subject.levels or "output"
        rows = [
            (
                first,
                "items",
                f"{measure} {'error' if reference else 'size'}",
                "after averaging",
                f"{self.noise} noise",
                "% of loss" if reference else "% of size²",
                "relative deviation",
                *(["gradient ratio"] if gradients else []),
                "verdict",
            )
        ]
        for row, found in zip(self.report.rows, self.verdicts, strict=True):
            values = [e.value for e in (row.total, row.twirled, row.equivariance)]
            sizes = [self.number(v) if self.long_unit else self.size(row, v) for v in values]
            if found.word == "rounding":
                sizes[-1] = "rounding"
            ratio = f"{row.gradients.ratio.value:.2g}" if row.gradients else "–"
            rows.append(
                (
                    row.output if row.level is None else f"{row.level:g}",
                    str(row.items),
                    *sizes,
                    share(row, found),
                    f"{row.relative_deviation:.2g}",
                    *([ratio] if gradients else []),
                    found.word,
                )
            )
        return rows

    @property
    def long_unit(self) -> str:
        """A unit that is a phrase, told once below the table instead of in every cell of it."""
        unit = next(iter(self.subject.units.values()))
        return unit if len(self.subject.units) == 1 and len(unit) > 12 else ""

    @property
    def noise(self) -> str:
        return GROUPS[self.group][0]

    @property
    def moves(self) -> str:
        return GROUPS[self.group][1]

    def lines(self) -> list[str]:
        """For a terminal: the table, what it means, what it cost."""
        table = self.table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        text = [
            "  ".join(
                cell.ljust(w) if k in (0, len(widths) - 1) else cell.rjust(w)
                for k, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        ]
        unit = [f"unit: {self.long_unit}"] if self.long_unit else []
        return [*text, *unit, *self.summary(), *(f"caution: {w}" for w in self.cautions)]

    @property
    def cautions(self) -> list[str]:
        """Warnings of the audit; how well a number is known does not matter where it is
        rounding."""
        fine = [
            row.output if row.level is None else f"{row.output} at {row.level}"
            for row, v in zip(self.report.rows, self.verdicts, strict=True)
            if v.word in SYMMETRIC
        ]
        quiet = ("errors rest on", "the equivariance error is not resolved")
        kept = [
            text
            for text in self.report.warnings
            if not any(text.startswith(f"{f}: {q}") for f in fine for q in quiet)
        ]
        common: dict[str, list[str]] = {}
        for text in kept:
            where, _, what = text.partition(": ")
            common.setdefault(what if what.startswith(quiet) else text, []).append(where)
        return [
            (
                f"{what} ({len(places)} rows)"
                if len(places) > 1
                else what
                if not what.startswith(quiet)
                else f"{places[0]}: {what}"
            )
            for what, places in common.items()
        ]

    def summary(self) -> list[str]:
        """The finding, and what it means for the choice of a model."""
        text = [
            self._finding(),
            *self._small_share(),
            *self._gain(),
            *self._levels(),
            *self._pose(),
        ]
        return [line for line in text if line]

    def _finding(self) -> str:
        rows, found = self.report.rows, self.verdicts
        words = {v.word for v in found}
        if words <= {*SYMMETRIC, "no loss"}:
            how = "to rounding" if "to convergence" not in words else "to convergence"
            extra = (
                ""
                if how == "to rounding"
                else (
                    f" (relative deviations below {CONVERGED:g}, where iterative and"
                    " single-precision calculations end; no broken symmetry)"
                )
            )
            return (
                f"Symmetric under {self.moves} {how}{extra}. Nothing is to be gained from"
                " averaging, from canonical frames, or from another architecture as far as this"
                " symmetry goes."
            )
        worst = max(
            (r for r, v in zip(rows, found, strict=True) if v.word not in SYMMETRIC),
            key=lambda r: r.percent.value,
        )
        if not self.subject.reference:
            return (
                "Without reference values there is no error to take a share of. Turned and turned"
                f" back, the answers for the {self.name(worst)} scatter by"
                f" {100 * worst.relative_deviation:.3g} % of their own size"
                f" ({self.size(worst, worst.equivariance.value)} rms)."
            )
        most = f"{share(worst, verdict(worst))} % of the loss ({self.name(worst)})"
        if all(v.enough for v in found):
            return (
                f"Symmetric enough: at most {most} is {self.noise} noise. Exact symmetry, by"
                " whatever means, could take away this share and no more; choose the model by"
                " accuracy and speed instead."
            )
        return (
            f"Not symmetric enough to ignore: up to {most} is {self.noise} noise. This is the most"
            f" that exact symmetry of this model (averaging over {self.moves}) could take away; the"
            " rest is error that it makes in every pose."
        )

    def _small_share(self) -> list[str]:
        """A share of the loss is small also for a model that is wrong in every respect."""
        rows = self.report.rows if self.subject.reference else ()
        wide = [
            r
            for r in rows
            if r.percent.value <= ENOUGH and r.relative_deviation > 0.5 and not r.rounding
        ]
        if not wide:
            return []
        return [
            f"But the answers for the {self.name(wide[0])} scatter by"
            f" {100 * wide[0].relative_deviation:.2g} % of their own size: the share of the loss is"
            " small because other errors are larger still. Audit again when the model is better."
        ]

    def _gain(self) -> list[str]:
        """What averaging would buy."""
        text = []
        rows = list(zip(self.report.rows, self.verdicts, strict=True))
        if not self.subject.reference:
            missing = (
                "The file has no reference values: percentages are of the mean square of the"
                " prediction itself."
            )
            return [missing]
        for row, found in rows if len(rows) <= 3 else []:
            if found.word in (*SYMMETRIC, "no loss"):
                continue
            text.append(
                f"Averaged over {self.moves}, the {self.name(row)} would be wrong by"
                f" {self.size(row, row.twirled.value)} instead of"
                f" {self.size(row, row.total.value)}{' (rms)' if self.squared else ''}; K random"
                " ones buy a share 1 − 1/K of that at K times the cost."
            )
        return text

    def _levels(self) -> list[str]:
        rows = [r for r in self.report.rows if r.level is not None]
        if len(rows) < 2 or all(v.word == "rounding" for v in self.verdicts):
            return []
        low, high = (pick(rows, key=lambda r: r.percent.value) for pick in (min, max))
        low_loss, high_loss = low.total.value, high.total.value
        text = (
            f"By {self.subject.levels}: the share is largest at {high.level:g}"
            f" ({high.percent.value:.2g} %) and smallest at {low.level:g}"
            f" ({low.percent.value:.2g} %)."
        )
        if low_loss > 0 and high_loss > 0 and max(low_loss / high_loss, high_loss / low_loss) > 3:
            text += (
                f" The errors there are {self.size(high, high_loss)} and"
                f" {self.size(low, low_loss)}: a share is high also where there is little else left"
                " to be wrong about."
            )
        return [text]

    def _pose(self) -> list[str]:
        """Where the poses of the file are special."""
        text = []
        for row in self.report.rows if self.subject.reference else ():
            given, total = row.as_given, row.total
            apart = total.value - given.value
            if apart > 0.2 * total.value and apart > 3 * math.hypot(
                given.error or 0, total.error or 0
            ):
                text.append(
                    f"The {self.name(row)} is better in the pose of the file"
                    f" ({self.size(row, given.value)}) than over all {self.moves}"
                    f" ({self.size(row, total.value)}): the model has learned the poses of its"
                    " data."
                )
        return text[:1]


MEANINGS: Sequence[tuple[str, str]] = (
    (
        "Error over all poses",
        (
            "The loss of the model when every structure is shown in random poses and the answers"
            " are turned back: what a user sees who does not choose the pose."
        ),
    ),
    (
        "After averaging",
        (
            "The loss of the averaged (twirled) answer: the model asked in all poses, answers"
            " turned back, mean taken. It is exactly symmetric. This is what the model does not"
            " know, in any pose."
        ),
    ),
    (
        "Orientation noise",
        (
            "The equivariance error: what the answers scatter about their own average. For the"
            " squared loss the two parts add up to the whole, exactly; for other convex losses this"
            " is the part that averaging removes (Jensen's gap). Both are corrected for the finite"
            " number of poses."
        ),
    ),
    (
        "Below 2 %",
        (
            "Symmetric enough for most purposes: other errors are fifty times larger. An"
            " equivariant network may still be better or faster, but not because of the symmetry"
            " that this model lacks."
        ),
    ),
    (
        "Above 2 %",
        (
            "Averaging at test time, canonical frames, more random poses in training, or an"
            " equivariant architecture each can take away up to this share; which is cheapest is a"
            " matter of measuring."
        ),
    ),
    (
        "Rounding, to convergence",
        (
            "The scatter is what floating-point numbers (or the end of a self-consistent field)"
            " explain. No symmetry is broken."
        ),
    ),
    (
        "A share of a loss that shrinks",
        (
            "While the rest of the loss falls in training, the share can rise though the noise"
            " itself falls. Look at both columns."
        ),
    ),
)
