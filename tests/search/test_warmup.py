from dataclasses import replace

import pytest
import torch

from orbitwise.energies import GaussianMixture
from orbitwise.errors import InputError
from orbitwise.search import (
    HMC,
    MALA,
    AdjustedLangevin,
    Langevin,
    OrbitMove,
    ReplicaExchange,
    geometric_ladder,
    run,
    warmup,
)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def target(dtype=torch.float64):
    return GaussianMixture(
        torch.zeros(1, 10, dtype=dtype), torch.linspace(0.1, 1.0, 10, dtype=dtype)[None]
    )


@pytest.mark.parametrize(
    "kernel", [MALA(), HMC(), AdjustedLangevin(), Langevin()], ids=lambda k: type(k).__name__
)
@pytest.mark.parametrize("wrong", [1e-3, 30.0])
def test_acceptance_reaches_the_target_from_a_hopeless_guess(kernel, wrong):
    energy, g = target(), gen(1)
    state = kernel.init(energy.sample((64,), generator=g), energy)
    state = replace(state, step_size=torch.full_like(state.step_size, wrong))
    state = warmup(kernel, state, energy, 400, generator=g)
    assert (state.step_size == state.step_size[0]).all()
    trace = run(kernel, state, energy, 100, generator=g)
    reached = trace.rates.log_accept.exp().mean()
    assert abs(reached - kernel.target_acceptance) < 0.06


def test_another_target_and_frozen_afterwards():
    energy, g, kernel = target(), gen(2), MALA()
    state = kernel.init(energy.sample((64,), generator=g), energy)
    state = warmup(kernel, state, energy, 300, generator=g, target=0.3)
    trace = run(kernel, state, energy, 100, generator=g)
    assert abs(trace.acceptance.mean() - 0.3) < 0.05
    assert torch.equal(trace.state.step_size, state.step_size)


def test_step_sizes_per_temperature_and_per_chain():
    energy, g = target(), gen(3)
    kernel = ReplicaExchange(HMC(0.05, 3), geometric_ladder(1.0, 100.0, 3))
    state = kernel.init(energy.sample((3, 40), generator=g), energy)
    state = warmup(kernel, state, energy, 300, generator=g)
    assert (state.step_size == state.step_size[:, :1]).all()
    ratio = (
        state.step_size[1:, 0] / state.step_size[:-1, 0]
    )  # a Gaussian: proportional to the square root of T
    torch.testing.assert_close(ratio, torch.full_like(ratio, 10**0.5), rtol=0.1, atol=0.0)
    kernel = MALA(0.1)
    state = kernel.init(energy.sample((3, 5), generator=g), energy)
    assert (
        warmup(kernel, state, energy, 50, generator=g, own_dims=2).step_size.unique().numel() == 15
    )


def test_a_chain_that_starts_far_out_comes_in():
    """A common step size would leave the far chain stuck: there, only far smaller steps are
    accepted."""
    energy, g = target(), gen(4)
    x = energy.sample((32,), generator=g)
    x[0] *= 1000.0
    kernel = MALA(0.1)
    state = warmup(kernel, kernel.init(x, energy), energy, 600, generator=g)
    trace = run(kernel, state, energy, 200, generator=g)
    assert abs(trace.acceptance[1:].mean() - 0.574) < 0.06
    assert state.x[0].norm() < 0.5 * x[0].norm()


def test_observe_sees_every_step_and_may_stop():
    energy, g, kernel, seen = target(), gen(5), MALA(), []
    state = kernel.init(energy.sample((4,), generator=g), energy)
    warmup(
        kernel,
        state,
        energy,
        50,
        generator=g,
        observe=lambda n, state, info: seen.append(n) or n == 7,
    )
    assert seen == [1, 2, 3, 4, 5, 6, 7]


def test_what_cannot_be_adapted_is_refused():
    from orbitwise.groups.so3 import SO3

    energy = GaussianMixture(torch.zeros(1, 2, 3))
    kernel = OrbitMove(SO3())
    state = kernel.init(torch.randn(2, 2, 3, generator=gen()), energy)
    with pytest.raises(InputError, match="no step size"):
        warmup(kernel, state, energy, 10)
    with pytest.raises(InputError, match="between 0 and 1"):
        warmup(MALA(), state, energy, 10, target=1.5)
