import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from orbitwise.energies import GaussianMixture
from orbitwise.errors import InputError


def mixture():
    gen = torch.Generator().manual_seed(1)
    means = 2 * torch.randn(3, 2, generator=gen, dtype=torch.float64)
    scales = 0.5 + torch.rand(3, 2, generator=gen, dtype=torch.float64)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    return means, scales, weights


def test_density_is_that_of_torch_distributions():
    means, scales, weights = mixture()
    energy = GaussianMixture(means, scales, 7 * weights)  # weights are normalised
    law = MixtureSameFamily(Categorical(weights), Independent(Normal(means, scales), 1))
    x = 3 * torch.randn(5, 50, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(energy(x), -law.log_prob(x), rtol=1e-12, atol=1e-12)


def test_integrates_to_one_on_a_grid():
    energy = GaussianMixture(*mixture())
    axis = torch.linspace(-12, 12, 601, dtype=torch.float64)
    total = torch.exp(-energy(torch.cartesian_prod(axis, axis))).sum() * (axis[1] - axis[0]) ** 2
    assert abs(math.log(total.item()) - energy.log_z) < 1e-9


def test_samples_have_the_mixtures_moments():
    means, scales, weights = mixture()
    n = 200_000
    x = GaussianMixture(means, scales, weights).sample(
        (4, n // 4), generator=torch.Generator().manual_seed(3)
    )
    assert x.shape == (4, n // 4, 2)
    x = x.flatten(0, 1)
    mean = (weights[:, None] * means).sum(0)
    variance = (weights[:, None] * (scales**2 + means**2)).sum(0) - mean**2
    for power, exact in ((x, mean), ((x - mean) ** 2, variance)):
        assert ((power.mean(0) - exact).abs() < 4 * power.std(0) / n**0.5).all()


def test_a_mixture_over_point_clouds():
    means = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    energy = GaussianMixture(means, torch.tensor([0.5, 2.0]))
    flat = GaussianMixture(means.flatten(1), torch.tensor([0.5, 2.0]))
    x = energy.sample((7,), generator=torch.Generator().manual_seed(5))
    assert energy.event_shape == (4, 3) and x.shape == (7, 4, 3)
    torch.testing.assert_close(energy(x), flat(x.flatten(1)))
    torch.testing.assert_close(
        energy.value_and_grad(x)[1].flatten(1), flat.value_and_grad(x.flatten(1))[1]
    )


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.zeros(3, 2), torch.ones(2)),
        (torch.zeros(3, 2), 1.0, torch.ones(4)),
        (torch.zeros(3, 2), -1.0),
        (torch.zeros(3, 2), 1.0, torch.tensor([1.0, 0.0, 1.0])),
    ],
)
def test_shapes_and_signs_that_do_not_fit_are_refused(arguments):
    with pytest.raises(InputError, match="mixture"):
        GaussianMixture(*arguments)


def test_forty_is_the_published_mixture(shared_data):
    reference = np.load(shared_data("gmm40_manywell/gmm40.npz"))
    energy = GaussianMixture.forty()
    assert np.array_equal(energy.means.numpy(), reference["means"])
    assert abs(float(energy.scales[0, 0]) - float(reference["std"])) < 1e-7
    # The reference samples, drawn by another program: mean energy against samples of our own.
    theirs = energy(torch.from_numpy(reference["samples"]))
    ours = energy(energy.sample((20_000,), generator=torch.Generator().manual_seed(0)))
    error = (theirs.var() + ours.var()).sqrt() / 20_000**0.5
    assert (theirs.mean() - ours.mean()).abs() < 4 * error
