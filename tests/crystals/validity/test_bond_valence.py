"""The instability index against sums by hand, and where it has nothing to say."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("pymatgen.core", reason="needs orbitwise[crystals]")
from pymatgen.core import Lattice, Structure

from orbitwise.crystals.validity.bond_valence import instability_index


def rock_salt(a: float) -> Structure:
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(a), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3]
    )


def perovskite(corner: str, centre: str, a: float) -> Structure:
    places = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Structure(Lattice.cubic(a), [corner, centre, "O", "O", "O"], places)


@pytest.mark.parametrize("a", [5.2, 5.64, 6.0])
def test_rock_salt_by_hand(a):
    """Six bonds of length a/2; the next Na-Cl distance, √3 a/2, is beyond the reach of 4 Å."""
    from pymatgen.analysis.bond_valence import BV_PARAMS
    from pymatgen.core import Element

    (r1, c1), (r2, c2) = [[BV_PARAMS[Element(s)][k] for k in "rc"] for s in ("Na", "Cl")]
    length = r1 + r2 - r1 * r2 * (math.sqrt(c1) - math.sqrt(c2)) ** 2 / (c1 * r1 + c2 * r2)
    by_hand = abs(6 * math.exp((length - a / 2) / 0.31) - 1)
    assert instability_index(rock_salt(a)) == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "good", "bad"), [("Sr", "Ti", 3.905, 4.5), ("Ba", "Ti", 4.0, 4.6)]
)
def test_large_cations_belong_in_the_cage(a, b, good, bad):
    assert instability_index(perovskite(a, b, good)) < 0.4
    assert instability_index(perovskite(b, a, bad)) > 1.5


def test_nothing_is_said_without_charges_or_valences():
    copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    alloy = Structure(Lattice.cubic(3.0), ["Cu", "Zn"], [[0, 0, 0], [0.5] * 3])
    xenon = Structure(Lattice.cubic(4.0), ["Xe", "O"], [[0, 0, 0], [0.5] * 3])
    assert np.isnan([instability_index(s) for s in (copper, alloy, xenon)]).all()
