"""The posterior over the rotation of frames against brute force, which knows only the density of
the noise: a much finer grid over all rotations, and random rotations where that is too coarse."""

import math

import numpy as np
import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError
from orbitwise.groups.se3 import rigid, rotation_of, rotation_vector
from orbitwise.orbits.posterior.rigid import posterior as solver

PROCESS = ow.FrameProcess(ow.GaussianProcess.flow(scale=10.0, zero_com=True))


def case(items, residues, time, seed=0, straight=False, process=PROCESS):
    """Clean frames, noisy ones, times."""
    gen = torch.Generator().manual_seed(seed)
    origins = 3 * torch.randn(items, residues, 3, generator=gen, dtype=torch.float64)
    if straight:
        origins[..., 1:] = 0
    turns = ow.SO3().sample((items, residues), generator=gen, dtype=torch.float64)
    frames = rigid(turns, origins - origins.mean(-2, keepdim=True))
    t = torch.full((items,), time, dtype=torch.float64)
    return frames, process.perturb(frames, t, generator=gen), t


def everywhere(level):
    """Rotations and log Haar weights, exact to the degree ``2 level - 1``."""
    cosines, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(level))
    around = torch.arange(2 * level, dtype=torch.float64) * math.pi / level
    a, b, c = torch.meshgrid(around, cosines.arccos(), around, indexing="ij")
    y, z = torch.zeros_like(a), torch.zeros_like(a)
    turn = [torch.stack(v, -1) for v in ((y, z, a), (y, b, z), (y, z, c))]
    rotation = rotation_of(turn[0]) @ rotation_of(turn[1]) @ rotation_of(turn[2])
    log = (weights / (8 * level**2)).log()[None, :, None].expand(a.shape)
    return rotation.flatten(0, 2), log.flatten()


def brute(process, noisy, frames, t, level):
    """Log evidence, mean rotation, mean of the turns."""
    g, log = everywhere(level)
    logs = torch.cat(
        [process.log_density(noisy, part[:, None, None] @ frames, t) for part in g.split(8000)]
    )
    logs = logs + log[:, None]
    evidence = logs.logsumexp(0)
    weight = (logs - evidence).exp()
    heavy = weight.amax(-1) > 1e-12
    turn = rotation_vector(noisy[..., :3].mT @ g[heavy][:, None, None] @ frames[..., :3])
    turn = (weight[heavy][..., None, None] * turn).sum(0)
    return evidence, torch.einsum("qb,qij->bij", weight, g), turn


@pytest.mark.parametrize(("time", "level"), [(0.05, 16), (0.6, 16), (0.8, 24), (0.9, 30)])
@pytest.mark.parametrize(("residues", "straight"), [(2, True), (4, False)])
def test_a_fine_grid_finds_the_same(residues, straight, time, level):
    frames, noisy, t = case(2, residues, time, seed=residues, straight=straight)
    post = ow.frame_posterior(PROCESS, noisy, frames, t)
    evidence, mean, turn = brute(PROCESS, noisy, frames, t, level)
    assert (post.outside < 1e-5).all()
    tolerance = 1e-6 + 10 * post.outside.max().item()
    torch.testing.assert_close(post.log_evidence, evidence, rtol=0, atol=tolerance)
    torch.testing.assert_close(post.mean_rotation, mean, rtol=0, atol=tolerance)
    # the logarithm jumps at half turns, for either grid
    tolerance = 10 * tolerance if time > 0.6 else 0.02
    torch.testing.assert_close(post.mean_turns, turn, rtol=0, atol=tolerance)


