"""Samples of several temperatures put together: closed forms and large samples."""

from __future__ import annotations

import math

import pytest
import torch

from orbitwise.errors import EnergyError, InputError
from orbitwise.metrics.multistate import _free_energies, multistate_log_weights


def harmonic(sizes, betas, dims=3, seed=0):
    """Points and energies U = |x|²/2 of exp(-βU) for each β."""
    g = torch.Generator().manual_seed(seed)
    x = [
        torch.randn(n, dims, generator=g, dtype=torch.float64) / math.sqrt(b)
        for n, b in zip(sizes, betas, strict=True)
    ]
    return x, [0.5 * p.square().sum(1) for p in x]


def test_free_energies_of_oscillators_are_the_known_ones():
    betas, sizes = torch.tensor([1.0, 0.6, 0.3]).double(), (20_000, 10_000, 30_000)
    _, u = harmonic(sizes, betas)
    reduced = betas[:, None] * torch.cat(u)
    free = _free_energies(reduced, torch.tensor(sizes, dtype=torch.float64))
    # Z ∝ β^(-3/2), so f = 1.5 ln β
    expected = 1.5 * (betas / betas[0]).log()
    assert torch.allclose(free - free[0], expected, atol=0.02)


def test_weights_solve_the_published_equations():
    """Eq. 11, tested by inserting: Σ_n exp(f_k - u_k) / Σ_j N_j exp(f_j - u_j) = 1 for every k."""
    betas, sizes = torch.tensor([1.0, 0.7, 0.45, 0.3]).double(), (50, 0, 80, 30)
    _, u = harmonic(sizes, betas)
    log_weights = torch.cat(multistate_log_weights(u, betas))
    energy = torch.cat(u)
    # w_0 ∝ exp(-u_0) / mixture: the mixture follows from the weights, and with it all of eq. 11
    log_mixture = -betas[0] * energy - log_weights
    free = torch.stack([-(-b * energy - log_mixture).logsumexp(0) for b in betas])
    n = torch.tensor(sizes, dtype=torch.float64)
    again = (n.log()[:, None] + free[:, None] - betas[:, None] * energy).logsumexp(0)
    assert torch.allclose(again - again[0], log_mixture - log_mixture[0], atol=1e-7)


def test_hotter_samples_make_the_mean_more_certain():
    """Mean of U at the target is 3/2 from the target alone and from all, and all are worth more."""
    betas, alone, pooled = torch.tensor([1.0, 0.8, 0.6]).double(), [], []
    for seed in range(60):
        _, u = harmonic((200, 400, 400), betas, seed=seed)
        w = [v.exp() for v in multistate_log_weights(u, betas)]
        pooled.append(sum((a * b).sum() for a, b in zip(w, u, strict=True)))
        alone.append(u[0].mean())
    pooled, alone = torch.stack(pooled), torch.stack(alone)
    assert abs(pooled.mean() - 1.5) < 4 * pooled.std() / 60**0.5
    assert pooled.std() < 0.8 * alone.std()


def test_one_temperature_weighs_all_alike_and_shapes_come_back():
    (w,) = multistate_log_weights([torch.randn(7)], torch.ones(1))
    assert torch.allclose(w.exp(), torch.full((7,), 1 / 7).double())
    betas = torch.tensor([1.0, 0.5])
    a, b = multistate_log_weights([torch.rand(4), torch.rand(0)], betas)
    assert len(a) == 4 and len(b) == 0


def test_what_cannot_be_put_together():
    with pytest.raises(InputError, match="as many sets"):
        multistate_log_weights([torch.rand(3)], torch.tensor([1.0, 0.5]))
    with pytest.raises(InputError, match="at least one sample"):
        multistate_log_weights([torch.rand(0)], torch.ones(1))
    with pytest.raises(EnergyError, match="not finite"):
        multistate_log_weights([torch.tensor([0.0, torch.inf])], torch.ones(1))
