"""Samples carried from one energy to another, where both are known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from orbitwise.energies import Counted, Energy
from orbitwise.errors import EnergyError, InputError
from orbitwise.search import HMC, Carried, Cycle, ReplicaExchange, carry
from orbitwise.search.carry import jackknife, weighted_mean
from orbitwise.search.metropolis import metropolis


class Harmonic(Energy):
    """``½ Σ (x - m)²/s² + c``."""

    def __init__(self, spread: list[float], centre: float = 0.0, offset: float = 0.0):
        super().__init__()
        self.event_shape = (len(spread),)
        self.register_buffer("spread", torch.tensor(spread, dtype=torch.float64))
        self.centre, self.offset = centre, offset

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * ((x - self.centre) / self.spread.to(x)).square().sum(-1) + self.offset

    @property
    def free_energy(self) -> float:
        return self.offset - float(self.spread.log().sum()) - 0.5 * 6 * math.log(2 * math.pi)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn(count, *self.event_shape, generator=generator, dtype=torch.float64)
        return self.centre + self.spread * noise


class Wells(Energy):
    """``b (x² - 1)² + t x``: two wells, one lower by about 2 t."""

    event_shape = (1,)

    def __init__(self, barrier: float, tilt: float):
        super().__init__()
        self.barrier, self.tilt = barrier, tilt

    def forward(self, x: Tensor) -> Tensor:
        return (self.barrier * (x.square() - 1).square() + self.tilt * x).squeeze(-1)

    def exact(self) -> tuple[float, float]:
        """log Z and the population of the right well, by quadrature."""
        grid = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
        density = (-self(grid[:, None])).exp()
        total = torch.trapezoid(density, grid)
        return float(total.log()), float(torch.trapezoid(density[30_000:], grid[30_000:]) / total)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        grid = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
        share = (-self(grid[:, None])).exp().cumsum(0)
        u = torch.rand(count, generator=generator, dtype=torch.float64)
        return grid[torch.searchsorted(share / share[-1], u)][:, None]


LOW = Harmonic([1.0, 0.5, 0.2, 1.0, 2.0, 0.1])
HIGH = Harmonic([0.4, 0.7, 0.1, 1.5, 1.0, 0.13], centre=0.5, offset=-7.0)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def harmonic(seed: int, **options) -> Carried:
    gen = generator(seed)
    given = {"particles": 256, "moves": 2, "step_size": 0.1} | options
    return carry(LOW, HIGH, HMC(0.1, 8), LOW.sample(500, gen), generator=gen, **given)


def standardised(found: list[tuple[float, float]], exact: float) -> Tensor:
    return torch.tensor([(value - exact) / error for value, error in found])


def test_the_free_energy_between_harmonic_wells_and_its_error():
    """Twenty runs: no bias, and errors as large as the scatter."""
    exact = HIGH.free_energy - LOW.free_energy
    runs = [harmonic(seed) for seed in range(20)]
    off = standardised([(r.free_energy, r.free_energy_error) for r in runs], exact)
    value = torch.tensor([r.free_energy for r in runs])
    assert value.std() < 0.3 and abs(value.mean() - exact) < 4 * value.std() / 20**0.5
    assert 0.5 < off.square().mean().sqrt() < 2.5  # a jackknife over 8 islands has 7 degrees
    assert all(r.complete and r.levels[-1] == 1 and len(r.levels) > 5 for r in runs)


def test_means_of_what_arrives():
    run = harmonic(0, particles=2048)
    mean, error = run.mean(run.x)
    assert ((mean - 0.5).abs() < 4 * error).all() and (error < 0.1).all()
    square, error = run.mean((run.x - 0.5).square() / HIGH.spread**2)
    assert ((square - 1).abs() < 4 * error).all() and (error < 0.3).all()
    torch.testing.assert_close(run.energy, HIGH(run.x))
    assert 0 < run.families <= run.ess + 1e-6 or run.resampled  # resampling costs families


def test_populations_of_a_double_well():
    """From equal wells with a low barrier to tilted ones that moves do not cross: the weights alone
    carry population from well to well."""
    low, high = Wells(1.0, 0.0), Wells(9.0, 0.8)
    log_z, population = high.exact()
    found, free = [], []
    for seed in range(12):
        gen = generator(seed)
        run = carry(
            low,
            high,
            HMC(0.2, 4),
            low.sample(600, gen),
            particles=512,
            step_size=0.2,
            generator=gen,
        )
        value, error = run.mean((run.x[:, 0] > 0).double())
        found.append((float(value), float(error)))
        free.append((run.free_energy, run.free_energy_error))
    assert 0.1 < population < 0.3
    off = standardised(found, population)
    assert abs(off.mean()) < 1.2 and 0.4 < off.square().mean().sqrt() < 2.5
    off = standardised(free, low.exact()[0] - log_z)
    assert abs(off.mean()) < 1.5 and off.square().mean().sqrt() < 2.5


def test_weights_of_the_samples_count():
    """Samples of another density with their weights, in place of samples of the low energy."""
    gen = generator(3)
    wide = Harmonic([1.1, 0.55, 0.22, 1.1, 2.2, 0.11])
    x = wide.sample(3000, gen)
    run = carry(
        LOW,
        HIGH,
        HMC(0.1, 8),
        x,
        wide(x) - LOW(x),
        particles=512,
        step_size=0.1,
        generator=gen,
    )
    exact = HIGH.free_energy - LOW.free_energy
    assert abs(run.free_energy - exact) < 4 * run.free_energy_error < 0.8


def test_evaluations_are_counted_and_few():
    low, high = Counted(LOW), Counted(HIGH)
    gen = generator(1)
    run = carry(low, high, HMC(0.1, 8), LOW.sample(64, gen), particles=64, moves=3, generator=gen)
    assert high.counts["other"].gradient == 64 * (1 + 3 * 8 * len(run.levels))


def test_several_kernels_in_turn():
    gen = generator(2)
    kernel = Cycle((HMC(0.1, 8), Mirror()))
    run = carry(LOW, HIGH, kernel, LOW.sample(300, gen), particles=256, generator=gen)
    assert abs(run.free_energy - (HIGH.free_energy - LOW.free_energy)) < 5 * run.free_energy_error
    torch.testing.assert_close(run.energy, HIGH(run.x))


class Mirror:
    """Proposes the mirror image in the first coordinate, with a Metropolis test."""

    target_acceptance, step_dims = None, 0

    def init(self, x, energy):
        return HMC().init(x, energy)

    def step(self, state, energy, generator):
        x = state.x.clone()
        x[:, 0] = -x[:, 0]
        value, grad = energy.value_and_grad(x)
        return metropolis(state, x, value, grad, state.energy - value, generator)


def test_time_is_over():
    """What is left of the path is weighed at once: right, with few effective points."""
    whole, short = harmonic(5), harmonic(5, seconds=0.0)
    assert not short.complete and short.levels[-1] == 1 and len(short.levels) == 2
    assert short.ess < 0.2 * whole.ess
    near = Harmonic([0.9, 0.6, 0.18, 1.0, 1.8, 0.09], centre=0.02, offset=3.0)
    x = LOW.sample(4000, generator(5))
    run = carry(LOW, near, HMC(), x, particles=2048, seconds=0.0, generator=generator(6))
    assert abs(run.free_energy - near.free_energy + LOW.free_energy) < 4 * run.free_energy_error
    assert run.free_energy_error < 0.1
    stopped = harmonic(5, moves=1, observe=lambda share: share > 0.3)
    assert not stopped.complete and 0.3 < stopped.levels[-2] < 1


def test_little_time_makes_fewer_levels(monkeypatch):
    """Every move takes a second of this clock."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def tick(share: float) -> None:
        now[0] += 1.0

    whole = harmonic(5, moves=1, seconds=1e6, observe=tick)
    took = now[0]
    assert len(whole.levels) == took > 15
    now[0] = 0.0
    short = harmonic(5, moves=1, seconds=10.0, observe=tick)
    assert short.complete and 5 <= len(short.levels) == now[0] <= 10
    torch.testing.assert_close(
        short.levels.diff(prepend=torch.zeros(1)).sum(), torch.tensor(1.0).double()
    )