@pytest.mark.parametrize("time", [0.95, 0.9999])
def test_random_rotations_near_the_mode_find_the_same_at_small_noise(time):
    """Importance sampling from a Gaussian in the tangent space that is no part of the solver."""
    frames, noisy, t = case(2, 6, time)
    post = ow.frame_posterior(PROCESS, noisy, frames, t)
    assert (post.outside < 1e-6).all()

    gen = torch.Generator().manual_seed(5)
    u, _, v = torch.linalg.svd(noisy[..., 3].mT @ frames[..., 3])
    flip = torch.ones(2, 3, dtype=u.dtype)
    flip[:, 2] = torch.linalg.det(u @ v)
    pole = (u * flip[:, None]) @ v  # Kabsch of the origins
    width = torch.full((2, 3), 3 * (1 - time), dtype=u.dtype)
    for _ in range(3):  # moments, from draws that come closer
        _, weight, turn, _ = draws(pole, width, gen, noisy, frames, t, 4000)
        pole = rotation_of((weight[..., None] * turn).sum(0)) @ pole
        width = 1.4 * (weight[..., None] * turn**2).sum(0).sqrt()
    evidence, weight, turn, error = draws(pole, width, gen, noisy, frames, t, 40_000)
    assert (error < 0.02).all()
    assert ((post.log_evidence - evidence).abs() < 5 * error).all()
    mean = (weight[..., None, None] * (rotation_of(turn) @ pole)).sum(0)
    assert ((post.mean_rotation - mean).abs() < 5 * error.max() * width.max()).all()


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.3, 0.7, 1.5])
def test_one_frame_has_a_closed_form(sigma):
    """The kernel integrates to 1 and has the mean ``exp(-σ²)`` around its middle."""
    process, noisy, frames, t = split_frames(rotation_of(torch.ones(1, 3).double()), sigma)
    post = ow.frame_posterior(process, noisy, frames, t)
    middle = (noisy[..., :3] @ frames[..., :3].mT)[:, 0]
    expected = math.exp(-(sigma**2)) * middle
    torch.testing.assert_close(post.log_evidence, torch.zeros(1).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(post.mean_rotation, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("time", [0.05, 0.5, 0.9, 0.99, 0.999])
def test_where_rotations_say_nothing_it_is_the_matrix_fisher_law(time):
    process = ow.FrameProcess(PROCESS.translation, sigma_min=4.0, sigma_max=4.0)
    frames, noisy, t = case(4, 5, time, seed=8, process=process)
    post = ow.frame_posterior(process, noisy, frames, t)
    known = ow.orbit_posterior(ow.SO3(), process.translation, frames[..., 3], noisy[..., 3], t)
    torch.testing.assert_close(post.log_evidence, known.log_evidence, rtol=0, atol=1e-5)
    torch.testing.assert_close(post.mean[..., 3], known.mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(post.score_origins, known.score, rtol=1e-4, atol=1e-4)


def draws(pole, width, gen, noisy, frames, t, count):
    v = width * torch.randn(count, *width.shape, generator=gen, dtype=width.dtype)
    log_drawn = -0.5 * ((v / width) ** 2).sum(-1) - (width * (2 * math.pi) ** 0.5).log().sum(-1)
    angle = v.norm(dim=-1)
    haar = ((1 - angle.cos()) / (4 * math.pi**2 * angle**2)).log()
    g = rotation_of(v) @ pole
    logs = torch.cat(
        [PROCESS.log_density(noisy, part[:, :, None] @ frames, t) for part in g.split(10_000)]
    )
    logs = logs + haar - log_drawn
    evidence = logs.logsumexp(0) - math.log(count)
    ratio = (logs - evidence).exp()
    return evidence, ratio / count, v, ratio.std(0) / count**0.5


def split_frames(turns, sigma):
    """Frames of one place each of which was turned its own way: as many modes as one likes."""
    process = ow.FrameProcess(
        ow.GaussianProcess.flow(zero_com=True), sigma_min=sigma, sigma_max=sigma
    )
    gen = torch.Generator().manual_seed(0)
    clean = ow.SO3().sample((1, len(turns)), generator=gen, dtype=torch.float64)
    still = torch.zeros(1, len(turns), 3, dtype=torch.float64)
    t = torch.tensor([0.5], dtype=torch.float64)
    return process, rigid(turns @ clean, still), rigid(clean, still), t


DIAGONALS = [[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
FOUR = torch.diag_embed(torch.tensor(DIAGONALS, dtype=torch.float64))  # eight rotations between


@pytest.mark.parametrize(("apart", "sigma"), [(0.9, 0.3), (0.97, 0.25), (0.97, 0.3), (1.0, 0.3)])
def test_two_modes(apart, sigma):
    half = torch.tensor([[0.0, 0, 0], [0, 0, apart * math.pi]], dtype=torch.float64)
    process, noisy, frames, t = split_frames(rotation_of(half), sigma)
    post = ow.frame_posterior(process, noisy, frames, t)
    evidence, mean, _ = brute(process, noisy, frames, t, level=24)
    torch.testing.assert_close(post.log_evidence, evidence, rtol=0, atol=1e-7)
    torch.testing.assert_close(post.mean_rotation, mean, rtol=0, atol=1e-7)
    assert post.outside < 1e-7


def test_eight_modes_and_what_is_said_where_fewer_are_looked_for(monkeypatch):
    process, noisy, frames, t = split_frames(FOUR, 0.25)
    evidence = brute(process, noisy, frames, t, level=24)[0]
    post = ow.frame_posterior(process, noisy, frames, t)
    torch.testing.assert_close(post.log_evidence, evidence, rtol=0, atol=1e-7)
    assert post.outside < 1e-7

    monkeypatch.setattr(solver, "_STARTS", 4)
    half = ow.frame_posterior(process, noisy, frames, t)
    assert abs(half.outside - 0.5) < 0.01
    torch.testing.assert_close(half.log_evidence, evidence - math.log(2), rtol=0, atol=1e-3)


@pytest.mark.parametrize("time", [0.3, 0.97])
def test_turning_the_noisy_frames_turns_the_posterior(time):
    frames, noisy, t = case(2, 5, time, seed=1)
    gen = torch.Generator().manual_seed(9)
    h, k = ow.SE3().sample((2, 2), generator=gen, dtype=torch.float64)
    there = ow.frame_posterior(PROCESS, ow.SE3().act(h, noisy), ow.SE3().act(k, frames), t)
    here = ow.frame_posterior(PROCESS, noisy, frames, t)
    h = h[..., :3]
    for found, expected in [
        (there.log_evidence, here.log_evidence),
        (there.mean, h[:, None] @ here.mean),
        (there.score_origins, here.score_origins @ h.mT),
        (there.score_turns, here.score_turns),  # each in its own frame
    ]:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("time", [0.3, 0.97])
def test_scores_are_the_gradient_of_the_log_evidence(time):
    frames, noisy, t = case(1, 3, time, seed=2)
    post = ow.frame_posterior(PROCESS, noisy, frames, t)
    step = 1e-3
    moves = step * torch.eye(9, dtype=torch.float64).view(9, 3, 3)

    def rise(moved):
        both = torch.cat([moved(moves), moved(-moves)])
        many = ow.frame_posterior(PROCESS, both, frames.expand(18, -1, -1, -1), t.expand(18))
        up, down = many.log_evidence.chunk(2)
        return ((up - down) / (2 * step)).view(1, 3, 3)

    turned = rise(lambda v: rigid(noisy[..., :3] @ rotation_of(v), noisy[..., 3].expand(9, 3, 3)))
    shifted = rise(lambda v: rigid(noisy[..., :3].expand(9, 3, 3, 3), noisy[..., 3] + v))
    torch.testing.assert_close(post.score_turns, turned, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(post.score_origins, shifted, rtol=1e-3, atol=1e-4)


def test_the_mean_is_what_a_network_would_learn():
    """Over many turned and noised copies of one protein the usual targets are the exact ones plus
    what no function of the noisy frames can know."""
    frames, _, _ = case(1, 3, 0.8, seed=3)
    gen = torch.Generator().manual_seed(4)
    count = 50
    g = ow.SE3().sample((count,), generator=gen, dtype=torch.float64)
    turned = ow.SE3().act(g, frames.expand(count, -1, -1, -1))
    t = torch.full((count,), 0.8, dtype=torch.float64)
    noisy = PROCESS.perturb(turned, t, generator=gen)
    post = ow.frame_posterior(PROCESS, noisy, frames.expand(count, -1, -1, -1), t)
    turn = rotation_vector(noisy[..., :3].mT @ turned[..., :3])
    for usual, exact in [
        (turned, post.mean),
        (turn, post.mean_turns),
        (PROCESS.turn_score(turn, t), post.score_turns),
    ]:
        rest = ((usual - exact) * exact).flatten(1).sum(-1)
        assert rest.mean().abs() < 5 * rest.std() / count**0.5
        removed, whole = (usual - exact).square().mean(), usual.square().mean()
        assert removed > 0.01 * whole


@pytest.mark.parametrize("time", [0.3, 0.95])
def test_padding_changes_nothing_and_batches_may_have_any_shape(time):
    frames, noisy, t = case(4, 5, time, seed=6)
    alone = ow.frame_posterior(PROCESS, noisy[..., :4, :, :], frames[..., :4, :, :], t)
    mask = torch.tensor([True] * 4 + [False]).expand(4, 5)
    frames[:, 4], noisy[:, 4] = math.nan, math.inf
    padded = ow.frame_posterior(
        PROCESS, *(a.view(2, 2, 5, 3, 4) for a in (noisy, frames)), t.view(2, 2), mask.view(2, 2, 5)
    )
    for name in ("mean", "mean_turns", "score_origins", "score_turns"):
        found = getattr(padded, name).flatten(0, 1)
        torch.testing.assert_close(found[:, :4], getattr(alone, name), rtol=1e-7, atol=1e-7)
        assert (found[:, 4] == 0).all()
    torch.testing.assert_close(padded.log_evidence.flatten(), alone.log_evidence)
    single = ow.frame_posterior(PROCESS, noisy[0, :4], frames[0, :4], time)
    torch.testing.assert_close(single.log_evidence, alone.log_evidence[0])
    short = ow.frame_posterior(PROCESS, noisy[0, :4].float(), frames[0, :4].float(), time)
    for name in ("mean", "mean_turns", "score_origins", "score_turns"):
        assert getattr(short, name).dtype == torch.float32
        torch.testing.assert_close(
            getattr(short, name).double(), getattr(single, name), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("time", [0.3, 0.95])
def test_draws_have_the_mean(time):
    frames, noisy, t = case(2, 4, time, seed=7)
    post = ow.frame_posterior(PROCESS, noisy, frames, t)
    draws = post.sample(20_000, generator=torch.Generator().manual_seed(0))
    error = draws.std(0) / 20_000**0.5
    assert ((draws.mean(0) - post.mean_rotation).abs() < 5 * error).all()


def test_refused():
    frames, noisy, t = case(2, 4, 0.5)
    for arguments, message in [
        ((noisy[:, :3], frames, t), "of shape"),
        ((noisy[..., :3], frames[..., :3], t), "of shape"),
        ((noisy, frames * math.nan, t), "not finite"),
        ((noisy, frames, torch.ones(2)), "sigma"),
        ((noisy, frames, torch.tensor([0.5, 12.0])), "outside this process"),
        ((noisy, frames, t, torch.ones(2, 3, dtype=torch.bool)), "mask must be"),
    ]:
        with pytest.raises(InputError, match=message):
            ow.frame_posterior(PROCESS, *arguments)
