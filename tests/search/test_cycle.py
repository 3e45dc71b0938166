import pytest
import torch

from orbitwise.energies import Counted, DoubleWell, GaussianMixture
from orbitwise.errors import EnergyError, InputError
from orbitwise.groups.so3 import SO3
from orbitwise.search import (
    HMC,
    MALA,
    AdjustedLangevin,
    Cycle,
    OrbitMove,
    ReplicaExchange,
    geometric_ladder,
    run,
    warmup,
)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def test_parts_run_in_order_and_hand_on_the_cached_values():
    energy = Counted(DoubleWell(4, 3))
    kernel = Cycle((AdjustedLangevin(0.05), OrbitMove(SO3())), (3, 2))
    state = kernel.init(3 * torch.randn(6, 4, 3, generator=gen(1)), energy)
    before = energy.counts["other"].gradient
    new, info = kernel.step(state, energy, gen(2))
    assert energy.counts["other"].gradient - before == 18
    assert len(info.parts) == 5 and info.accepted is info.parts[0].accepted
    value, grad = energy.value_and_grad(new.x)
    torch.testing.assert_close(new.energy, value, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(new.grad, grad, rtol=1e-4, atol=1e-3)


def test_the_tuned_part_is_found_wherever_it_stands():
    energy = GaussianMixture(torch.zeros(1, 4, 3, dtype=torch.float64))
    kernel, g = Cycle((OrbitMove(SO3()), MALA(0.01))), gen(3)
    assert kernel.target_acceptance == MALA.target_acceptance
    state = kernel.init(energy.sample((50,), generator=g), energy)
    state = warmup(kernel, state, energy, 200, generator=g)
    trace = run(kernel, state, energy, 100, generator=g)
    assert abs(trace.acceptance.mean() - 0.574) < 0.06
    assert (trace.rates.parts[0].accepted == 1).all()


def test_inside_a_replica_exchange():
    energy = GaussianMixture(torch.zeros(1, 4, 3, dtype=torch.float64))
    kernel, g = (
        ReplicaExchange(Cycle((HMC(0.2, 3), OrbitMove(SO3()))), geometric_ladder(1.0, 4.0, 3)),
        gen(4),
    )
    state = kernel.init(torch.zeros(3, 200, 4, 3, dtype=torch.float64), energy)
    state = warmup(kernel, state, energy, 100, generator=g)
    trace = run(kernel, state, energy, 200, generator=g)
    assert abs(trace.acceptance.mean() - 0.8) < 0.05
    torch.testing.assert_close(
        trace.x.square().mean((0, 2, 3, 4)),
        torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64),
        rtol=0.03,
        atol=0,
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="at most one"):
        Cycle((HMC(), MALA()))
    with pytest.raises(InputError, match="at most one"):
        Cycle(())
    with pytest.raises(InputError, match="repeats"):
        Cycle((HMC(),), (1, 2))
    with pytest.raises(EnergyError, match="not finite"):
        HMC().init(torch.full((2, 4, 2), torch.nan), DoubleWell())