def test_same_seed_same_result():
    a, b = harmonic(7), harmonic(7)
    assert torch.equal(a.x, b.x) and torch.equal(a.log_weight, b.log_weight)


def test_what_cannot_be_carried():
    gen, x = generator(0), LOW.sample(50, generator(0))
    with pytest.raises(InputError, match="different systems"):
        carry(LOW, Wells(1, 0), HMC(), x, particles=64)
    with pytest.raises(InputError, match="one proposal"):
        carry(LOW, HIGH, ReplicaExchange(HMC(), torch.tensor([1.0, 0.5])), x, particles=64)
    with pytest.raises(InputError, match="two islands or more"):
        carry(LOW, HIGH, HMC(), x, particles=64, islands=1)
    with pytest.raises(InputError, match=r"samples must be"):
        carry(LOW, HIGH, HMC(), x[:, 1:], particles=64)
    nowhere = Harmonic([1.0] * 6, offset=math.inf)
    with pytest.raises(EnergyError, match="no sample has a finite energy"):
        carry(LOW, nowhere, HMC(), x, particles=64, generator=gen)


def test_jackknife_of_a_mean_is_its_standard_error():
    value = torch.randn(10, generator=generator(0), dtype=torch.float64)
    left_out = (value.sum() - value) / 9
    torch.testing.assert_close(jackknife(left_out), value.std() / 10**0.5)
    mean, error = weighted_mean(value, torch.zeros(10), torch.arange(10))
    torch.testing.assert_close(
        torch.stack([mean, error]), torch.stack([value.mean(), jackknife(left_out)])
    )
