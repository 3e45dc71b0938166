"""What an audit found: estimates with standard errors, per output and level."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error (NaN where one item or one batch leaves none)."""

    value: float
    error: float

    @classmethod
    def mean(cls, values: Tensor) -> Estimate:
        """Of independent values ``(n,)``."""
        n = len(values)
        return cls(float(values.mean()), float(values.std() / math.sqrt(n)) if n > 1 else math.nan)

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.error:.2g}"


@dataclass(frozen=True)
class GradientNorms:
    """Norms of the gradients of both terms with respect to the model's parameters, ``ratio``
    equivariance over twirled. With ``batches`` ≥ 2 the squared norms are unbiased: products of
    gradients of different batches; a squared norm that comes out negative is noise and reads 0."""

    total: Estimate
    twirled: Estimate
    equivariance: Estimate
    ratio: Estimate
    batches: int


@dataclass(frozen=True)
class Audit:
    """One output at one level.

    ``total`` = ``twirled`` + ``equivariance`` are losses averaged over the group; ``as_given``: the
    loss in the orientation of the data; ``percent`` of the total that is equivariance error. Errors
    are over items and hold the sampling of the group, whose part in that of ``equivariance`` is
    ``monte_carlo`` (0: every element was taken; NaN: two blocks cannot tell).
    ``relative_deviation``: rms of ``g⁻¹f(gx)`` about its mean over the orbit, over the rms of the
    answer; ``rounding``: it is what the precision of the inputs explains. ``nodes``: answers per
    item.
    """

    output: str
    level: str | float | None
    items: int
    nodes: int
    total: Estimate
    twirled: Estimate
    equivariance: Estimate
    percent: Estimate
    as_given: Estimate
    monte_carlo: float
    relative_deviation: float
    rounding: bool
    gradients: GradientNorms | None = None


@dataclass(frozen=True)
class AuditReport:
    """``rows`` per output and level; ``evaluations``: items that went through the model;
    ``seconds`` in all."""

    rows: list[Audit]
    warnings: list[str]
    evaluations: int
    seconds: float

    def row(self, output: str | None = None, level: str | float | None = None) -> Audit:
        """The first one of this output and level."""
        for row in self.rows:
            if (output is None or row.output == output) and (level is None or row.level == level):
                return row
        raise KeyError(f"no row for output {output!r} at level {level!r}")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """A table for a terminal."""
        head = (
            f"{'output':<12} {'level':>8} {'total':>20} {'twirled':>20} {'equivariance error':>22}"
            f" {'% of loss':>16}"
        )
        out = [head]
        for r in self.rows:
            level = (
                ""
                if r.level is None
                else f"{r.level:g}"
                if isinstance(r.level, float)
                else str(r.level)
            )
            share = "rounding" if r.rounding else f"{r.percent.value:.3g} ± {r.percent.error:.2g}"
            out.append(
                f"{r.output:<12} {level:>8} {r.total!s:>20} {r.twirled!s:>20}"
                f" {r.equivariance!s:>22} {share:>16}"
            )
        items = sum({r.level: r.items for r in self.rows}.values())
        out.append(
            f"{items} items, {self.evaluations:,} answers of the model, {self.seconds:.1f} s"
        )
        return out + [f"caution: {text}" for text in self.warnings]
