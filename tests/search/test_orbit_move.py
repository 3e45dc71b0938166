import pytest
import torch

from orbitwise.energies import DoubleWell, GaussianMixture, LennardJones
from orbitwise.energies.base import Energy
from orbitwise.errors import EnergyError
from orbitwise.groups.finite import Finite
from orbitwise.groups.permutation import Permutation
from orbitwise.groups.product import Product
from orbitwise.groups.so3 import SO3
from orbitwise.search import HMC, ApproximateOrbitMove, Cycle, OrbitMove, run


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "group", [SO3(), Permutation(5), Product(SO3(), Permutation(5))], ids=["R", "S", "RxS"]
)
def test_energy_and_turned_gradient_are_exact(group):
    energy = LennardJones(5).double()
    x = 2 * torch.randn(20, 5, 3, generator=gen(1), dtype=torch.float64)
    kernel = OrbitMove(group)
    state, info = kernel.step(kernel.init(x, energy), energy, gen(2))
    value, grad = energy.value_and_grad(state.x)
    assert info.accepted.all() and (state.x != x).flatten(1).any(1).sum() >= 19
    torch.testing.assert_close(state.energy, value)
    torch.testing.assert_close(state.grad, grad)


def test_both_signs_of_a_symmetric_well_are_reached_equally():
    energy = GaussianMixture(torch.tensor([[-8.0], [8.0]]), torch.tensor([0.5, 0.5]))
    signs = Finite(torch.tensor([[[1.0]], [[-1.0]]]))
    kernel = Cycle((HMC(0.3, 3), OrbitMove(signs)))
    x = run(kernel, kernel.init(torch.full((50, 1), 8.0), energy), energy, 200, generator=gen(3)).x
    share = (x > 0).double().mean()  # a fresh coin every step
    assert abs(share - 0.5) < 4 * 0.5 / (50 * 200) ** 0.5


def test_what_is_no_symmetry_is_refused():
    lopsided = GaussianMixture(torch.tensor([[-8.0], [8.0]]), 1.0, torch.tensor([0.2, 0.8]))
    signs = Finite(torch.tensor([[[1.0]], [[-1.0]]]))
    with pytest.raises(EnergyError, match="ApproximateOrbitMove"):
        OrbitMove(signs).init(torch.full((5, 1), 8.0), lopsided)
    moved = GaussianMixture(torch.ones(1, 4, 3))
    with pytest.raises(EnergyError, match="SO3"):
        OrbitMove(SO3()).init(torch.randn(5, 4, 3, generator=gen()), moved)


def test_a_group_that_is_not_orthogonal_is_refused():
    """x -> -x/2 in one direction and 2x in the other keeps |x y| but turns no gradient as a
    vector."""

    class Hyperbolic(Energy):
        event_shape = (1, 2)

        def forward(self, x):
            return x.prod(-1).square().sum(-1)

    skew = Finite(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [0.5, 0.0]]]))
    with pytest.raises(EnergyError, match="gradient"):
        OrbitMove(skew).init(torch.tensor([[[1.0, 3.0]], [[0.5, 2.0]]]), Hyperbolic())


def test_an_approximate_symmetry_is_weighed_right():
    lopsided = GaussianMixture(torch.tensor([[-8.0], [8.0]]), 1.0, torch.tensor([0.2, 0.8]))
    signs = Finite(torch.tensor([[[1.0]], [[-1.0]]]))
    kernel = Cycle((HMC(0.5, 3), ApproximateOrbitMove(signs)))
    state = kernel.init(torch.full((100, 1), 8.0), lopsided)
    x = run(kernel, state, lopsided, 400, generator=gen(4)).x[50:]
    share = (x > 0).double().mean(0)
    assert abs(share.mean() - 0.8) < 4 * share.std() / 100**0.5


def test_centred_points_stay_centred():
    energy = DoubleWell(4, 3).double()
    x = 3 * torch.randn(6, 4, 3, generator=gen(5), dtype=torch.float64)
    x = x - x.mean(-2, keepdim=True)
    kernel = OrbitMove(SO3())
    state, _ = kernel.step(kernel.init(x, energy), energy, gen(6))
    assert state.x.mean(-2).abs().max() < 1e-12
