"""Numbers as people write them."""

from __future__ import annotations

import math


def with_error(value: float | None, error: float | None, scale: float = 1.0) -> str:
    """``value ± error`` with two digits of the error, at most two decimals: ``41.3 ± 1.2``. Not
    finite: a dash."""
    if value is None or not math.isfinite(value):
        return "–"

    value = value * scale + 0.0  # no "-0.00"
    if not error or not math.isfinite(error):
        text = f"{value:.2f}" if error is None else f"{value:.2f}".rstrip("0").rstrip(".")
    else:
        error *= scale
        digits = min(2, max(0, 1 - math.floor(math.log10(error))))
        text = f"{value:.{digits}f} ± {error:.{digits}f}"
    return text.replace("-", "−")


def between(low: float, high: float) -> str:
    """An interval, infinite on a side that nothing bounds: ``1.9 to 3.0``, ``> 2.1``, ``< −1.2``;
    a dash for no bound at all."""
    if math.isfinite(low) and math.isfinite(high):
        text = f"{low:.1f} to {high:.1f}"
    elif math.isfinite(low):
        text = f"> {low:.1f}"
    else:
        text = f"< {high:.1f}" if math.isfinite(high) else "–"
    return text.replace("-", "−")


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"

    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(number: int) -> str:
    """``400,000``; a dash for none."""
    return f"{number:,}" if number else "–"
