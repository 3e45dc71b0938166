import pytest
import torch

from orbitwise.energies import Counted, DoubleWell, GaussianMixture
from orbitwise.errors import InputError
from orbitwise.metrics.mixing import effective_sample_size
from orbitwise.search import HMC, MALA, ReplicaExchange, Tempered, geometric_ladder, run, warmup


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def wells():
    """Two wells of weight 0.3 and 0.7, twenty standard deviations apart."""
    return GaussianMixture(
        torch.tensor([[-10.0, 0.0], [10.0, 0.0]]),
        torch.tensor([1.0, 1.0]),
        torch.tensor([0.3, 0.7]),
    )


def test_both_wells_in_proportion_where_plain_hmc_stays_stuck():
    energy, g = wells(), gen(1)
    start = torch.tensor([-10.0, 0.0]).expand(40, 2)
    plain = HMC(0.5, 4)
    state = warmup(plain, plain.init(start, energy), energy, 60, generator=g)
    assert (run(plain, state, energy, 300, generator=g).x[..., 0] < 0).all()

    kernel = ReplicaExchange(plain, geometric_ladder(1.0, 60.0, 8))
    state = kernel.init(start.expand(8, 40, 2), energy)
    state = warmup(kernel, state, energy, 200, generator=g)
    trace = run(kernel, state, energy, 800, generator=g, row=0)
    left = (trace.x[..., 0] < 0).double().T
    error = left.std() / effective_sample_size(left).sqrt()
    assert error < 0.03
    assert (left.mean() - 0.3).abs() < 4 * error
    assert trace.state.round_trips.sum() > 40
    rate = trace.rates.swap_rate
    assert rate.shape == (7,) and (rate > 0.2).all() and (rate < 0.95).all()


def test_every_row_has_its_own_temperature():
    energy = GaussianMixture(torch.zeros(1, 3, dtype=torch.float64))
    kernel, g = ReplicaExchange(HMC(0.5, 3), geometric_ladder(1.0, 9.0, 3)), gen(2)
    state = kernel.init(torch.zeros(3, 300, 3, dtype=torch.float64), energy)
    assert torch.equal(
        state.step_size[:, 0], 0.5 * kernel.betas.rsqrt()
    )  # a guess that fits a Gaussian
    state = warmup(kernel, state, energy, 60, generator=g)
    trace = run(kernel, state, energy, 200, generator=g)
    variance = trace.x.square().mean((0, 2, 3))
    torch.testing.assert_close(
        variance, torch.tensor([1.0, 3.0, 9.0], dtype=torch.float64), rtol=0.03, atol=0.0
    )


def test_swap_rate_of_gaussians_is_the_exact_one():
    """Oracle: U at inverse temperature β is Gamma(d/2)/β, so the mean of min(1, exp(ΔβΔU)) by plain
    sampling."""
    d, betas = 4, torch.tensor([1.0, 0.5], dtype=torch.float64)
    energy = GaussianMixture(torch.zeros(1, d, dtype=torch.float64))
    kernel, g = ReplicaExchange(HMC(0.5, 5), betas), gen(3)
    state = kernel.init(energy.sample((2, 400), generator=g), energy)
    state = warmup(kernel, state, energy, 60, generator=g)
    rate = run(kernel, state, energy, 200, generator=g).rates.swap_rate.item()
    draws = [torch.randn(200_000, d, generator=g).square().sum(1) / 2 / b for b in betas.tolist()]
    exact = ((betas[0] - betas[1]) * (draws[0] - draws[1])).exp().clamp_max(1).mean().item()
    assert abs(rate - exact) < 0.02


def test_swaps_cost_no_evaluation_and_alternate():
    energy, g = Counted(DoubleWell()), gen(4)
    kernel = ReplicaExchange(MALA(0.05), geometric_ladder(1.0, 3.0, 5), swap_every=2)
    state = kernel.init(3 * torch.randn(5, 6, 4, 2, generator=g), energy)
    tried = []
    for _ in range(8):
        before = energy.counts["other"].gradient
        state, info = kernel.step(state, energy, g)
        assert energy.counts["other"].gradient - before == 30
        tried.append(info.swap_tried.tolist())
        assert not info.swap_accepted[~info.swap_tried].any()
    even, odd, none = [True, False, True, False], [False, True, False, True], [False] * 4
    assert tried == [none, even, none, odd, none, even, none, odd]


