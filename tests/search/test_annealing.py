"""Annealed importance sampling against known normalisers; exact counts; what must be refused."""

import math
from dataclasses import dataclass

import pytest
import torch

from orbitwise.energies import Counted, DoubleWell, GaussianMixture, ManyWell
from orbitwise.energies.base import Energy
from orbitwise.errors import EnergyError, InputError
from orbitwise.search import (
    HMC,
    MALA,
    AdjustedLangevin,
    AnnealingPath,
    Cycle,
    GaussianPrior,
    Info,
    Langevin,
    Schedule,
    State,
    anneal,
    pilot,
)
from orbitwise.search.weights import effective, log_mean, log_mean_error, systematic


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Quadratic(Energy):
    """½ Σ (x/s)², not normalised."""

    def __init__(self, scales):
        super().__init__()
        self.event_shape = tuple(scales.shape)
        self.register_buffer("scales", scales)
        self.log_z = (
            scales.double().log().sum() + 0.5 * len(scales) * math.log(2 * math.pi)
        ).item()

    def forward(self, x):
        return 0.5 * (x / self.scales.to(x)).square().sum(-1)


class Springs(Energy):
    """½ k Σ_{i<j} |x_i - x_j|²: in the subspace a Gaussian of variance 1/(k N) in each of D(N-1)
    directions."""

    zero_com = True

    def __init__(self, n, dim, k):
        super().__init__()
        self.event_shape, self.k = (n, dim), k
        self.log_z = 0.5 * dim * (n - 1) * math.log(2 * math.pi / (k * n))

    def forward(self, x):
        n = self.event_shape[0]
        return 0.5 * self.k * n * (x - x.mean(-2, keepdim=True)).square().sum((-1, -2))


def fixed(levels, step_size):
    return Schedule(
        torch.arange(1, levels + 1, dtype=torch.float64) / levels,
        torch.full((levels,), step_size, dtype=torch.float64),
    )


KERNELS = {"MALA": MALA(), "HMC": HMC(leapfrog_steps=3)}
EVERY = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def test_prior_is_normalised_in_its_dimension():
    """The density of samples against torch.distributions in an orthonormal basis of the
    subspace."""
    prior = GaussianPrior((4, 3), 1.7, zero_com=True).double()
    x = prior.sample((5,), generator=generator())
    basis = torch.linalg.qr(
        torch.cat([torch.ones(4, 1), torch.randn(4, 3, generator=generator(1))], 1).double()
    ).Q[:, 1:]
    inside = torch.einsum("bnd,nk->bkd", x, basis).flatten(1)
    expected = torch.distributions.Normal(0.0, prior.scale).log_prob(inside).sum(-1)
    torch.testing.assert_close(-prior(x), expected)
    torch.testing.assert_close(prior(x + 3.0), prior(x))
    assert x.mean(-2).abs().max() < 1e-12
    many = prior.sample((20000,), generator=generator(2))
    assert (
        abs(many.square().sum((-1, -2)).mean().item() / (9 * 1.7**2) - 1)
        < 4 * (2 / 9 / 20000) ** 0.5
    )
    with pytest.raises(InputError):
        GaussianPrior((3,), 1.0, zero_com=True)
    with pytest.raises(InputError):
        GaussianPrior((3,), 0.0)


@EVERY
def test_normaliser_of_gaussians(kernel):
    energy = Quadratic(torch.tensor([0.3, 1.0, 2.5, 0.7], dtype=torch.float64))
    found = anneal(
        energy,
        GaussianPrior((4,), 2.0).double(),
        kernel,
        40,
        2000,
        generator=generator(),
        resample_below=0.5,
    )
    assert abs(found.log_z - energy.log_z) < 3 * found.log_z_error
    assert found.log_z_error < 0.1
    index = found.draw(2000, generator=generator(1))
    variance = found.x[index].square().mean(0) / energy.scales.square()
    assert (variance - 1).abs().max() < 0.25


@EVERY
def test_normaliser_in_the_subspace(kernel):
    energy = Springs(5, 3, 2.0)
    prior = GaussianPrior((5, 3), 0.5, zero_com=True).double()
    found = anneal(energy, prior, kernel, 30, 1500, generator=generator(3))
    assert abs(found.log_z - energy.log_z) < 3 * found.log_z_error < 0.2
    assert found.x.mean(-2).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normaliser_of_a_mixture(dtype):
    means = torch.tensor([[-4.0, 0.0], [3.0, 3.0], [0.0, -5.0]], dtype=dtype)
    energy = GaussianMixture(means, torch.tensor([0.5, 1.0, 0.8]), torch.tensor([0.5, 0.2, 0.3]))
    prior = GaussianPrior((2,), 4.0).to(dtype)
    found = anneal(energy, prior, MALA(), 60, 3000, generator=generator(4))
    assert found.x.dtype == found.energy.dtype == dtype and found.log_weight.dtype == torch.float64
    assert abs(found.log_z) < 3 * found.log_z_error < 0.2
    nearest = torch.cdist(found.x[found.draw(3000, generator=generator(5))], means).argmin(-1)
    share = torch.bincount(nearest, minlength=3) / 3000
    assert (share - energy.weights).abs().max() < 0.06


