"""The wrapped-normal process: schedule, noising, density and score."""

import math

import pytest
import scipy.stats
import torch

from orbitwise.errors import InputError
from orbitwise.processes.wrapped_normal import WrappedNormalProcess


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_schedule_is_geometric_between_its_ends():
    process = WrappedNormalProcess(0.004, 0.9)
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    sigma = process.wrapped_sigma(t)
    assert abs(sigma[0] - 0.9) < 1e-15 and abs(sigma[-1] - 0.004) < 1e-15
    torch.testing.assert_close(
        sigma[1:] / sigma[:-1], torch.full((6,), (0.004 / 0.9) ** (1 / 6)).double()
    )


@pytest.mark.parametrize("t", [0.0, 0.4, 0.8, 1.0])
def test_perturbed_points_have_the_density(t):
    """Residuals of 2·10⁵ draws against the distribution function summed over images."""
    process = WrappedNormalProcess(0.01, 0.6)
    x1 = torch.tensor([[0.02], [0.9]], dtype=torch.float64).expand(100_000, 2, 1)
    times = torch.full((100_000,), t, dtype=torch.float64)
    xt = process.perturb(x1, times, generator=rng(1))
    assert ((xt >= 0) & (xt < 1)).all()
    sigma = process.wrapped_sigma(times[0]).item()
    r = (xt - x1).flatten().numpy()
    r -= r.round()

    def cdf(y):
        images = range(-8, 9)
        norm = scipy.stats.norm(scale=sigma)
        return sum(norm.cdf(y + m) - norm.cdf(m - 0.5) for m in images)

    assert scipy.stats.kstest(r, cdf).pvalue > 1e-4


def test_density_integrates_to_one_over_the_cell_and_sums_over_axes():
    process, x1 = WrappedNormalProcess(0.02, 0.7), torch.tensor([[0.1, 0.8]], dtype=torch.float64)
    grid = (torch.arange(300, dtype=torch.float64) + 0.5) / 300
    cell = torch.cartesian_prod(grid, grid)[:, None]  # one point in the plane
    for t in (0.0, 0.5, 1.0):
        log_p = process.log_density(cell, x1, torch.tensor(t, dtype=torch.float64))
        assert abs(log_p.exp().mean() - 1) < 1e-10


def test_padding_and_broadcasting():
    process = WrappedNormalProcess()
    x1 = torch.rand(4, 5, 3, generator=rng(2), dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([5, 3, 1, 4])[:, None]
    x1 = torch.where(mask[..., None], x1, 9.5)
    t = torch.rand(4, generator=rng(3), dtype=torch.float64)
    xt = process.perturb(x1, t, generator=rng(4), mask=mask)
    assert (xt[~mask] == 9.5).all()
    score = process.score(xt, x1, t, mask=mask)
    assert (score[~mask] == 0).all()
    other = torch.where(mask[..., None], xt, torch.rand(4, 5, 3, dtype=torch.float64))
    assert torch.equal(
        process.log_density(xt, x1, t, mask), process.log_density(other, x1, t, mask)
    )
    many = process.log_density(xt, torch.stack([x1, xt]), t, mask)
    assert many.shape == (2, 4)
    assert torch.equal(many[0], process.log_density(xt, x1, t, mask))
    by_hand = process.log_density(xt[1:2, :3], x1[1:2, :3], t[1:2])
    assert abs(many[0, 1] - by_hand[0]) < 1e-12
    prior = process.prior((4, 5, 3), generator=rng(5), mask=mask)
    assert (
        ((prior >= 0) & (prior < 1)).all() and (prior[~mask] == 0).all() and prior[mask].std() > 0.2
    )


def test_small_noise_is_an_ordinary_gaussian():
    process = WrappedNormalProcess(0.001, 0.5)
    x1 = torch.full((1, 3, 2), 0.5, dtype=torch.float64)
    xt = x1 + 0.002 * torch.randn(1, 3, 2, generator=rng(6), dtype=torch.float64)
    t = torch.ones(1, dtype=torch.float64)
    normal = -0.5 * ((xt - x1) / 0.001) ** 2 - math.log(0.001 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(
        process.log_density(xt, x1, t), normal.sum((1, 2)), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(process.score(xt, x1, t), (x1 - xt) / 1e-6, rtol=1e-9, atol=0)


@pytest.mark.parametrize("ends", [(0.0, 0.5), (0.5, 0.1), (0.1, math.inf), (-1.0, 1.0)])
def test_impossible_schedules_are_refused(ends):
    with pytest.raises(InputError, match="sigma_min"):
        WrappedNormalProcess(*ends)


def test_reproducible_and_leaves_the_global_generator_alone():
    process, x1, t = WrappedNormalProcess(), torch.rand(2, 3, 3), torch.rand(2)
    before = torch.random.get_rng_state()
    a, b = (process.perturb(x1, t, generator=rng(7)) for _ in range(2))
    process.prior((2, 3, 3), generator=rng(7))
    assert torch.equal(a, b) and torch.equal(before, torch.random.get_rng_state())
