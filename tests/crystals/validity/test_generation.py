"""Metrics of generated crystals on structures with known answers; neutrality against plain
enumeration."""

import math
from itertools import combinations, product

import numpy as np
import pytest

from orbitwise.crystals.validity.charge_neutrality import charge_neutral
from orbitwise.crystals.validity.fingerprints import (
    composition_fingerprints,
    structure_fingerprints,
)
from orbitwise.crystals.validity.generation import Cutoffs, generation_metrics, natural_cutoffs
from orbitwise.errors import InputError

core = pytest.importorskip("pymatgen.core", reason="needs orbitwise[crystals]")


FACES = [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


def cubic(a: float, symbols, places):
    return core.Structure(core.Lattice.cubic(a), list(symbols), places)


def copper(a: float = 3.6):
    return cubic(a, ["Cu"] * 4, [[0] * 3, *FACES])


def salt(a: float = 5.6, cation: str = "Na", anion: str = "Cl"):
    places = np.array([[0] * 3, *FACES])
    return cubic(a, [cation] * 4 + [anion] * 4, np.concatenate([places, places + 0.5]))


def perovskite(a: float = 3.9, cations: tuple[str, str] = ("Sr", "Ti")):
    return cubic(a, [*cations, "O", "O", "O"], [[0] * 3, [0.5] * 3, *FACES])


@pytest.mark.parametrize(
    ("formula", "neutral"),
    [
        ("SrTiO3", True),
        ("NaCl", True),
        ("Na2Cl", False),
        ("Sr2TiO4", True),
        ("CaF", False),
        ("FeAl", True),  # metals
        ("C", True),  # one element
        ("HeNa", False),  # helium has neither
        ("OF2", True),
        ("NaF2", False),
    ],
)
def test_neutral_compositions(formula, neutral):
    assert charge_neutral(core.Composition(formula)) is neutral
    doubled = core.Composition(formula) * 2
    assert charge_neutral(doubled) is neutral


def test_neutrality_is_that_of_enumeration():
    rng = np.random.default_rng(0)
    symbols = np.array(
        ["Li", "Sr", "Ti", "Fe", "B", "H", "P", "S", "Se", "I", "N", "Cl", "O", "F", "As"]
    )
    answers = []
    for _ in range(300):
        chosen = rng.choice(symbols, rng.integers(2, 5), replace=False)
        counts = rng.integers(1, 5, len(chosen))
        counts //= math.gcd(*counts.tolist())
        elements = [core.Element(s) for s in chosen]
        expected = all(e.is_metal for e in elements)
        for states in product(*[e.oxidation_states for e in elements]):
            ordered = all(
                not (
                    a * b < 0 and (x - y) * (a - b) >= 0
                )  # the positive one is not the more electronegative one
                for (a, x), (b, y) in combinations(
                    [(s, e.X) for s, e in zip(states, elements, strict=True)], 2
                )
            )
            expected = expected or (ordered and np.dot(states, counts) == 0)
        composition = core.Composition(dict(zip(chosen.tolist(), counts.tolist(), strict=True)))
        assert charge_neutral(composition) == expected, composition
        answers.append(expected)
    assert 0.2 < np.mean(answers) < 0.9


def test_fingerprints_do_not_depend_on_how_a_crystal_is_written():
    rng = np.random.default_rng(1)
    lattice = core.Lattice.from_parameters(4.2, 5.1, 6.3, 80, 95, 103)
    crystal = core.Structure(lattice, ["Si", "O", "O", "Na"], rng.random((4, 3)))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    order = rng.permutation(4)
    moved = core.Structure(
        core.Lattice(lattice.matrix @ turn),
        [crystal.species[i] for i in order],
        (crystal.frac_coords + rng.random(3))[order],
    )
    wide = crystal * (2, 1, 1)
    large = core.Structure(core.Lattice(lattice.matrix * 1.3), crystal.species, crystal.frac_coords)
    found = structure_fingerprints([crystal, moved, wide, large])
    np.testing.assert_allclose(found[1:], np.broadcast_to(found[0], (3, found.shape[1])), atol=1e-8)
    other = core.Structure(lattice, crystal.species, rng.random((4, 3)))
    assert np.linalg.norm(structure_fingerprints([other]) - found[0]) > 0.05
    compositions = composition_fingerprints([crystal, moved, wide, large])
    np.testing.assert_allclose(
        compositions[1:], np.broadcast_to(compositions[0], (3, 28)), atol=1e-12
    )


def test_bond_orders_of_copper_are_those_of_steinhardt():
    found = structure_fingerprints([copper()])[0]
    q4, q6 = found[23 + 2], found[23 + 3]
    assert abs(q4 - 0.1909) < 0.01 and abs(q6 - 0.5745) < 0.01  # Phys. Rev. B 28, 784, table I
    np.testing.assert_allclose(found[28:], 0, atol=1e-9)  # all atoms alike


def test_metrics_by_hand():
    reference = [salt(), salt(5.7), perovskite(), perovskite(4.0)]
    wide = Cutoffs(0.01, 0.01)
    same = generation_metrics(reference, reference, cutoffs=wide)
    assert same.recall.value == same.precision.value == 1 == same.valid.value
    assert same.density.value == 0 == same.elements.value
    touching = core.Structure(core.Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.1, 0, 0]])
    charged = salt(5.6, "Na", "O")  # one sodium for each oxygen: neutral as a peroxide
    wrong = salt(5.6, "Sr", "Cl")
    found = generation_metrics([salt(), touching, wrong, None, charged], reference, cutoffs=wide)
    assert found.structure_valid.value == pytest.approx(3 / 5)  # salt, wrong, charged
    assert found.composition_valid.value == pytest.approx(3 / 5)  # salt, touching, charged
    assert found.valid.value == pytest.approx(2 / 5)
    assert found.precision.value == pytest.approx(1 / 2) and found.precision.count == 2
    assert found.recall.value == pytest.approx(
        2 / 4
    )  # both salts: lengths do not count, densities below do
    expected = np.mean([2, 2, 3, 3]) - 2
    assert found.elements.value == pytest.approx(expected)
    alone = generation_metrics([salt()], reference, cutoffs=wide)
    densities = np.array([s.density for s in reference])
    assert alone.density.value == pytest.approx(np.abs(densities - salt().density).mean())
    nothing = generation_metrics([None, touching], reference, cutoffs=wide)
    assert nothing.valid.value == 0 == nothing.recall.value and math.isnan(nothing.precision.value)
    with pytest.raises(InputError, match="at least two references"):
        generation_metrics([salt()], [salt()])