def test_normaliser_of_the_many_well():
    energy = ManyWell(32)
    kernel, prior, gen = HMC(leapfrog_steps=3), GaussianPrior((32,), 1.0), generator(6)
    schedule = pilot(energy, prior, kernel, generator=gen)
    found = anneal(
        energy, prior, kernel, schedule.with_levels(150), 2000, generator=gen, resample_below=0.5
    )
    assert found.resampled >= 2
    assert abs(found.log_z - 164.696) < 3 * found.log_z_error < 0.6
    weight = found.log_weight.softmax(0)
    minor = (weight * (found.x[:, 0::2] < 0).double().mean(-1)).sum()
    assert abs(minor - 0.1557) < 0.04


def test_normaliser_of_the_double_well():
    energy = DoubleWell().double()
    prior = GaussianPrior((4, 2), 2.5, zero_com=True).double()
    found = anneal(energy, prior, MALA(), 200, 2000, generator=generator(7))
    assert abs(found.log_z - 29.665) < 3 * math.hypot(found.log_z_error, 0.005) < 0.2


@pytest.mark.parametrize("below", [0.0, 0.9], ids=["AIS", "SMC"])
@EVERY
def test_the_mean_weight_is_unbiased_even_where_the_schedule_is_short(kernel, below):
    """E[Ẑ] / Z = 1 over many small runs, in which log Ẑ itself is far from log Z."""
    energy = Quadratic(torch.tensor([0.5, 1.6], dtype=torch.float64))
    prior, gen, runs, chains = GaussianPrior((2,), 2.0).double(), generator(8), 500, 6
    schedule = fixed(3, 0.9)
    found = anneal(
        energy,
        prior,
        kernel,
        schedule,
        runs * chains,
        generator=gen,
        resample_below=below,
        chunk=chains,
    )
    ratio = (found.log_weight - energy.log_z).exp().view(runs, chains).mean(1)
    error = ratio.std() / runs**0.5
    assert ratio.std() > 0.1  # short enough that it could go wrong
    assert (ratio.mean() - 1).abs() < 3 * error
    assert (found.resampled > 0) == (below > 0)


def test_a_dropped_metropolis_test_would_be_noticed():
    """The same check with every finite proposal accepted fails: it has the power to see a biased
    kernel."""

    @dataclass(frozen=True)
    class Unadjusted(MALA):
        def step(self, state, energy, gen):
            noise = torch.randn(state.x.shape, generator=gen, dtype=state.x.dtype)
            x = state.x - 0.405 * state.grad + 0.9 * noise
            value, grad = energy.value_and_grad(x)
            taken = torch.ones_like(value, dtype=torch.bool)
            return State(x, value, grad, state.step_size), Info(taken, torch.zeros_like(value))

    energy = Quadratic(torch.tensor([0.5, 1.6], dtype=torch.float64))
    found = anneal(
        energy,
        GaussianPrior((2,), 2.0).double(),
        Unadjusted(),
        fixed(3, 0.9),
        20000,
        generator=generator(),
    )
    assert abs(found.log_z - energy.log_z) > 5 * found.log_z_error


@pytest.mark.parametrize("kernel", [Langevin(), AdjustedLangevin(), Cycle((MALA(),))])
def test_kernels_that_would_bias_the_estimate_are_refused(kernel):
    with pytest.raises(InputError, match="Metropolis"):
        anneal(ManyWell(2), GaussianPrior((2,)), kernel, 10, 10, generator=generator())
    with pytest.raises(InputError, match="Metropolis"):
        pilot(ManyWell(2), GaussianPrior((2,)), kernel, generator=generator())


