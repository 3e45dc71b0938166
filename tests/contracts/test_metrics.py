"""Every metric of the package, found in the tables of ``orbitwise.metrics`` and of the three kinds
of matter, keeps the same promises.

A metric is a public function. A new one gives a line in ``CASES``: two sets that it compares (or
one that it measures), the numbers it gives for them, and what they are for a perfect answer. Names
that are no metrics of samples stand in ``OTHERS``, each with the place of its own tests.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import orbitwise.crystals as crystals
import orbitwise.metrics as metrics
import orbitwise.molecules as molecules
import orbitwise.proteins as proteins
from orbitwise.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
Numbers = list[float]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def flat(value: Any) -> Numbers:
    return torch.as_tensor(value, dtype=torch.float64).flatten().tolist()


@dataclass(frozen=True)
class Case:
    """``of(x)`` or ``of(x, y)``: the numbers of sets ``x`` and ``y``, in whose order they
    must not depend. ``perfect``: what they are where ``y`` is ``x``, or, of one set, where it
    is ``ideal``. ``empty``: it is an ``InputError`` to give no samples."""

    of: Callable[..., Numbers]
    x: Tensor
    y: Tensor | None = None
    perfect: Numbers | None = None
    ideal: Tensor | None = None
    tolerance: float = 1e-7
    empty: bool = True


ANGLES, OTHER_ANGLES = 2 * normal(300, 2), 2 * normal(300, 2, seed=1) + 1
SHAPES, OTHER_SHAPES = normal(12, 4, 3), 1.3 * normal(12, 4, 3, seed=1)
NUMBERS, OTHER_NUMBERS = normal(200), normal(200, seed=1) + 1
COUNTS = torch.tensor([5.0, 0, 3, 7], dtype=torch.float64)
OTHER_COUNTS = torch.tensor([1.0, 4, 3, 2], dtype=torch.float64)
CHAINS = normal(4, 400)  # four chains that mix
MEANS = torch.tensor([[-4.0, 0], [4.0, 0]], dtype=torch.float64)


def modes(x: Tensor) -> Numbers:
    found = metrics.mixture_modes(x, MEANS, torch.ones(2, 2), torch.tensor([0.5, 0.5]), repeats=20)
    return [found.largest.value, found.total_variation.value]


def wells(x: Tensor) -> Numbers:
    found = metrics.well_coverage(x, 0.25, repeats=20)
    return [found.largest.value, found.rms.value, found.correlation.value]


def four_wells() -> Tensor:
    """Two wells, a quarter in the minor side of each, independent."""
    side = torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64)
    pairs = torch.cartesian_prod(side, side)
    return torch.stack([pairs[:, 0], pairs[:, 0] * 0, pairs[:, 1], pairs[:, 1] * 0], 1)


def two_modes() -> Tensor:
    noise = 0.1 * normal(100, 2)
    return torch.cat([MEANS[0] + noise, MEANS[1] - noise])


# -- molecules, chains, crystals -------------------------------------------------------------------


@cache
def butanol():
    return molecules.parse_smiles("CCCO")


@cache
def conformers(seed: int = 0) -> Tensor:
    return torch.as_tensor(molecules.embed(butanol(), 8, seed)).double()


def rmsd(x: Tensor, y: Tensor) -> Tensor:
    return molecules.symmetric_rmsd(x, y, molecules.matching(butanol()))


def nearest(distances: Tensor) -> Numbers:
    return [float(distances.min(1).values.mean()), float(distances.min(0).values.mean())]


def covered(x: Tensor, y: Tensor) -> Numbers:
    (found,) = molecules.coverages([butanol()], [x], [y], workers=1)
    return [found.recall_amr, found.precision_amr, *found.recall_cov, *found.precision_cov]


def found_conformers(x: Tensor) -> molecules.Clusters:
    energy = molecules.MMFF94(butanol()).double()(x)
    return molecules.find_conformers(x, energy, molecules.matching(butanol()))


def labels(x: Tensor) -> Numbers:
    known = found_conformers(conformers())
    return sorted(flat(molecules.assign(x, known, molecules.matching(butanol()))))


def shares(label: Tensor) -> Numbers:
    found = molecules.populations(label.long(), 3)
    return [*flat(found.population), *flat(found.error)]


def helices(count: int = 5, seed: int = 0) -> Tensor:
    """Cα of right-handed helices of ten residues with a little noise, ``(count, 10, 3)``."""
    torsions = torch.tensor([-60.0, -45.0])[:, None].expand(2, 10)
    ca = torch.as_tensor(proteins.build_backbone(*torsions)).double()[:, 1]
    return ca + 0.05 * normal(count, 10, 3, seed=seed)


def whole(ca: Tensor) -> Tensor:
    return torch.ones(ca.shape[:2], dtype=torch.bool)


def turns(ca: Tensor) -> Numbers:
    found = proteins.handedness(ca, whole(ca))
    return [float(found.left), 1.0 if not len(ca) else found.share_right]


def likeness(x: Tensor, y: Tensor) -> Numbers:
    return sorted(flat(proteins.nearest_chain(x, whole(x), y, whole(y)).score))


def structures(x: Tensor) -> list:
    """Rock salt with the second atom moved by ``x (n, 3)`` of the cell."""
    from pymatgen.core import Lattice, Structure

    cell = Lattice.cubic(4.0)
    return [Structure(cell, ["Na", "Cl"], [[0, 0, 0], (0.5 + d).tolist()]) for d in x]


def matched(x: Tensor, y: Tensor) -> Numbers:
    found = crystals.match([[s] for s in structures(x)], structures(y), workers=1)
    return [float(np.nanmean(found.rms)), float(np.isfinite(found.rms).mean())]


def valid(x: Tensor) -> Numbers:
    return [float(np.mean([crystals.structurally_valid(s) for s in structures(x)]))]


SMALL_SHIFTS, OTHER_SHIFTS = 0.02 * normal(3, 3), 0.03 * normal(3, 3, seed=1)


def value(result: Any) -> Numbers:
    return [result.value]


CASES: dict[str, Case] = {
    "torus_distances": Case(
        lambda x, y: nearest(metrics.torus_distances(x, y)),
        ANGLES[:50],
        OTHER_ANGLES[:50],
        [0, 0],
        empty=False,
    ),
    "torus_w2": Case(
        lambda x, y: [float(metrics.torus_w2(x, y, generator=generator()).value < 2.5)],
        ANGLES,
        OTHER_ANGLES,
        [1],
    ),
    "angle_histogram": Case(lambda x: flat(metrics.angle_histogram(x, 6)), ANGLES, empty=False),
    "angle_kl": Case(lambda x, y: value(metrics.angle_kl(x, y)), ANGLES, OTHER_ANGLES, [0]),
    "compare_angles": Case(
        lambda x, y: value(metrics.compare_angles(x, y, repeats=3)), ANGLES, OTHER_ANGLES, [0]
    ),
    "aligned_distance": Case(
        lambda x, y: nearest(metrics.aligned_distance(x, y)),
        SHAPES,
        OTHER_SHAPES,
        [0, 0],
        tolerance=1e-6,
        empty=False,
    ),
    "published_distance": Case(
        lambda x, y: nearest(metrics.published_distance(x, y)),
        SHAPES,
        OTHER_SHAPES,
        [0, 0],
        tolerance=1e-6,
        empty=False,
    ),
    "symmetric_w2": Case(
        lambda x, y: [metrics.symmetric_w2(x, y)], SHAPES, OTHER_SHAPES, [0], tolerance=1e-6
    ),
    "compare_distances": Case(
        lambda x, y: list(vars(metrics.compare_distances(x, y)).values()),
        SHAPES,
        OTHER_SHAPES,
        [0, 0],
    ),
    "total_variation": Case(
        lambda x, y: [metrics.total_variation(x, y, 0.2)], NUMBERS, OTHER_NUMBERS, [0], empty=False
    ),
    "wasserstein": Case(
        lambda x, y: [metrics.wasserstein(x, y)], SHAPES, OTHER_SHAPES, [0], tolerance=1e-6
    ),
    "wasserstein_1d": Case(
        lambda x, y: [metrics.wasserstein_1d(x, y)], NUMBERS, OTHER_NUMBERS, [0]
    ),
    "wasserstein_from_distances": Case(
        lambda x, y: [metrics.wasserstein_from_distances((x[:, None] - y).abs())],
        NUMBERS,
        OTHER_NUMBERS,
        [0],
    ),
    "js_divergence": Case(
        lambda x, y: flat(metrics.js_divergence(x, y)), COUNTS, OTHER_COUNTS, [0]
    ),
    "kl_divergence": Case(
        lambda x, y: flat(metrics.kl_divergence(x, y)), COUNTS, OTHER_COUNTS, [0], empty=False
    ),
    "pareto_k": Case(lambda x: [metrics.pareto_k(x)], NUMBERS, perfect=None, empty=False),
    "mixture_modes": Case(modes, 4 * normal(100, 2), perfect=[0, 0], ideal=two_modes()),
    "well_coverage": Case(wells, normal(100, 4), perfect=[0, 0, 0], ideal=four_wells()),
    "block_average": Case(
        lambda x: flat(metrics.block_average(x, 10).mean),
        CHAINS,
        perfect=[2.5],
        ideal=torch.full((3, 40), 2.5, dtype=torch.float64),
    ),
    "effective_sample_size": Case(lambda x: flat(metrics.effective_sample_size(x)), CHAINS),
    "rank_effective_sample_size": Case(
        lambda x: flat(metrics.rank_effective_sample_size(x)), CHAINS
    ),
    "split_rhat": Case(lambda x: flat(metrics.split_rhat(x)), CHAINS),
    "statistical_inefficiency": Case(lambda x: flat(metrics.statistical_inefficiency(x)), CHAINS),
    # molecules
    "symmetric_rmsd": Case(
        lambda x, y: nearest(rmsd(x, y)),
        conformers(),
        conformers(1),
        [0, 0],
        tolerance=1e-5,
        empty=False,
    ),
    "coverages": Case(covered, conformers(), conformers(1), [0, 0, *[1] * 6], tolerance=1e-5),
    "find_conformers": Case(
        lambda x: sorted(flat(found_conformers(x).energy)), conformers(), empty=False
    ),
    "assign": Case(labels, conformers(1), empty=False),
    "populations": Case(shares, torch.tensor([0, 0, 1, 2, 2, 2, 0, 1]).double(), empty=False),
    # proteins
    "clashes": Case(
        lambda ca: sorted(flat(proteins.clashes(ca, whole(ca)))),
        0.3 * helices(),
        perfect=[0] * 5,
        ideal=helices(),
        empty=False,
    ),
    "radius_of_gyration": Case(
        lambda ca: sorted(flat(proteins.radius_of_gyration(ca, whole(ca)))),
        helices(),
        perfect=[0] * 2,
        ideal=torch.zeros(2, 10, 3, dtype=torch.float64),
        empty=False,
    ),
    "handedness": Case(turns, -helices(), perfect=[0, 1], ideal=helices(), empty=False),
    "nearest_chain": Case(
        likeness, helices(), helices(seed=1), [1] * 5, tolerance=1e-6, empty=False
    ),
    # crystals
    "match": Case(matched, SMALL_SHIFTS, OTHER_SHIFTS, [0, 1], tolerance=1e-6, empty=False),
    "structurally_valid": Case(
        valid, SMALL_SHIFTS + 0.5, perfect=[1], ideal=0 * SMALL_SHIFTS, empty=False
    ),
}

OTHERS = {  # public functions beside them that judge no set of samples: where they are tested
    "dihedral": "molecules/metrics/test_torsions.py",
    "pair_distances": "metrics/test_transport.py",
    "matching": "molecules/metrics/test_conformers.py",
    "heavy_matching": "molecules/metrics/test_coverage.py",
    "find_torsions": "molecules/metrics/test_torsions.py",
    "map_pair": "molecules/metrics/test_torsions.py",
    "torsion_word": "molecules/metrics/test_torsions.py",
    "ceiling": "crystals/matching/test_match.py",
    "generation_metrics": "crystals/validity/test_generation.py",
    "natural_cutoffs": "crystals/validity/test_generation.py",
    "charge_neutral": "crystals/validity/test_generation.py",
}
ROOMS = {  # modules whose public functions are metrics
    metrics: "",
    molecules: "metrics.",
    proteins: ("geometry", "tm_score"),
    crystals: ("matching", "validity"),
}


def found() -> set[str]:
    names = set()
    for package, where in ROOMS.items():
        for name in package.__all__:
            made = getattr(package, name)
            inside = getattr(made, "__module__", "").removeprefix(f"{package.__name__}.")
            if inspect.isfunction(made) and inside.startswith(where):
                names.add(name)
    return names


EVERY = pytest.mark.parametrize("name", CASES)
PAIRS = pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.y is not None])


@pytest.fixture(autouse=True)
def installed(request):
    if getattr(request.node, "callspec", None) and request.node.callspec.params["name"] in (
        "match",
        "structurally_valid",
    ):
        pytest.importorskip("pymatgen.core", reason="needs orbitwise[crystals]")


def test_every_metric_has_a_case():
    assert found() == {*CASES, *OTHERS}
    for name, path in OTHERS.items():
        assert name in (ROOT / path).read_text(), f"{path} does not test {name}"


def numbers(case: Case, *sets: Tensor) -> Numbers:
    return case.of(*(s.clone() for s in sets))


def given(case: Case) -> tuple[Tensor, ...]:
    return (case.x,) if case.y is None else (case.x, case.y)


@EVERY
def test_finite_reproducible_and_does_not_change_its_input(name):
    case = CASES[name]
    before = [s.clone() for s in given(case)]
    state = torch.random.get_rng_state()
    a, b = case.of(*given(case)), case.of(*given(case))
    assert a and all(map(math.isfinite, a))
    if name != "compare_angles" or torch.equal(state, torch.random.get_rng_state()):
        assert a == b
    assert all(torch.equal(s, t) for s, t in zip(before, given(case), strict=True))


@PAIRS
def test_the_same_set_is_perfect_and_another_one_is_not(name):
    case = CASES[name]
    same = numbers(case, case.x, case.x)
    assert same == pytest.approx(case.perfect, abs=case.tolerance)
    if name != "torus_w2":  # it is thinned at random: only bounded
        assert numbers(case, *given(case)) != pytest.approx(case.perfect, abs=1e-3)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.ideal is not None])
def test_the_ideal_set_is_perfect_and_another_one_is_not(name):
    case = CASES[name]
    assert numbers(case, case.ideal) == pytest.approx(case.perfect, abs=case.tolerance)
    assert numbers(case, case.x) != pytest.approx(case.perfect, abs=1e-3)


@EVERY
def test_the_order_of_samples_does_not_matter(name):
    case = CASES[name]
    sets = given(case)
    if name in ("js_divergence", "kl_divergence", "match"):  # bins and pairs move together
        order = torch.randperm(len(case.x), generator=generator(3))
        orders = [order] * len(sets)
    else:
        orders = [torch.randperm(len(s), generator=generator(3 + k)) for k, s in enumerate(sets)]
    moved = [s[order] for s, order in zip(sets, orders, strict=True)]
    a, b = numbers(case, *sets), numbers(case, *moved)
    assert b == pytest.approx(a, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.empty])
def test_no_samples_are_refused(name):
    case = CASES[name]
    with pytest.raises(InputError):
        numbers(case, *(s[:0] for s in given(case)))