def test_both_fingerprints_must_be_near():
    reference = [salt(), perovskite()]
    # the arrangement of one with the elements of another that is not in the reference
    found = generation_metrics([salt(6.2, "K", "I")], reference, cutoffs=Cutoffs(0.01, 0.5))
    assert found.recall.value == 0 and found.valid.value == 1
    found = generation_metrics([salt(6.2, "K", "I")], reference, cutoffs=Cutoffs(0.01, 50.0))
    assert found.recall.value == 0.5 and found.precision.value == 1


def test_natural_cutoffs_cover_another_draw_of_the_same_kind():
    rng = np.random.default_rng(2)

    def draw():
        cations = [
            str(x) for x in rng.choice(["Sr", "Ba", "Ca", "Ti", "Zr", "Hf"], 2, replace=False)
        ]
        crystal = perovskite(cations=cations)
        return crystal.perturb(float(rng.uniform(0, 0.3)), seed=int(rng.integers(1 << 30)))

    first, second = [draw() for _ in range(60)], [draw() for _ in range(60)]
    found = generation_metrics(first, second, valid_composition=lambda s: True)
    assert found.cutoffs == natural_cutoffs(second)
    assert found.recall.value > 0.8 and found.precision.value > 0.8
    other = generation_metrics([copper(3.5 + 0.01 * k) for k in range(5)], second)
    assert other.recall.value == 0 == other.precision.value
