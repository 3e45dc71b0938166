import pytest
import torch

from orbitwise.energies import Counted, GaussianMixture, LennardJones
from orbitwise.search import HMC, MALA


def test_every_configuration_is_counted_under_its_stage():
    energy = Counted(GaussianMixture(torch.zeros(1, 2)))
    energy(torch.zeros(3, 5, 2))
    with energy.stage("search"):
        energy.value_and_grad(torch.zeros(7, 2))
        with energy.stage("check"):
            energy(torch.zeros(2))
        energy(torch.zeros(4, 2))
    assert (energy.counts["other"].energy, energy.counts["other"].gradient) == (15, 0)
    assert (energy.counts["search"].energy, energy.counts["search"].gradient) == (11, 7)
    assert (energy.counts["check"].energy, energy.counts["check"].gradient) == (1, 0)


def test_a_stage_ends_with_an_exception():
    energy = Counted(GaussianMixture(torch.zeros(1, 2)))
    with pytest.raises(RuntimeError, match="stop"), energy.stage("search"):
        raise RuntimeError("stop")
    energy(torch.zeros(2))
    assert energy.counts["other"].energy == 1 and "search" not in energy.counts


@pytest.mark.parametrize(
    ("kernel", "per_step"), [(MALA(0.01), 1), (HMC(0.01, leapfrog_steps=7), 7)]
)
def test_kernels_make_no_hidden_evaluations(kernel, per_step):
    energy = Counted(LennardJones(4))
    gen = torch.Generator().manual_seed(0)
    state = kernel.init(torch.randn(6, 4, 3, generator=gen) * 3, energy)
    assert energy.counts["other"].gradient == 6
    for _ in range(5):
        state, _ = kernel.step(state, energy, gen)
    count = energy.counts["other"]
    assert count.energy == count.gradient == 6 + 6 * 5 * per_step
