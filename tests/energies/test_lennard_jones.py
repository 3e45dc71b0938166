import math

import numpy as np
import pytest
import torch

from orbitwise.energies import LennardJones


@pytest.mark.parametrize("arguments", [{}, {"epsilon": 0.7, "r_min": 1.3, "trap": 0.4}])
def test_against_a_plain_double_loop_over_ordered_pairs(arguments):
    x = 1.2 * torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value = LennardJones(5, **arguments).double()(x)
    epsilon, r_min, trap = (arguments.get(k, 1.0) for k in ("epsilon", "r_min", "trap"))
    for row, u in zip(x, value, strict=True):
        total = 0.5 * trap * float(((row - row.mean(0)) ** 2).sum())
        for i in range(5):
            for j in range(5):
                if i != j:
                    q = r_min / float((row[i] - row[j]).norm())
                    total += epsilon * (q**12 - 2 * q**6)
        assert abs(total - u.item()) < 1e-9 * abs(total)


def test_a_pair_at_its_minimum():
    x = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    energy = LennardJones(2, trap=0.0).double()
    value, grad = energy.value_and_grad(x)
    assert abs(value.item() + 2.0) < 1e-7 and grad.abs().max() < 1e-7


def test_float32_keeps_its_accuracy_on_a_cluster():
    x = torch.randn(20, 13, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    fine, coarse = (
        LennardJones(13).double().value_and_grad(x),
        LennardJones(13).value_and_grad(x.float()),
    )
    for a, b in zip(fine, coarse, strict=True):
        assert ((a - b).abs() / (1 + a.abs())).max() < 2e-5


def test_lj13_reference_samples(shared_data):
    data = np.load(shared_data("lj13_reference/lj13.npz"))
    x = torch.from_numpy(data["val"]).double()
    value, grad = LennardJones(13).double().value_and_grad(x)
    np.testing.assert_allclose(value.numpy(), data["energy_val"], atol=1e-4)
    assert abs(value.mean().item() + 43.06) < 0.1
    virial = (x * grad).sum((-1, -2))
    assert abs(virial.mean().item() - 36) < 4 * virial.std().item() / len(x) ** 0.5


def test_lj55_reference_samples(shared_data):
    data = np.load(shared_data("boltzmann_generated/lj55.npz"))
    x = torch.from_numpy(data["samples"])[::5].double()
    value, grad = LennardJones(55).double().value_and_grad(x)
    chain = torch.from_numpy(data["chain"])[::5].long()
    for quantity, exact, theirs in ((value, -325.55, 0.14), ((x * grad).sum((-1, -2)), 162.0, 0.0)):
        # chains are independent, what is inside them is not
        means = torch.stack([quantity[chain == c].mean() for c in chain.unique()])
        error = (means.var().item() / len(means) + theirs**2) ** 0.5
        assert abs(means.mean().item() - exact) < 4 * error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("apart", [0.0, 1e-30, 1e-20, 1e-6, 1e-3, 3e-3, 0.05])
def test_points_on_one_another_have_a_gradient_without_nan(dtype, apart):
    """Two of three points coincide: the third feels twice the pull of one."""
    x = torch.tensor([[0.0, 0, 0], [apart, 0, 0], [0, 1.3, 0]], dtype=dtype)
    energy = LennardJones(3, epsilon=0.7, r_min=1.1, trap=0.0).to(dtype)
    value, grad = energy.value_and_grad(x)
    y = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(energy(y), y)
    assert torch.isfinite(grad).all() and torch.isfinite(slope).all()
    if apart < 1e-25:
        assert value == math.inf
        pair = LennardJones(2, epsilon=0.7, r_min=1.1, trap=0.0).to(dtype)
        alone = pair.value_and_grad(x[[0, 2]])[1]
        torch.testing.assert_close(slope[2], 2 * alone[1])
    if apart == 0:
        torch.testing.assert_close(grad, slope)
    if apart >= 3e-3:
        assert grad[1, 0] < 0 < grad[0, 0]
        torch.testing.assert_close(grad, slope, rtol=1e-3, atol=1e-3)


def test_a_nan_is_not_hidden():
    x = torch.zeros(2, 3, 3)
    x[0, 0, 0] = math.nan
    value, grad = LennardJones(3).value_and_grad(x)
    assert value[0].isnan() and grad[0].isnan().any() and not grad[1].isnan().any()
