"""Chains that start far from equilibrium end in the right distribution, with honest errors."""

import pytest
import torch

from orbitwise.energies import DoubleWell, GaussianMixture, LennardJones, ManyWell
from orbitwise.metrics.mixing import effective_sample_size
from orbitwise.search import HMC, MALA, AdjustedLangevin, Langevin, run, warmup


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def mean_and_error(chains):
    """``chains: (C, S)``: mean and its standard error, autocorrelation included."""
    return chains.mean(), chains.std() / effective_sample_size(chains).sqrt()


KERNELS = [MALA(0.5), HMC(0.3, 4), AdjustedLangevin(0.3, friction=1.0)]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
def test_mean_variance_and_energy_of_a_mixture(kernel):
    energy = GaussianMixture(
        torch.tensor([[-1.5, 0.0], [1.0, 1.0]], dtype=torch.float64),
        torch.tensor([[0.7, 1.0], [1.0, 0.5]], dtype=torch.float64),
        torch.tensor([0.3, 0.7]),
    )
    g = gen(1)
    state = kernel.init(5 + torch.randn(200, 2, generator=g, dtype=torch.float64), energy)
    state = warmup(kernel, state, energy, 150, generator=g)
    trace = run(kernel, state, energy, 250, generator=g)
    assert abs(trace.acceptance.mean() - kernel.target_acceptance) < 0.05
    x = trace.x.transpose(0, 1)
    mean = torch.tensor([-1.5 * 0.3 + 0.7, 0.7], dtype=torch.float64)
    second = torch.tensor([0.3 * (2.25 + 0.49) + 0.7 * 2.0, 0.3 + 0.7 * 1.25], dtype=torch.float64)
    for i in range(2):
        for values, exact in ((x[..., i], mean[i]), (x[..., i] ** 2, second[i])):
            got, error = mean_and_error(values)
            assert error < 0.05 and (got - exact).abs() < 4 * error
    exact = energy(energy.sample((200_000,), generator=g))
    got, error = mean_and_error(trace.energy.T)
    assert (got - exact.mean()).abs() < 4 * (error**2 + exact.var() / len(exact)) ** 0.5


def test_baoab_has_no_bias_for_a_quadratic_energy_and_a_small_one_else():
    harmonic = GaussianMixture(torch.zeros(1, 1, dtype=torch.float64))
    kernel, g = (
        Langevin(1.0, friction=1.0),
        gen(2),
    )  # half the stability limit: Verlet would be 25 % off
    state = kernel.init(harmonic.sample((4000,), generator=g), harmonic)
    x = run(kernel, state, harmonic, 200, generator=g).x[50:, :, 0].T
    got, error = mean_and_error(x**2)
    assert error < 0.01 and (got - 1.0).abs() < 4 * error
    wells = ManyWell(2).double()
    kernel = Langevin(0.1, friction=1.0)
    state = kernel.init(wells.sample((2000,), generator=g), wells)
    x = run(kernel, state, wells, 200, generator=g).x[..., 0].T
    got, error = mean_and_error(x.square())
    exact = wells.sample((400_000,), generator=g)[:, 0].square().mean()
    assert (got - exact).abs() < 4 * error + 0.005


def test_adjusted_langevin_is_exact_at_a_step_size_that_often_fails():
    """Little friction, many rejections: without the reversal of rejected momenta this is off by
    many errors."""
    wells, g = ManyWell(2).double(), gen(9)
    kernel = AdjustedLangevin(0.45, friction=0.05)
    state = kernel.init(wells.sample((4000,), generator=g), wells)
    state = run(kernel, state, wells, 200, generator=g).state  # from rest to thermal momenta
    trace = run(kernel, state, wells, 200, generator=g)
    assert 0.3 < trace.acceptance.mean() < 0.8
    exact = wells.sample((400_000,), generator=g)
    for values, reference in (
        (trace.energy.T, wells(exact)),
        (trace.x[..., 0].square().T, exact[:, 0].square()),
    ):
        got, error = mean_and_error(values)
        assert (got - reference.mean()).abs() < 4 * (
            error**2 + reference.var() / len(reference)
        ) ** 0.5


