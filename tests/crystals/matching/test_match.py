"""Match rate and RMSE: against pymatgen's StructureMatcher, by hand, and with guesses that
break."""

import math
import time
import warnings

import numpy as np
import pytest

from orbitwise.crystals.matching.ceiling import ceiling
from orbitwise.crystals.matching.cells import CellMatcher
from orbitwise.crystals.matching.match import MatchResult, match, structurally_valid
from orbitwise.errors import InputError

core = pytest.importorskip("pymatgen.core", reason="needs orbitwise[crystals]")
from pymatgen.analysis.structure_matcher import StructureMatcher  # noqa: E402

IDEAL = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def perovskite(symbols=("Sr", "Ti", "O", "O", "O"), a: float = 3.9):
    return core.Structure(core.Lattice.cubic(a), list(symbols), IDEAL)


def noisy(structure, rng, noise: float, strain: float):
    """Atoms displaced and in another order, another origin, strained cell."""
    order = rng.permutation(len(structure))
    frac = structure.frac_coords + rng.normal(size=(len(structure), 3)) * noise + rng.random(3)
    lattice = structure.lattice.matrix @ (np.eye(3) + strain * rng.normal(size=(3, 3)))
    return core.Structure(lattice, [structure.species[i] for i in order], frac[order])


def truths(rng):
    """Cubic, hexagonal, triclinic, a supercell that reduces, one element, one atom."""
    hexagonal = core.Structure(
        core.Lattice.hexagonal(3.2, 5.1),
        ["Zn", "Zn", "O", "O"],
        [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, 0.38], [2 / 3, 1 / 3, 0.88]],
    )
    corners = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    salt = core.Structure(
        core.Lattice.cubic(5.6), ["Na"] * 4 + ["Cl"] * 4, np.concatenate([corners, corners + 0.5])
    )
    triclinic = core.Structure(
        core.Lattice.from_parameters(4.1, 5.3, 6.2, 75, 83, 110),
        ["C"] * 4 + ["N"] * 2,
        rng.random((6, 3)),
    )
    copper = core.Structure(core.Lattice.cubic(3.6), ["Cu"] * 4, corners)
    return [perovskite(), hexagonal, salt, triclinic, copper, perovskite() * (2, 1, 1)]


@pytest.mark.parametrize(
    ("noise", "strain"), [(0.0, 0.0), (0.01, 0.01), (0.05, 0.05), (0.12, 0.1), (1.0, 0.2)]
)
def test_distances_are_those_of_pymatgen(noise, strain):
    rng = np.random.default_rng(int(1000 * noise))
    ours = CellMatcher(stol=0.5, ltol=0.3, angle_tol=10)
    theirs = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10)
    compared = 0
    for truth in truths(rng):
        for _ in range(4):
            guess = noisy(truth, rng, noise, strain)
            expected = theirs.get_rms_dist(guess, truth)
            found = ours.rms(ours.reduce(guess), ours.reduce(truth))
            # pymatgen stops at the first distance below 1e-5, we take the smallest
            if expected is None:
                assert math.isnan(found)
            else:
                assert abs(found - expected[0]) < (1e-5 if found < 1e-5 else 1e-8)
            compared += expected is not None
    assert compared > 0


def test_other_tolerances_and_other_atoms():
    rng = np.random.default_rng(3)
    ours, theirs = CellMatcher(0.2, 0.1, 4), StructureMatcher(stol=0.2, ltol=0.1, angle_tol=4)
    both = set()
    for _ in range(30):
        guess, truth = noisy(perovskite(), rng, 0.05, 0.05), perovskite()
        expected = theirs.get_rms_dist(guess, truth)
        found = ours.rms(ours.reduce(guess), ours.reduce(truth))
        assert math.isnan(found) == (expected is None)
        both.add(math.isnan(found))
    assert both == {True, False}
    ours = CellMatcher()
    swapped = perovskite(("Ti", "Sr", "O", "O", "O"))
    changed, alone = (
        perovskite(("Sr", "Ti", "S", "O", "O")),
        core.Structure(perovskite().lattice, ["O"], [[0] * 3]),
    )
    assert math.isnan(ours.rms(ours.reduce(swapped), ours.reduce(changed)))
    assert math.isnan(ours.rms(ours.reduce(perovskite()), ours.reduce(alone)))


def test_rate_and_rmse_of_one_to_k_guesses_by_hand():
    nan = math.nan
    rms = np.array([[nan, 0.2, 0.1], [0.3, nan, nan], [nan, nan, nan], [0.1, 0.4, 0.0]])
    result = MatchResult(rms, ~np.isnan(rms), np.ones(4, bool), np.zeros((4, 3), bool))
    assert result.rate(1).value == 0.5 and result.rate(2).value == 0.75 == result.rate().value
    assert result.rmse(1).value == pytest.approx(0.2) and result.rmse(1).count == 2
    assert result.rmse(2).value == pytest.approx(np.mean([0.2, 0.3, 0.1]))
    assert result.rmse().value == pytest.approx(np.mean([0.1, 0.3, 0.0]))
    assert result.rmse().error == pytest.approx(np.std([0.1, 0.3, 0.0], ddof=1) / math.sqrt(3))
    assert result.rate(1).error == pytest.approx(math.sqrt(0.5 * 0.5 / 4))
    none = MatchResult(np.full((2, 1), nan), *(np.zeros(s, bool) for s in ((2, 1), 2, (2, 1))))
    assert none.rate().value == 0 and none.rate().error > 0 and math.isnan(none.rmse().value)