@pytest.mark.parametrize(("kernel", "gradients"), [(MALA(0.3), 1), (HMC(0.2, leapfrog_steps=4), 4)])
def test_every_evaluation_is_counted_and_none_is_made_twice(kernel, gradients):
    energy = Counted(ManyWell(4))
    prior, gen = GaussianPrior((4,)), generator()
    with energy.stage("run"):
        found = anneal(
            energy,
            prior,
            kernel,
            fixed(7, 0.3),
            10,
            generator=gen,
            steps_per_level=3,
            resample_below=1.0,
            chunk=4,
        )
    expected = 10 * (1 + 7 * 3 * gradients)
    assert energy.counts["run"].energy == energy.counts["run"].gradient == expected
    with energy.stage("pilot"):
        schedule = pilot(energy, prior, kernel, chains=8, steps=2, generator=gen)
    assert energy.counts["pilot"].energy == 8 * (1 + 2 * (len(schedule) + 3) * gradients)
    # What was remembered is what the energy says.
    value, grad = ManyWell(4).value_and_grad(found.x)
    torch.testing.assert_close(found.energy, value)
    torch.testing.assert_close(found.grad, grad)
    assert found.acceptance.shape == (7,) and 0.3 < found.acceptance.mean() < 1


def test_the_pilot_finds_the_acceptance_and_equal_levels():
    energy, prior, gen = ManyWell(8), GaussianPrior((8,)), generator(9)
    schedule = pilot(energy, prior, MALA(5.0), chains=256, steps=6, cess=0.7, generator=gen)
    again = anneal(energy, prior, MALA(), schedule.with_levels(60), 500, generator=gen)
    assert len(again.schedule) == 60 and again.schedule.betas[-1] == 1
    assert (again.acceptance - MALA.target_acceptance).abs().mean() < 0.12
    # Levels at 0.7 were asked for; half of the way costs about a quarter of the variance.
    finer = schedule.with_levels(2 * len(schedule))
    assert (finer.betas[1::2] - schedule.betas).abs().max() < 1e-12
    given = torch.linspace(0, 1, 6, dtype=torch.float64)[1:]
    assert torch.equal(pilot(energy, prior, MALA(), betas=given, generator=gen).betas, given)
    with pytest.raises(InputError, match="levels"):
        pilot(energy, prior, MALA(), cess=0.99, max_levels=3, generator=gen)


class Wall(Quadratic):
    """Not finite left of zero: half of the Gaussian."""

    def __init__(self, value):
        super().__init__(torch.ones(1, dtype=torch.float64))
        self.value = value

    def forward(self, x):
        return torch.where(x[..., 0] < 0, self.value, super().forward(x))


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_points_of_no_finite_energy_have_no_weight(value):
    prior = GaussianPrior((1,), 1.5).double()
    found = anneal(Wall(value), prior, MALA(), 10, 4000, generator=generator(1))
    assert abs(found.log_z - 0.5 * math.log(math.pi / 2)) < 3 * found.log_z_error
    dead = found.log_weight.isneginf()
    assert 0.4 < dead.double().mean() < 0.6
    assert (found.x[~dead] >= 0).all() and torch.isfinite(found.energy[~dead]).all()
    assert (found.x[found.draw(100, generator=generator())] >= 0).all()


def test_no_weight_at_all_is_an_error():
    class Nowhere(Quadratic):
        def forward(self, x):
            return super().forward(x) + math.inf

    energy, prior = Nowhere(torch.ones(2)), GaussianPrior((2,))
    with pytest.raises(EnergyError, match="zero"):
        anneal(energy, prior, MALA(), fixed(3, 0.1), 10, generator=generator())
    with pytest.raises(EnergyError, match="prior"):
        anneal(energy, prior, MALA(), 3, 10, generator=generator())


def test_an_end_in_the_middle_returns_only_what_is_unbiased():
    energy = Quadratic(torch.tensor([0.5, 1.5]))
    prior, schedule = GaussianPrior((2,)), fixed(5, 0.3)

    def until(last):
        return lambda n, state, info: n == last

    def press(last):
        def observe(n, state, info):
            if n == last:
                raise KeyboardInterrupt

        return observe

    def go(observe, chunk=10):
        return anneal(
            energy, prior, MALA(), schedule, 30, generator=generator(), chunk=chunk, observe=observe
        )

    seen = []
    whole = go(lambda n, state, info: seen.append(n))
    assert seen == list(range(1, 16)) and not whole.interrupted
    for stop in (until(7), press(7)):  # in the second of three chunks
        part = go(stop)
        assert part.interrupted and len(part.x) == len(part.log_weight) == 10
        assert torch.equal(part.log_weight, whole.log_weight[:10])
    final = go(until(10))  # at β = 1 the weights are final
    assert final.interrupted and torch.equal(final.log_weight, whole.log_weight[:20])
    for stop in (until(3), press(3)):
        with pytest.raises(KeyboardInterrupt):
            go(stop)


