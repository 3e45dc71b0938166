"""Noise on frames against the heat kernel's characters and against Brownian motion."""

import math

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError
from orbitwise.groups.se3 import rigid, rotation_of, rotation_vector
from orbitwise.processes.frames import igso3_slope, log_igso3

ORIGINS = ow.GaussianProcess.flow(scale=10.0, zero_com=True)


def characters(angle, degree):
    """``χ_l(ω)`` for l below ``degree``, as sums of ``cos mω`` and not as quotients of sines."""
    m = torch.arange(1, degree, dtype=angle.dtype)
    steps = 2 * torch.cos(m * angle[..., None])
    return torch.cat([torch.ones_like(angle)[..., None], 1 + steps.cumsum(-1)], -1)


@pytest.mark.parametrize("sigma", [0.15, 0.5, 1.5, 3.9])
def test_the_kernel_is_the_series_of_characters(sigma):
    w = torch.linspace(1e-3, math.pi, 40, dtype=torch.float64)
    degree = torch.arange(100, dtype=torch.float64)
    fall = (2 * degree + 1) * torch.exp(-degree * (degree + 1) * sigma**2 / 2)
    series = (characters(w, 100) * fall).sum(-1)
    kernel = log_igso3(w, torch.tensor(sigma, dtype=torch.float64)).exp()
    torch.testing.assert_close(kernel, series, rtol=1e-6, atol=1e-12 * series.max().item())


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.5, 3.9])
def test_its_slope_is_its_derivative(sigma):
    w = torch.linspace(1e-3, math.pi - 1e-3, 40, dtype=torch.float64).requires_grad_()
    width = torch.tensor(sigma, dtype=torch.float64)
    (slope,) = torch.autograd.grad(log_igso3(w, width).sum(), w)
    torch.testing.assert_close(igso3_slope(w.detach(), width), slope, rtol=1e-7, atol=1e-9)


def test_noise_is_brownian_motion():
    """E χ_l = (2l + 1) exp(-l (l + 1) σ²/2) for every degree: the law, by its moments; and
    isotropic. Beside it a random walk of 100 steps, which knows no kernel."""
    process, count = ow.FrameProcess(ORIGINS), 60_000
    gen = torch.Generator().manual_seed(0)
    clean = ow.SO3().sample((1, 1), generator=gen, dtype=torch.float64)
    frames = rigid(clean.expand(1, count, 3, 3), torch.zeros(1, count, 3, dtype=torch.float64))
    for time in (0.0, 0.7, 1.0):
        t = torch.tensor([time], dtype=torch.float64)
        sigma = process.rotation_sigma(t).item()
        turn = rotation_vector(clean.mT @ process.perturb(frames, t, generator=gen)[..., :3])[0]
        walk = torch.eye(3, dtype=torch.float64).expand(5000, 3, 3)
        for _ in range(100):
            step = torch.randn(5000, 3, generator=gen, dtype=torch.float64) * sigma / 10
            walk = walk @ rotation_of(step)
        for found in (turn, rotation_vector(walk)):
            chi = characters(found.norm(dim=-1), 6)
            degree = torch.arange(6, dtype=torch.float64)
            expected = (2 * degree + 1) * torch.exp(-degree * (degree + 1) * sigma**2 / 2)
            error = chi.std(0) / len(chi) ** 0.5
            allowed = 5 * error + (1e-12 if found is turn else 1e-2)
            assert ((chi.mean(0) - expected).abs() < allowed).all()
        assert (turn.mean(0).abs() < 5 * turn.std(0) / count**0.5).all()


def test_density_integrates_to_one_and_the_score_has_mean_zero():
    process = ow.FrameProcess(ORIGINS)
    gen = torch.Generator().manual_seed(2)
    t = torch.tensor(0.8, dtype=torch.float64)
    turn = rotation_vector(ow.SO3().sample((200_000,), generator=gen, dtype=torch.float64))
    density = process.turn_log_density(turn.norm(dim=-1), t).exp()
    assert abs(density.mean() - 1) < 5 * density.std() / len(density) ** 0.5
    score = density[:, None] * process.turn_score(turn, t)
    assert (score.mean(0).abs() < 5 * score.std(0) / len(score) ** 0.5).all()


def test_padding_stays_and_origins_are_the_translations():
    process = ow.FrameProcess(ORIGINS)
    gen = torch.Generator().manual_seed(3)
    frames = ow.SE3().sample((2, 5), generator=gen)
    frames[..., 3] = torch.randn(2, 5, 3, generator=gen)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    t = torch.tensor([0.2, 0.6])
    noisy = process.perturb(frames, t, generator=torch.Generator().manual_seed(4), mask=mask)
    again = ORIGINS.perturb(
        frames[..., 3], t, generator=torch.Generator().manual_seed(4), mask=mask
    )
    assert torch.equal(noisy[mask][..., 3], again[mask])
    assert torch.equal(noisy[~mask], frames[~mask]) and noisy.dtype == frames.dtype
    orthogonal = noisy[..., :3] @ noisy[..., :3].mT
    torch.testing.assert_close(orthogonal, torch.eye(3).expand_as(orthogonal), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma_min": 0.0}, "0 < sigma_min"),
        ({"sigma_min": 2.0}, "sigma_min <= sigma_max"),
        ({"sigma_max": 5.0}, "<= 4"),
        ({"translation": ow.GaussianProcess.flow()}, "zero_com=True"),
    ],
)
def test_refused(settings, message):
    with pytest.raises(InputError, match=message):
        ow.FrameProcess(**{"translation": ORIGINS, **settings})
    with pytest.raises(InputError, match="outside this process"):
        ow.FrameProcess(ORIGINS).perturb(torch.eye(3, 4).expand(1, 2, 3, 4), torch.tensor([7.0]))