def test_masses_change_the_path_and_not_the_distribution():
    energy = LennardJones(3).double()
    mass = torch.tensor([[1.0], [5.0], [20.0]], dtype=torch.float64)
    start = torch.tensor([[0.0, 0, 0], [1.2, 0, 0], [0, 1.2, 0]], dtype=torch.float64)
    results = []
    for kernel in (HMC(0.1, 6), HMC(0.2, 6, mass=mass), AdjustedLangevin(0.2, mass=mass)):
        g = gen(3)
        state = warmup(
            kernel, kernel.init(start.repeat(200, 1, 1), energy), energy, 150, generator=g
        )
        trace = run(kernel, state, energy, 250, generator=g, thin=2)
        results.append(mean_and_error(trace.energy.T))
    for got, error in results[1:]:
        assert (got - results[0][0]).abs() < 4 * (error**2 + results[0][1] ** 2) ** 0.5


def lattice(chains, points, spacing, g):
    """Random sites of a cubic lattice: no two points close."""
    sites = torch.cartesian_prod(*[torch.arange(3.0)] * 3) - 1
    return spacing * torch.stack(
        [sites[torch.randperm(27, generator=g)[:points]] for _ in range(chains)]
    )


def test_lj13_mean_energy_virial_and_no_drift():
    """Reference: -43.06 ± 0.05 (20,000 published samples), virial exactly 36."""
    energy, kernel, g = LennardJones(13), HMC(0.02, 10), gen(4)
    state = kernel.init(lattice(256, 13, 1.1, g), energy)
    state = warmup(kernel, state, energy, 200, generator=g)
    virials = []

    def note(n, state, info):
        virials.append((state.x * state.grad).sum((-1, -2)))

    trace = run(kernel, state, energy, 300, generator=g, observe=note)
    assert abs(trace.acceptance.mean() - 0.8) < 0.05
    got, error = mean_and_error(trace.energy.T.double())
    assert error < 0.15
    assert abs(got + 43.06) < max(0.1, 4 * (error**2 + 0.05**2) ** 0.5)
    got, error = mean_and_error(torch.stack(virials, 1).double())
    assert (got - 36).abs() < 4 * error
    halves = [mean_and_error(part.T.double()) for part in trace.energy.chunk(2)]
    assert (halves[0][0] - halves[1][0]).abs() < 4 * (halves[0][1] ** 2 + halves[1][1] ** 2) ** 0.5


def test_dw4_mean_energy():
    """Reference: -22.548 ± 0.009."""
    energy, kernel, g = DoubleWell(), HMC(0.1, 6), gen(5)
    state = kernel.init(3 * torch.randn(500, 4, 2, generator=g), energy)
    state = warmup(kernel, state, energy, 200, generator=g)
    trace = run(kernel, run(kernel, state, energy, 50, generator=g).state, energy, 300, generator=g)
    got, error = mean_and_error(trace.energy.T.double())
    assert error < 0.03
    assert abs(got + 22.548) < 4 * (error**2 + 0.009**2) ** 0.5


def test_mala_is_hmc_with_one_leapfrog_step():
    """The same proposal and the same acceptance probability, computed along two ways."""
    energy = LennardJones(4).double()
    x = 2 * torch.randn(50, 4, 3, generator=gen(6), dtype=torch.float64)
    mala, hmc = MALA(0.01), HMC(0.01, 1, jitter=0.0)
    a, info_a = mala.step(mala.init(x, energy), energy, gen(7))
    b, info_b = hmc.step(hmc.init(x, energy), energy, gen(7))
    torch.testing.assert_close(a.x, b.x)
    torch.testing.assert_close(info_a.log_accept, info_b.log_accept, rtol=1e-7, atol=1e-7)


def test_leapfrog_is_reversible_and_of_second_order():
    from orbitwise.search.dynamics import Mass, leapfrog

    energy, g = ManyWell(4).double(), gen(8)
    x = torch.randn(10, 4, generator=g, dtype=torch.float64)
    p = torch.randn(10, 4, generator=g, dtype=torch.float64)
    mass = Mass(torch.tensor([1.0, 2.0, 0.5, 1.0]))
    value, grad = energy.value_and_grad(x)

    def error(h, steps):
        h = torch.full((10, 1), h, dtype=torch.float64)
        _, p1, u, _ = leapfrog(x, p, grad, h, steps, mass, energy)
        return (u + mass.kinetic(p1, u) - value - mass.kinetic(p, value)).abs().mean()

    assert 3.5 < error(0.01, 10) / error(0.005, 20) < 4.5
    h = torch.full((10, 1), 0.05, dtype=torch.float64)
    x1, p1, _, grad1 = leapfrog(x, p, grad, h, 9, mass, energy)
    x2, p2, _, _ = leapfrog(x1, -p1, grad1, h, 9, mass, energy)
    torch.testing.assert_close(x2, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(-p2, p, rtol=1e-9, atol=1e-9)