def test_a_swap_moves_whole_configurations():
    """Replica labels, positions, energies and gradients travel together; nothing is lost or
    doubled."""
    energy, g = DoubleWell().double(), gen(5)

    class Still:
        target_acceptance, step_dims = None, 0

        def init(self, x, energy):
            return MALA(0.1).init(x, energy)

        def step(self, state, energy, generator):
            return state, MALA(0.1).step(state, energy, generator)[1]

    kernel = ReplicaExchange(Still(), geometric_ladder(1.0, 3.0, 4))
    x = 3 * torch.randn(4, 7, 4, 2, generator=g, dtype=torch.float64)
    state = kernel.init(x, energy)
    for _ in range(20):
        state, _ = kernel.step(state, energy, g)
    assert torch.equal(state.replica.sort(0).values, torch.arange(4)[:, None].expand(4, 7))
    assert (state.replica != torch.arange(4)[:, None]).any()
    assert torch.equal(state.x, x.take_along_dim(state.replica[..., None, None], 0))
    value, grad = energy.value_and_grad(state.x)
    torch.testing.assert_close(state.energy, value)
    torch.testing.assert_close(state.grad, grad)


def test_round_trips_are_counted_from_cold_to_hot_and_back():
    """Oracle: the labels of every step, followed one by one."""
    energy, g = wells(), gen(6)
    kernel = ReplicaExchange(HMC(0.5, 2), geometric_ladder(1.0, 20.0, 4))
    state = kernel.init(energy.sample((4, 3), generator=g), energy)
    rows = []
    for _ in range(300):
        state, _ = kernel.step(state, energy, g)
        rows.append(state.replica)
    trips = torch.zeros(3, dtype=torch.long)
    for chain in range(3):
        for label in range(4):
            leg = "new"
            for replica in rows:
                place = int((replica[:, chain] == label).nonzero())
                if place == 0:
                    trips[chain] += leg == "hot"
                    leg = "cold"
                elif place == 3 and leg == "cold":
                    leg = "hot"
    assert torch.equal(state.round_trips, trips) and trips.sum() > 3


def test_one_temperature_is_the_plain_kernel():
    energy, hmc = DoubleWell().double(), HMC(0.05, 3)
    x = 3 * torch.randn(6, 4, 2, generator=gen(7), dtype=torch.float64)
    kernel = ReplicaExchange(hmc, torch.tensor([1.0]))
    a, b = kernel.init(x[None], energy), hmc.init(x, energy)
    for seed in range(5):
        a, b = kernel.step(a, energy, gen(seed))[0], hmc.step(b, energy, gen(seed))[0]
    torch.testing.assert_close(a.x[0], b.x)
    assert (a.round_trips == 0).all()


def test_ladder():
    betas = geometric_ladder(300.0, 1200.0, 5)
    torch.testing.assert_close(betas[0].item(), 1.0)
    torch.testing.assert_close(betas[-1].item(), 0.25)
    torch.testing.assert_close(
        betas[1:] / betas[:-1], torch.full((4,), 0.25**0.25, dtype=torch.float64)
    )
    with pytest.raises(InputError, match="ladder"):
        geometric_ladder(300.0, 100.0, 3)


def test_tempered_is_a_multiple():
    energy = DoubleWell().double()
    x = 3 * torch.randn(2, 3, 4, 2, generator=gen(), dtype=torch.float64)
    beta = torch.tensor([[0.2], [0.9]], dtype=torch.float64)
    value, grad = energy.value_and_grad(x)
    got, slope = Tempered(energy, beta).value_and_grad(x)
    torch.testing.assert_close(got, beta * value)
    torch.testing.assert_close(slope, beta[..., None, None] * grad)


def test_bad_ladders_and_starts_are_refused():
    with pytest.raises(InputError, match="descending"):
        ReplicaExchange(MALA(), torch.tensor([0.5, 1.0]))
    with pytest.raises(InputError, match="swap_every"):
        ReplicaExchange(MALA(), torch.tensor([1.0, 0.5]), swap_every=0)
    with pytest.raises(InputError, match="2 temperatures"):
        ReplicaExchange(MALA(), torch.tensor([1.0, 0.5])).init(torch.zeros(3, 4, 2), wells())
