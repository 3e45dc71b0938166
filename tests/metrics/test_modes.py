"""Mode coverage on exact samples (nothing to see), on samples with known defects, and by
quadrature."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import binom

from orbitwise.energies import GaussianMixture, ManyWell
from orbitwise.errors import InputError
from orbitwise.metrics.modes import mixture_modes, well_coverage


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture(x, energy, **options):
    return mixture_modes(x, energy.means, energy.scales, energy.weights, **options)


def test_exact_samples_of_the_forty_look_exact():
    energy = GaussianMixture.forty()
    runs = [
        mixture(energy.sample((4000,), generator=gen(seed)), energy, repeats=200)
        for seed in range(40)
    ]
    assert all(r.found == 40 for r in runs)
    # about 5 % above the 95 % quantile: 99.9 % of binomial(40, 0.05) is at most 7
    assert (
        sum(r.largest.excess for r in runs) <= 7
        and sum(r.total_variation.excess for r in runs) <= 7
    )
    mean = sum(r.largest.value for r in runs) / 40
    assert mean == pytest.approx(runs[0].largest.exact_mean, rel=0.15)
    pulls = torch.stack([(r.weight - r.exact) / r.error for r in runs])
    assert abs(float(pulls.mean())) < 0.1 and float(pulls.std()) == pytest.approx(1.0, abs=0.07)
    assert max(r.outside for r in runs) < 1e-3


def test_overlapping_components_are_weighed_without_bias():
    # Components half a standard deviation apart: the nearest is right half of the time at best.
    energy = GaussianMixture(
        torch.tensor([[0.0], [0.5], [9.0]]), 1.0, torch.tensor([0.6, 0.3, 0.1])
    )
    found = mixture(energy.sample((200_000,), generator=gen(0)).double(), energy)
    assert ((found.weight - energy.weights).abs() < 4 * found.error + 1e-9).all()
    assert found.error.max() < 0.01


def test_missing_and_heavy_modes_are_seen():
    energy = GaussianMixture.forty()
    x = energy.sample((5000,), generator=gen(1))
    label = (x[:, None] - energy.means).norm(dim=-1).argmin(1)
    apart = torch.cdist(energy.means, energy.means).fill_diagonal_(math.inf).min(1).values
    lonely = int(apart.argmax())  # no overlap with any other
    found = mixture(x[label != lonely], energy)
    assert found.count[lonely] == 0 and found.found == 39
    assert found.weight[lonely] < 1e-6
    double = mixture(torch.cat([x, x[label == lonely]]), energy)  # one mode drawn twice as often
    share = float((label == lonely).double().mean())
    assert double.largest.excess
    assert double.weight[lonely] == pytest.approx(2 * share / (1 + share), abs=1e-4)
    assert double.total_variation.value > found.total_variation.exact_mean


def test_samples_far_from_everything_find_no_mode():
    energy = GaussianMixture.forty()
    found = mixture(torch.full((50, 2), 100.0), energy)
    assert found.found == 0 and found.outside == pytest.approx(1.0)


def test_importance_weights_repair_the_proportions():
    energy = GaussianMixture(torch.tensor([[-8.0, 0.0], [8.0, 0.0]]), 1.0)
    skewed = GaussianMixture(energy.means, 1.0, torch.tensor([0.9, 0.1]))
    runs = []
    for seed in range(30):
        x = skewed.sample((5000,), generator=gen(seed)).double()
        runs.append(mixture(x, energy, log_weights=skewed(x) - energy(x), repeats=200))
    assert mixture(x, energy).largest.value == pytest.approx(0.4, abs=0.02)
    pulls = torch.stack([(r.weight[0] - 0.5) / r.error[0] for r in runs])
    assert abs(float(pulls.mean())) < 4 / math.sqrt(30) and float(pulls.std()) == pytest.approx(
        1, abs=0.35
    )
    assert sum(r.largest.excess for r in runs) <= 6
    # Kish: 1 / (n Σ w²) = 1 / E_q[(p/q)²] = 1 / (0.9 (0.5/0.9)² + 0.1 (0.5/0.1)²)
    size = sum(r.effective for r in runs) / 30
    assert size / 5000 == pytest.approx(1 / (0.25 / 0.9 + 0.25 / 0.1), rel=0.05)


def test_minor_mass_by_quadrature():
    def density(a):
        return math.exp(-(a**4 - 6 * a * a - a / 2))

    minor, whole = quad(density, -6, 0, epsabs=1e-9)[0], quad(density, -6, 6, epsabs=1e-9)[0]
    assert ManyWell(8).minor_mass == pytest.approx(minor / whole, abs=1e-9)
    assert ManyWell(8).minor_mass == pytest.approx(0.1557, abs=5e-5)


def test_exact_samples_of_the_wells_look_exact():
    energy = ManyWell(32)
    q = energy.minor_mass
    runs = [
        well_coverage(energy.sample((3000,), generator=gen(s)), q, repeats=200) for s in range(40)
    ]
    for name in ("largest", "rms", "total_variation", "correlation"):
        found = [getattr(r, name) for r in runs]
        assert sum(d.excess for d in found) <= 7, name
        assert sum(d.value for d in found) / 40 == pytest.approx(found[0].exact_mean, rel=0.12), (
            name
        )
    pulls = torch.stack([(r.minor - q) / r.error for r in runs])
    assert float(pulls.std()) == pytest.approx(1.0, abs=0.1)
    assert torch.allclose(runs[0].binomial, torch.from_numpy(binom.pmf(range(17), 16, q)))


def test_defects_of_wells_are_seen_where_they_are():
    energy = ManyWell(16)
    q, x = energy.minor_mass, energy.sample((8000,), generator=gen(3))
    fine = well_coverage(x, q)
    missing = x.clone()
    missing[:, 4] = missing[:, 4].abs()  # well 2 never on its minor side
    found = well_coverage(missing, q)
    assert found.minor[2] == 0 and found.largest.value == pytest.approx(q) and found.largest.excess
    assert not fine.largest.excess and not fine.correlation.excess
    # all wells right one by one, but two always on the same side
    tied = x.clone()
    tied[:, 6] = tied[:, 0]
    found = well_coverage(tied, q)
    assert not found.rms.excess
    assert found.correlation.value == pytest.approx(1.0) and found.total_variation.excess


def test_weights_of_wells():
    # Samples with minor mass 1/2 in the first well, reweighted to q: exact again.
    energy = ManyWell(4)
    q, x = energy.minor_mass, energy.sample((40_000,), generator=gen(4))
    x = torch.cat([x, x[x[:, 0] < 0].repeat(4, 1)])
    log_w = torch.where(x[:, 0] < 0, -math.log(5), 0.0)
    assert well_coverage(x, q).largest.value > 0.2
    assert well_coverage(x, q, log_weights=log_w).largest.value < 0.01


def test_many_draws_by_the_normal_law_agree_with_counting():
    from orbitwise.metrics.modes import _multinomial

    p = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    counted, normal = (_multinomial(p, size, 4000, gen(5)) for size in (500, 501))
    assert torch.allclose(counted.std(0), (p * (1 - p) / 500).sqrt(), rtol=0.05)
    assert torch.allclose(counted.std(0), normal.std(0), rtol=0.05)
    assert torch.allclose(normal.sum(-1), torch.ones(4000, dtype=torch.float64))


def test_bad_input_is_refused():
    energy = GaussianMixture.forty()
    with pytest.raises(InputError, match="do not fit"):
        mixture(torch.zeros(4, 3), energy)
    with pytest.raises(InputError, match="not finite"):
        mixture(torch.full((4, 2), math.nan), energy)
    with pytest.raises(InputError, match="2W"):
        well_coverage(torch.zeros(4, 5), 0.2)
    with pytest.raises(InputError, match="log weights"):
        well_coverage(torch.zeros(4, 4), 0.2, log_weights=torch.zeros(3))