def test_parts_that_do_not_fit_are_refused():
    well, plain = DoubleWell(), GaussianPrior((4, 2))
    with pytest.raises(InputError, match="zero_com=True"):
        anneal(well, plain, MALA(), 10, 10)
    with pytest.raises(InputError, match="fit"):
        anneal(ManyWell(4), GaussianPrior((6,)), MALA(), 10, 10)
    with pytest.raises(InputError, match="normaliser"):
        anneal(ManyWell(4), Quadratic(torch.ones(4)), MALA(), 10, 10)
    with pytest.raises(InputError, match="resample_below"):
        anneal(ManyWell(4), GaussianPrior((4,)), MALA(), 10, 10, resample_below=2.0)
    for betas in ([0.0, 1.0], [0.5], [0.5, 0.4, 1.0]):
        with pytest.raises(InputError, match="ascend"):
            Schedule(torch.tensor(betas), torch.ones(len(betas)))
    with pytest.raises(InputError, match="step size"):
        Schedule(torch.tensor([0.5, 1.0]), torch.tensor([1.0, 0.0]))


def test_another_prior_with_a_known_normaliser():
    """A many-well as the prior of itself: every weight is Z, at no variance."""
    energy = ManyWell(4)
    found = anneal(energy, energy, MALA(0.2), fixed(3, 0.2), 50, generator=generator())
    assert abs(found.log_z - energy.log_z) < 1e-5 and found.ess > 49.99


def test_the_path_between():
    energy = GaussianMixture(torch.tensor([[1.0, 2.0]], dtype=torch.float64))
    prior = GaussianPrior((2,), 2.0).double()
    path = AnnealingPath(energy, prior, 0.3)
    x = torch.randn(5, 2, generator=generator(), dtype=torch.float64)
    value, grad = path.value_and_grad(x)
    torch.testing.assert_close(value, 0.7 * prior(x) + 0.3 * energy(x))
    auto = x.clone().requires_grad_(True)
    torch.testing.assert_close(grad, torch.autograd.grad(path(auto).sum(), auto)[0])
    torch.testing.assert_close(path.last.energy, energy(x))
    each = torch.linspace(0, 1, 5, dtype=torch.float64)  # one β per chain
    mixed, slopes = AnnealingPath(energy, prior, each).value_and_grad(x)
    torch.testing.assert_close(mixed, (1 - each) * prior(x) + each * energy(x))
    torch.testing.assert_close(slopes[[0, 4]], torch.stack([x[0] / 4, x[4] - energy.means[0]]))


def test_systematic_resampling():
    weight = torch.tensor([0.0, 0.31, 0.0, 0.62, 0.07, 0.0], dtype=torch.float64)
    counts = torch.stack(
        [torch.bincount(systematic(weight, 10, generator(s)), minlength=6) for s in range(2000)]
    ).double()
    assert ((counts - 10 * weight).abs() < 1).all()
    assert (counts.mean(0) - 10 * weight).abs().max() < 0.05


@pytest.mark.parametrize("below", [0.0, 0.9], ids=["AIS", "SMC"])
def test_the_error_told_is_the_spread_of_repetitions(below):
    energy = Quadratic(torch.tensor([0.5, 1.6], dtype=torch.float64))
    prior = GaussianPrior((2,), 2.0).double()
    gen = generator(2)
    runs = [
        anneal(energy, prior, MALA(), fixed(4, 0.5), 300, generator=gen, resample_below=below)
        for _ in range(150)
    ]
    spread = torch.tensor([run.log_z for run in runs]).std().item()
    told = sum(run.log_z_error for run in runs) / len(runs)
    assert abs(told / spread - 1) < 0.25
    assert all((run.resampled > 0) == (below > 0) for run in runs)


def test_effective_number_and_error_in_closed_form():
    two = torch.tensor([0.0, math.log(3.0)], dtype=torch.float64)
    assert effective(two) == pytest.approx(1 / (1 / 16 + 9 / 16))
    assert log_mean(two) == pytest.approx(math.log(2.0))
    # Relative standard error of the mean of the weights 1 and 3: (√2 / √2) / 2
    assert log_mean_error(two, torch.arange(2)) == pytest.approx(0.5)
    assert log_mean_error(two[:1], torch.arange(1)) == math.inf
    assert effective(torch.full((3,), -math.inf)) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    energy = ManyWell(8).cuda()
    gen = torch.Generator("cuda").manual_seed(0)
    found = anneal(
        energy, GaussianPrior((8,)).cuda(), MALA(), 60, 2000, generator=gen, resample_below=0.5
    )
    assert found.x.is_cuda and abs(found.log_z - energy.log_z) < 3 * found.log_z_error
