"""Mixtures of von Mises laws. Oracles: scipy's von Mises law, quadrature, finite differences, the
published profile of butane."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from orbitwise.errors import InputError
from orbitwise.processes import ProductMixture, VonMisesMixture, fit_products, fit_von_mises
from orbitwise.processes.von_mises import even_angles, log_von_mises, sample_von_mises
from orbitwise.processes.von_mises_fit import concentration_of

KAPPAS = (1e-3, 0.1, 1.0, 20.0, 100.0, 1e4)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def mixture(dtype=torch.float64):
    return VonMisesMixture(
        torch.tensor([[0.2, 0.5, 0.3], [0.8, 0.1, 0.1]], dtype=dtype).log(),
        torch.tensor([[-2.0, 0.3, 2.5], [3.1, 1.0, -1.0]], dtype=dtype),
        torch.tensor([[3.0, 30.0, 8.0], [0.5, 50.0, 200.0]], dtype=dtype),
    )


@pytest.mark.parametrize("kappa", KAPPAS)
def test_density_integrates_to_one_and_is_finite_in_float32(kappa):
    angles = even_angles(20_000, torch.zeros((), dtype=torch.float64))
    k = torch.tensor(kappa, dtype=torch.float64)
    mass = log_von_mises(angles, torch.tensor(0.4, dtype=torch.float64), k).exp().mean()
    assert abs(mass * 2 * math.pi - 1) < 1e-9
    single = log_von_mises(angles.float(), torch.tensor(0.4), k.float())
    exact = torch.from_numpy(stats.vonmises.logpdf(angles.float().double().numpy(), kappa, 0.4))
    assert torch.isfinite(single).all()
    if kappa < 5000:  # scipy's own sum is exact there
        torch.testing.assert_close(single.double(), exact, rtol=2e-6, atol=2e-5)


def test_slope_of_the_normaliser_is_that_of_a_finite_difference():
    k = torch.tensor(KAPPAS, dtype=torch.float64, requires_grad=True)
    value = log_von_mises(torch.tensor(0.7), torch.tensor(0.2), k)
    (slope,) = torch.autograd.grad(value.sum(), k)
    h = 1e-5 * k.detach()
    up, down = (
        log_von_mises(torch.tensor(0.7), torch.tensor(0.2), k.detach() + s * h) for s in (1, -1)
    )
    torch.testing.assert_close(slope, (up - down) / (2 * h), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kappa", (0.0, 1e-9, 1e-6, 3e-5, 1e-3, 0.5, 5.0, 80.0, 1e4, 1e8))
def test_samples_pass_kolmogorov_smirnov(kappa):
    mean = torch.full((4000,), 2.8, dtype=torch.float64)
    drawn = sample_von_mises(mean, torch.full_like(mean, kappa), generator=gen(3))
    assert (drawn >= -math.pi).all() and (drawn < math.pi).all()
    away = torch.remainder(drawn - mean + math.pi, 2 * math.pi) - math.pi
    law = (
        stats.uniform(-math.pi, 2 * math.pi)
        if kappa < 1e-8
        else stats.vonmises(kappa)
        if kappa < 1e5
        else stats.norm(scale=kappa**-0.5)
    )
    assert stats.kstest(away.numpy(), law.cdf).pvalue > 1e-3


def test_samples_of_a_mixture_follow_its_density():
    """KS against the integral of the density; float32 parameters; no draw from the global
    stream."""
    before = torch.random.get_rng_state()
    law = mixture(torch.float32)
    drawn = law.sample((20_000,), generator=gen(1))
    assert drawn.shape == (20_000, 2) and drawn.dtype == torch.float32
    assert torch.equal(drawn, law.sample((20_000,), generator=gen(1)))
    assert torch.equal(before, torch.random.get_rng_state())
    grid = even_angles(40_000, torch.zeros((), dtype=torch.float64))
    p = mixture().on_grid(40_000).exp() * 2 * math.pi / 40_000
    for row in range(2):
        cdf = np.cumsum(p[row].numpy())
        found = stats.kstest(
            drawn[:, row].double().numpy(), lambda t, c=cdf: np.interp(t, grid.numpy(), c)
        )
        assert found.pvalue > 1e-3


def test_products_factorise_and_keep_correlation():
    one = mixture()
    pair = ProductMixture(
        one.log_weight[0],
        torch.stack([one.mean[0], one.mean[1]], -1),
        torch.stack([one.concentration[0], one.concentration[1]], -1),
    )
    x = torch.tensor([0.3, -1.2], dtype=torch.float64)
    parts = [
        math.exp(pair.log_weight[k])
        * stats.vonmises.pdf(0.3, pair.concentration[k, 0], pair.mean[k, 0])
        * stats.vonmises.pdf(-1.2, pair.concentration[k, 1], pair.mean[k, 1])
        for k in range(3)
    ]
    assert abs(pair.log_density(x).exp() - sum(parts)) < 1e-12
    drawn = pair.sample((20_000,), generator=gen(2))
    value = torch.cos(drawn[:, 0] - drawn[:, 1])
    grid = even_angles(400, x)
    at = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1)
    p = pair.log_density(at).exp()
    exact = (p * torch.cos(at[..., 0] - at[..., 1])).sum() / p.sum()
    assert (value.mean() - exact).abs() < 4 * value.std() / 20_000**0.5


def test_reflection_and_divergence():
    law = mixture()
    x = torch.linspace(-3, 3, 50, dtype=torch.float64).unsqueeze(-1).expand(50, 2)
    torch.testing.assert_close(law.reflected.log_density(-x), law.log_density(x))
    p = law.on_grid(2000).softmax(-1)
    assert law.kl_from(p).abs().max() < 1e-9
    other = law.reflected.on_grid(2000).softmax(-1)
    brute = (p * (p / other).log()).sum(-1)
    torch.testing.assert_close(law.reflected.kl_from(p), brute, rtol=1e-9, atol=1e-9)


def test_concentration_inverts_the_mean_resultant():
    k = torch.tensor((1e-6, 1e-3, 0.5, 3.0, 40.0, 1e3, 1e4), dtype=torch.float64)
    ratio = torch.special.i1e(k) / torch.special.i0e(k)
    torch.testing.assert_close(concentration_of(ratio), k, rtol=1e-6, atol=1e-9)


def test_fit_finds_the_law_of_many_samples_and_is_reproducible():
    law = mixture()
    data = law.sample((20_000,), generator=gen(4))
    fitted = fit_von_mises(data, 3, generator=gen(5))
    assert torch.equal(fitted.mean, fit_von_mises(data, 3, generator=gen(5)).mean)
    divergence = fitted.kl_from(law.on_grid(1000).softmax(-1))
    # The likelihood ratio of 8 parameters: 2 n KL has mean 8 and standard deviation 4.
    assert (2 * 20_000 * divergence < 8 + 5 * 4).all()
    first, order = fitted.mean[0].sort()
    torch.testing.assert_close(first, law.mean[0], atol=0.06, rtol=0)
    torch.testing.assert_close(
        fitted.log_weight[0, order].exp(), law.log_weight[0].exp(), atol=0.02, rtol=0
    )


def test_weights_count_rows_and_a_floor_stays():
    data = mixture().sample((300,), generator=gen(6))
    weight = torch.randint(0, 3, data.shape, generator=gen(7)).double()
    twice = torch.stack(
        [c.repeat_interleave(w.long())[:250] for c, w in zip(data.T, weight.T, strict=True)], -1
    )
    kept = torch.zeros_like(weight)
    for row in range(2):  # the weights that make the first 250 of the repeated rows
        kept[:, row] = weight[:, row] - (weight[:, row].cumsum(0) - 250).clamp_min(0).minimum(
            weight[:, row]
        )
    one = fit_von_mises(data, 1, weight=kept)
    two = fit_von_mises(twice, 1)
    torch.testing.assert_close(one.mean, two.mean)
    torch.testing.assert_close(one.concentration, two.concentration)
    floored = fit_von_mises(data, 2, floor=0.1, generator=gen(0))
    assert floored.mean.shape == (2, 3)
    assert (floored.on_grid(720) > math.log(0.1 / (2 * math.pi)) - 1e-9).all()
    assert (floored.on_grid(720).exp().mean(-1) * 2 * math.pi - 1).abs().max() < 1e-9


def test_joint_fit_separates_correlated_wells():
    """Two wells on the diagonal: a product of marginals would put half the mass off it."""
    law = ProductMixture(
        torch.zeros(2, dtype=torch.float64),
        torch.tensor([[1.0, 1.0], [-2.0, -2.0]], dtype=torch.float64),
        torch.full((2, 2), 20.0, dtype=torch.float64),
    )
    data = law.sample((4000,), generator=gen(8))
    fitted = fit_products(data, 2, generator=gen(9))
    gain = fitted.log_density(data) - law.log_density(data)
    assert 0 < 2 * gain.sum() < 9 + 5 * 18**0.5  # likelihood ratio of nine parameters


def test_butane_needs_four_components():
    """Jorgensen's butane at 300 K: trial figures KL .718, .274, .0124, .0028 for K = 1 .. 4."""
    phi = even_angles(720, torch.zeros((), dtype=torch.float64)) + math.pi
    v = 0.5 * (1.411 * (1 + phi.cos()) - 0.271 * (1 - (2 * phi).cos()))
    v = v + 0.5 * 3.145 * (1 + (3 * phi).cos())
    p = (-v / 0.593).softmax(-1)
    p = p.roll(360)  # from -π on
    grid = even_angles(720, p)
    found = [
        float(fit_von_mises(grid, k, weight=p, restarts=6, steps=300, generator=gen(k)).kl_from(p))
        for k in (1, 2, 3, 4, 6)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.3 and found[2] < 0.03 and found[3] < 0.005


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="one shape"):
        VonMisesMixture(torch.zeros(3), torch.zeros(3), torch.zeros(2))
    with pytest.raises(InputError, match="D angles"):
        ProductMixture(torch.zeros(3), torch.zeros(2, 4), torch.zeros(3, 4))
    with pytest.raises(InputError, match="not finite"):
        fit_von_mises(torch.tensor([0.0, math.nan]), 1)
    with pytest.raises(InputError, match="floor of 1"):
        fit_von_mises(torch.zeros(4), 1, floor=1.0)
