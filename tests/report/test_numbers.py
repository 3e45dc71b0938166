"""Numbers as people write them."""

import math

from orbitwise.report.numbers import between, count, duration, with_error


def test_numbers_are_written_as_people_write_them():
    assert with_error(0.41327, 0.0123, 100) == "41.3 ± 1.2"
    assert with_error(0.5, 0.13) == "0.50 ± 0.13"
    assert with_error(12.0, 25.0) == "12 ± 25"
    assert with_error(1.0, 0.0, 100) == "100"
    assert with_error(-0.0, 0.0) == "0" and with_error(-0.4, None) == "−0.40"
    assert with_error(math.inf, 1.0) == "–" and with_error(None, None) == "–"
    assert [duration(s) for s in (0.44, 12.3, 185, 7800)] == [
        "0.4 s",
        "12 s",
        "3 min 05 s",
        "2 h 10 min",
    ]
    assert between(1.93, 3.01) == "1.9 to 3.0" and between(-math.inf, math.inf) == "–"
    assert count(1234567) == "1,234,567" and count(0) == "–"
