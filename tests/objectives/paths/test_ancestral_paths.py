"""Importance weights of ancestral paths against closed forms: Gaussian data are solved exactly."""

from __future__ import annotations

import math

import pytest
import torch

from orbitwise.energies import Energy
from orbitwise.errors import InputError
from orbitwise.objectives.denoiser import Preconditioning
from orbitwise.objectives.paths.ancestral_paths import (
    AncestralSampler,
    ancestral_paths,
    noised_paths,
)
from orbitwise.objectives.paths.path import log_weight
from orbitwise.processes.gaussian import GaussianProcess, beside
from orbitwise.processes.sampling import edm_grid, snr_grid, uniform_grid

SCALE, SHAPE = 0.75, (4, 3)
PROCESSES = {
    "edm": GaussianProcess.edm,
    "ve": GaussianProcess.ve,
    "flow": GaussianProcess.flow,
    "vp": GaussianProcess.vp,
    "vp_linear": GaussianProcess.vp_linear,
}


class Gaussian(Energy):
    """U = |x - mean|²/(2 s²), of points with ``zero_com`` only of their relative positions."""

    def __init__(self, event_shape=SHAPE, scale=SCALE, zero_com=False):
        super().__init__()
        self.event_shape, self.scale, self.zero_com = tuple(event_shape), scale, zero_com
        dims = math.prod(event_shape) - (event_shape[1] if zero_com else 0)
        self.log_z = 0.5 * dims * math.log(2 * math.pi * scale**2)

    def forward(self, x):
        x = x - x.mean(-2, keepdim=True) if self.zero_com else x
        return 0.5 * x.square().sum((-2, -1)) / self.scale**2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sampler(process, grid, *, wrong=0.0, shape=SHAPE, factor=None):
    """With the exact denoiser of the Gaussian, or one that is ``wrong`` by a smooth function of x
    and t."""

    def denoise(x, t):
        c = Preconditioning.of(process, t, SCALE)
        return beside(c.skip) * x + wrong * beside(c.out) * torch.sin(
            beside(c.into) * x + beside(t)
        )

    return AncestralSampler(denoise, process, grid, SCALE, shape, factor)


@pytest.mark.parametrize("grid", [uniform_grid, edm_grid, snr_grid])
@pytest.mark.parametrize("zero_com", [False, True])
@pytest.mark.parametrize("name", PROCESSES)
def test_every_weight_is_z_for_gaussian_data(name, zero_com, grid):
    process = PROCESSES[name](zero_com=zero_com)
    energy = Gaussian(zero_com=zero_com)
    made = sampler(process, grid(process, 7))
    forward = ancestral_paths(made, energy, 50, generator())
    x1 = process.project(
        SCALE * torch.randn(50, *SHAPE, generator=generator(1), dtype=torch.float64)
    )
    for paths in (forward, noised_paths(made, x1, energy(x1), generator(2))):
        exact = torch.full((50,), energy.log_z, dtype=torch.float64)
        torch.testing.assert_close(log_weight(paths), exact, atol=1e-9, rtol=0)
        assert paths.x.shape == (8, 50, *SHAPE) and (paths.times.diff() >= 0).all()
    if zero_com:
        assert forward.x.mean(-2).abs().max() < 1e-9
    many = ancestral_paths(made, energy, 4000, generator(3)).x[-1].square().sum((1, 2)) / SCALE**2
    dims = 9 if zero_com else 12
    assert abs(many.mean() - dims) < 4 * math.sqrt(2 * dims / 4000)


@pytest.mark.parametrize("name", ["edm", "flow", "vp_linear"])
def test_weights_are_unbiased_whatever_the_denoiser_does(name):
    """E_F[w] = Z and E_B[1/w] = 1/Z for a wrong denoiser and wrong variances."""
    process = PROCESSES[name]()
    energy, n = Gaussian((1, 2)), 40_000
    grid = snr_grid(process, 6, noise_min=0.05)
    made = sampler(process, grid, wrong=0.15, shape=(1, 2), factor=torch.linspace(0.9, 1.15, 6))
    x1 = SCALE * torch.randn(n, 1, 2, generator=generator(4), dtype=torch.float64)
    forward = (log_weight(ancestral_paths(made, energy, n, generator())) - energy.log_z).exp()
    backward = (energy.log_z - log_weight(noised_paths(made, x1, energy(x1), generator(1)))).exp()
    for w in (forward, backward):
        assert w.std() > 1e-3  # the disturbance is seen
        assert abs(w.mean() - 1) < 4 * w.std() / math.sqrt(n), (w.mean(), w.std())


def test_noised_states_have_the_law_of_the_process():
    """Marginals and correlations between times of α x_1 + σ ε, from independently drawn noise."""
    process = GaussianProcess.vp()
    grid = torch.tensor([0.0, 0.2, 0.5, 0.9], dtype=torch.float64)
    made = sampler(process, grid, shape=(1, 1))
    x1 = torch.full((60_000, 1, 1), 0.4, dtype=torch.float64)
    x = noised_paths(made, x1, x1[:, 0, 0], generator()).x[:-1, :, 0, 0]
    a, s = process.alpha(grid), process.sigma(grid)
    torch.testing.assert_close(x.mean(1), 0.4 * a, atol=0.02, rtol=0)
    # Cov(x_s, x_t) = (α_s/α_t) σ_t² for s noisier than t
    noisier, cleaner = torch.minimum(grid[:, None], grid), torch.maximum(grid[:, None], grid)
    exact = (
        process.alpha(noisier)
        / process.alpha(cleaner).clamp_min(1e-30)
        * process.sigma(cleaner) ** 2
    )
    exact = torch.where(noisier == cleaner, process.sigma(noisier) ** 2, exact)
    torch.testing.assert_close(torch.cov(x), exact, atol=0.02, rtol=0)
    assert (s > 0).all()


def test_the_fitted_factor_measures_what_the_denoiser_leaves_open():
    """Data narrower than ``data_scale`` in an exact denoiser of their own: the factor is the ratio
    of posterior variances, and the weights become equal again."""
    process, narrow = GaussianProcess.edm(zero_com=True), 0.3

    def denoise(x, t):
        return beside(Preconditioning.of(process, t, narrow).skip) * x

    grid = snr_grid(process, 12, noise_min=0.02)
    plain = AncestralSampler(denoise, process, grid, SCALE, SHAPE)
    x1 = process.project(
        narrow * torch.randn(4000, *SHAPE, generator=generator(), dtype=torch.float64)
    )
    made = plain.fitted(x1, generator(1))
    exact = (
        Preconditioning.of(process, grid, narrow).out ** 2
        / Preconditioning.of(process, grid, SCALE).out ** 2
    )
    torch.testing.assert_close(made.factor, exact, rtol=0.03, atol=0)
    energy = Gaussian(SHAPE, narrow, True)
    scatter = [
        float(log_weight(ancestral_paths(one, energy, 500, generator(2))).std())
        for one in (plain, made)
    ]
    assert scatter[1] < 0.1 < scatter[0]


def test_grids_that_cannot_be_walked_are_refused():
    process = GaussianProcess.flow()
    with pytest.raises(InputError, match="increasing"):
        sampler(process, torch.tensor([0.5, 0.2]))
    with pytest.raises(InputError, match="needs noise"):
        sampler(process, torch.tensor([0.0, 1.0]))
