import math

import numpy as np
import pytest
import torch

from orbitwise.energies import DoubleWell


def test_against_a_plain_double_loop():
    x = 3 * torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    energy = DoubleWell().double()
    for row, value in zip(x, energy(x), strict=True):
        total = 0.0
        for i in range(4):
            for j in range(i):
                d = float((row[i] - row[j]).norm()) - 4.0
                total += 0.9 * d**4 - 4.0 * d**2
        assert abs(total - value.item()) < 1e-10 * abs(total) + 1e-10


def test_log_z_by_importance_sampling():
    """Oracle: particles 2 to 4 drawn on the exact radial density around particle 1.

    With r_k = x_k - x_1 the zero-centre-of-mass volume element is dr_2 dr_3 dr_4 (1/4)^(D/2), D =
    2: the Gram matrix of the centred unit shifts is I - 11ᵀ/4 with determinant 1/4, once per
    dimension.
    """
    gen = torch.Generator().manual_seed(0)
    count = 400_000
    nodes = torch.linspace(0.0, 8.0, 20_001, dtype=torch.float64)
    pair = 0.9 * (nodes - 4) ** 4 - 4 * (nodes - 4) ** 2
    cdf = torch.cumulative_trapezoid(nodes * torch.exp(-pair), nodes)
    radius = nodes[1:][
        torch.searchsorted(cdf / cdf[-1], torch.rand(count, 3, generator=gen).double())
    ]
    radius = radius + (torch.rand(count, 3, generator=gen).double() - 0.5) * (nodes[1] - nodes[0])
    angle = 2 * math.pi * torch.rand(count, 3, generator=gen).double()
    others = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    x = torch.cat([torch.zeros(count, 1, 2, dtype=torch.float64), others], 1)
    log_q = (
        -0.9 * (radius - 4) ** 4 + 4 * (radius - 4) ** 2 - math.log(2 * math.pi * cdf[-1])
    ).sum(1)
    log_w = -DoubleWell().double()(x) - log_q - math.log(4)
    w = (log_w - log_w.max()).exp()
    error = (w.std() / w.mean() / count**0.5).item()
    estimate = (w.mean().log() + log_w.max()).item()
    assert error < 0.02
    assert abs(estimate - DoubleWell().log_z) < 4 * (error**2 + 0.005**2) ** 0.5


def test_log_z_is_known_for_dw4_only():
    assert DoubleWell().log_z == 29.665
    assert DoubleWell(3).log_z is None and DoubleWell(quartic=1.0).log_z is None


def test_reference_samples_have_the_stated_energy_and_virial(shared_data):
    path = shared_data("boltzmann_generated/dw4.npz")
    samples = torch.from_numpy(np.load(path)["samples"]).double()
    value, grad = DoubleWell().double().value_and_grad(samples)
    assert abs(value.mean().item() + 22.548) < 1e-3
    virial = (samples * grad).sum((-1, -2))
    assert abs(virial.mean().item() - 6.0) < 4 * 0.17


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_on_one_another(dtype):
    """The energy is the limit, the gradient of the pair none: it has no direction."""
    x = torch.tensor([[0.0, 0], [0, 0], [3, 0]], dtype=dtype)
    energy = DoubleWell(3, 2, 0.9, -4.0, 4.0).to(dtype)
    value, grad = energy.value_and_grad(x)
    assert value.item() == pytest.approx(0.9 * 4**4 - 4 * 4**2 + 2 * (0.9 - 4), rel=1e-6)
    y = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(energy(y), y)
    expected = 4 * 0.9 * (-1) ** 3 + 2 * -4.0 * -1  # of a pair at distance 3, by it
    torch.testing.assert_close(grad[:, 0], torch.tensor([-1, -1, 2]).to(x) * expected)
    torch.testing.assert_close(slope, grad)
    near = x.clone()
    near[1, 0] = 1e-12
    assert torch.isfinite(energy.value_and_grad(near)[1]).all()
