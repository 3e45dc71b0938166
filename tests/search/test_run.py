import pytest
import torch

from orbitwise.energies import GaussianMixture
from orbitwise.errors import InputError
from orbitwise.search import HMC, MALA, ReplicaExchange, geometric_ladder, run


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def ready(kernel=None, shape=(5,)):
    energy, kernel = GaussianMixture(torch.zeros(1, 3)), kernel or MALA(0.8)
    return kernel, kernel.init(torch.randn(*shape, 3, generator=gen()), energy), energy


def test_the_trace_is_what_single_steps_give():
    kernel, state, energy = ready()
    trace = run(kernel, state, energy, 10, generator=gen(1), thin=3)
    g, x, accepted, probability = gen(1), [], [], []
    for n in range(1, 11):
        state, info = kernel.step(state, energy, g)
        accepted.append(info.accepted.double())
        probability.append(info.log_accept.double().exp())
        if n % 3 == 0:
            x.append(state.x)
    assert torch.equal(trace.x, torch.stack(x)) and trace.energy.shape == (3, 5)
    assert torch.equal(trace.state.x, state.x) and trace.steps == 10 and not trace.interrupted
    torch.testing.assert_close(trace.acceptance, torch.stack(accepted).mean(0))
    torch.testing.assert_close(trace.rates.log_accept.exp(), torch.stack(probability).mean(0))
    assert trace.count("accepted") == int(torch.stack(accepted).sum())


def test_one_row_of_a_replica_exchange():
    kernel, state, energy = ready(
        ReplicaExchange(HMC(0.3, 2), geometric_ladder(1.0, 3.0, 4)), (4, 6)
    )
    trace = run(kernel, state, energy, 12, generator=gen(2), thin=2, row=0)
    assert trace.x.shape == (6, 6, 3) and trace.energy.shape == (6, 6)
    assert torch.equal(trace.x[-1], trace.state.x[0])
    assert trace.rates.swap_rate.shape == (3,) and trace.rates.inner.accepted.shape == (4, 6)


def test_observe_is_called_on_time_and_may_end_the_run():
    kernel, state, energy = ready()
    seen = []
    trace = run(
        kernel,
        state,
        energy,
        100,
        generator=gen(3),
        observe=lambda n, s, i: seen.append(n) or n >= 20,
        every=5,
    )
    assert (
        seen == [5, 10, 15, 20]
        and trace.steps == 20
        and len(trace.x) == 20
        and not trace.interrupted
    )


def test_an_interruption_returns_what_there_is():
    kernel, state, energy = ready()

    def interrupt(n, state, info):
        if n == 7:
            raise KeyboardInterrupt

    trace = run(kernel, state, energy, 100, generator=gen(4), observe=interrupt)
    whole = run(kernel, state, energy, 7, generator=gen(4))
    assert trace.interrupted and trace.steps == 7
    assert torch.equal(trace.x, whole.x) and torch.equal(trace.state.x, whole.state.x)


def test_no_steps_and_bad_arguments():
    kernel, state, energy = ready()
    trace = run(kernel, state, energy, 0)
    assert trace.x.shape == (0, 5, 3) and trace.energy.shape == (0, 5) and trace.rates is None
    with pytest.raises(InputError, match="thin"):
        run(kernel, state, energy, 5, thin=0)