def test_matches_of_guesses_with_all_that_can_be_wrong():
    rng = np.random.default_rng(0)
    truth = [perovskite(), perovskite(), perovskite()]
    near, swapped = noisy(perovskite(), rng, 0.005, 0.01), perovskite(("Ti", "Sr", "O", "O", "O"))
    touching = core.Structure(
        core.Lattice.cubic(3.9), perovskite().species, [[0, 0, 0], [0.05, 0, 0], *IDEAL[2:]]
    )
    calls = []
    result = match(
        [[swapped, near, None], [near], [touching, near]],
        truth,
        progress=lambda a, b: calls.append((a, b)),
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]
    expected = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10).get_rms_dist(near, perovskite())[
        0
    ]
    assert (
        np.isnan(result.rms[0, 0])
        and np.isnan(result.rms[0, 2])
        and np.isnan(result.rms[1, 1:]).all()
    )
    np.testing.assert_allclose(
        [result.rms[0, 1], result.rms[1, 0], result.rms[2, 1]], expected, atol=1e-8
    )
    assert result.valid.tolist() == [
        [True, True, False],
        [True, False, False],
        [False, True, False],
    ]
    assert result.truth_valid.all() and not result.failed.any()
    assert result.rate(1).value == pytest.approx(1 / 3) and result.rate(2).value == 1
    # a truth whose composition is not valid matches nothing, as in DiffCSP
    refused = match([[near]], truth[:1], valid_composition=lambda structure: False)
    assert refused.rate().value == 0 and not refused.truth_valid.any()
    with pytest.raises(InputError, match="2 lists of guesses for 1 structures"):
        match([[near], [near]], truth[:1])


def test_structural_validity():
    assert structurally_valid(perovskite())
    cell = core.Lattice.cubic(4.0)
    assert not structurally_valid(
        core.Structure(cell, ["C", "C"], [[0, 0, 0], [0.12, 0, 0]])
    )  # 0.48 Å
    assert structurally_valid(core.Structure(cell, ["C", "C"], [[0, 0, 0], [0.13, 0, 0]]))
    assert not structurally_valid(
        core.Structure(cell, ["C", "C"], [[0.97, 0, 0], [0.05, 0, 0]])
    )  # across the border
    assert not structurally_valid(core.Structure(core.Lattice.cubic(0.4), ["C"], [[0, 0, 0]]))
    assert not structurally_valid(core.Structure(cell, ["C"], [[math.nan, 0, 0]]))


def test_processes_give_the_same_answers():
    rng = np.random.default_rng(1)
    truth = [perovskite(a=a) for a in np.linspace(3.6, 4.4, 17)]
    predicted = [[noisy(s, rng, 0.05, 0.03) for _ in range(2)] for s in truth]
    calls = []
    shared = match(predicted, truth, workers=2, progress=lambda done, items: calls.append(done))
    alone = match(predicted, truth)
    np.testing.assert_array_equal(shared.rms, alone.rms)
    np.testing.assert_array_equal(shared.valid, alone.valid)
    assert calls == list(range(1, 18)) and 0 < alone.rate().value <= 1


def test_a_pair_that_hangs_or_raises_is_given_up_and_counted(monkeypatch):
    plain = CellMatcher.rms

    def rms(self, first, second):
        if abs(first.volume - 64) < 1:
            time.sleep(30)
        if abs(first.volume - 125) < 1:
            raise RuntimeError("broken")
        return plain(self, first, second)

    monkeypatch.setattr(CellMatcher, "rms", rms)
    begin = time.monotonic()
    guesses = [perovskite(a=4.0), perovskite(a=5.0), perovskite(a=3.9)]
    result = match([guesses], [perovskite()], timeout=0.5)
    assert time.monotonic() - begin < 10
    assert result.failed.tolist() == [[True, True, False]] and result.rms[0, 2] < 1e-6
    assert math.isnan(result.rms[0, 0]) and result.valid.all()


def test_ceiling_by_hand():
    def swapped(a=3.9):
        return perovskite(("Ti", "Sr", "O", "O", "O"), a)

    other = perovskite(("Ba", "Zr", "O", "O", "O"), 4.1)
    third = perovskite(("K", "Nb", "O", "O", "O"), 4.0)
    # SrTiO3: twice one way, once the other; BaZrO3 once; KNbO3 once, the training set has it the
    # other way
    test = [perovskite(), perovskite(a=3.95), swapped(), other, third]
    training = [
        swapped(4.0),
        perovskite(("Nb", "K", "O", "O", "O"), 4.0),
        perovskite(("Rb", "Ta", "O", "O", "O")),
    ]
    found = ceiling(test, training)
    assert found.structures == 5 and found.compositions == 3
    assert found.one_guess == pytest.approx(4 / 5)
    assert found.several == pytest.approx(2 / 3)
    assert found.drawn == pytest.approx((0.5 * 3 + 1 + 0.5) / 5)
    assert found.in_training == pytest.approx(4 / 5)
    assert found.repeated == pytest.approx((1 + 0) / 4)
    assert found.other == pytest.approx((2 + 1) / 4)
    alone = ceiling(test)
    assert (
        alone.one_guess == pytest.approx(4 / 5)
        and alone.in_training == 0
        and alone.several == pytest.approx(1 / 3)
    )
    with pytest.raises(InputError, match="4 structures of SrTiO3"):
        ceiling(test, training, max_group=3)
    with pytest.raises(InputError, match="empty"):
        ceiling([])


@pytest.fixture(autouse=True)
def quiet():
    """Lattices of noise make pymatgen warn; that is not what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
