"""Noise aligned to the data: the bias of the usual posterior, and the exact one instead."""

import math

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError, NoClosedFormError

FLOW = ow.GaussianProcess.flow()


def kabsch(a, b):
    """Rotations R with ``a @ R.mT`` closest to ``b``, by singular values."""
    U, _, Vt = torch.linalg.svd(a.mT @ b)
    fix = torch.ones(len(a), 3, dtype=a.dtype)
    fix[:, -1] = torch.linalg.det(U @ Vt)
    return Vt.mT @ (fix[..., None] * U.mT)


def drawn(count, points, time, seed=0):
    """``x1``, aligned noise, ``x_t`` turned at random, and the pose of ``x1`` that made it."""
    gen = torch.Generator().manual_seed(seed)
    x1, z = torch.randn(2, count, points, 3, generator=gen, dtype=torch.float64)
    x0 = z @ kabsch(z, x1).mT
    g = ow.SO3().sample((count,), generator=gen, dtype=torch.float64)
    t = torch.full((count,), time, dtype=torch.float64)
    pose = ow.SO3().act(g, x1)
    return x1, ow.SO3().act(g, x0), time * pose + (1 - time) * ow.SO3().act(g, x0), t, pose


def test_targets_for_independent_noise_are_biased_under_aligned_noise():
    """A mean given x_t is uncorrelated with what it leaves; here a fifth of |x1|² is not."""
    x1, _, xt, t, pose = drawn(4000, 9, 0.2)
    mean = ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, t).mean
    left = (mean * (pose - mean)).sum((-2, -1)) / x1.square().sum((-2, -1)).mean()
    error = left.std() / len(left) ** 0.5
    assert error < 0.005
    assert abs(left.mean() - 0.222) < 0.01

    free = torch.randn(xt.shape, generator=torch.Generator().manual_seed(1), dtype=xt.dtype)
    xt = 0.2 * pose + 0.8 * free
    mean = ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, t).mean
    left = (mean * (pose - mean)).sum((-2, -1)) / x1.square().sum((-2, -1)).mean()
    assert abs(left.mean()) < 4 * left.std() / len(left) ** 0.5


@pytest.mark.parametrize("time", [0.02, 0.2, 0.9])
def test_aligned_noise_tells_the_pose(time):
    x1, _, xt, t, pose = drawn(300, 6, time)
    post = ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, t, coupling="aligned")
    torch.testing.assert_close(post.mean, pose, rtol=0, atol=1e-8)
    torch.testing.assert_close(post.noise, (xt - time * pose) / (1 - time), rtol=0, atol=1e-7)
    torch.testing.assert_close(post.velocity, pose - post.noise, rtol=0, atol=1e-7)
    assert post.exact


def test_permuted_and_turned_noise_tells_both():
    """Kabsch and every permutation tried: the best of all 6 · SO(3)."""
    x1, z, _, t, _ = drawn(200, 3, 0.3)
    group = ow.Product(ow.SO3(), ow.Permutation(3))
    tables = ow.Permutation(3).enumerate()[0]
    tries = torch.stack([z[:, table] @ kabsch(z[:, table], x1).mT for table in tables])
    best = (tries - x1).square().sum((-2, -1)).argmin(0)
    x0 = tries[best, torch.arange(len(x1))]
    g = group.sample((200,), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    pose = group.act(g, x1)
    xt = 0.3 * pose + 0.7 * group.act(g, x0)
    post = ow.orbit_posterior(group, FLOW, x1, xt, t, coupling="aligned")
    torch.testing.assert_close(post.mean, pose, rtol=0, atol=1e-8)


def test_the_score_is_the_gradient_of_the_evidence_and_keeps_steins_identity():
    x1, _, xt, t, _ = drawn(4000, 4, 0.3)

    def evidence(x):
        return ow.orbit_posterior(ow.SO3(), FLOW, x1, x, t, coupling="aligned").log_evidence

    score = ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, t, coupling="aligned").score
    gen = torch.Generator().manual_seed(2)
    step = 1e-6 * torch.randn(xt.shape, generator=gen, dtype=xt.dtype)
    change = (evidence(xt + step) - evidence(xt - step)) / 2
    slope = (score * step).sum((-2, -1))
    assert ((change - slope).abs() / slope.abs().clamp_min(1e-6)).median() < 1e-4

    work = (score * xt).sum((-2, -1))  # ∫ x·∇p = −dimension
    assert abs(work.mean() + 12) < 4 * work.std() / len(work) ** 0.5


@pytest.mark.parametrize("time", [0.15, 0.4])
def test_the_evidence_is_a_density(time):
    """E_p[q/p] is the mass of q where p lives, for any density q."""
    count, points = 60_000, 3
    x1, _, xt, _, _ = drawn(count, points, time)
    x1 = x1[:1].expand(count, -1, -1)
    gen = torch.Generator().manual_seed(5)
    z = torch.randn(xt.shape, generator=gen, dtype=xt.dtype)
    xt = time * x1 + (1 - time) * z @ kabsch(z, x1).mT

    # another law of the same kind, of an earlier time: it lives where that of t is not zero
    def at(x, time):
        t = torch.full((count,), time, dtype=torch.float64)
        return ow.orbit_posterior(ow.SO3(), FLOW, x1, x, t, coupling="aligned").log_evidence

    later = time + 0.05
    ratio = (at(xt, later) - at(xt, time)).exp()
    mean, error = ratio.mean(), ratio.std() / count**0.5
    assert error < 0.02
    assert abs(mean - 1) < 4 * error


def test_x_t_that_no_aligned_noise_makes_has_no_evidence():
    x1 = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))[None]
    far = ow.orbit_posterior(ow.SO3(), FLOW, x1, 0.1 * x1, 0.5, coupling="aligned")
    assert far.log_evidence.item() == -math.inf  # x0 = −0.8 x1


def test_a_process_may_say_that_its_noise_is_aligned():
    class Aligned:
        coupling = "aligned"

        def alpha(self, t):
            return t

        def sigma(self, t):
            return 1 - t

    x1, _, xt, t, pose = drawn(10, 5, 0.3)
    torch.testing.assert_close(ow.orbit_posterior(ow.SO3(), Aligned(), x1, xt, t).mean, pose)


def test_noise_that_was_aligned_is_seen():
    _, x0, xt, t, _ = drawn(16, 5, 0.3)
    pose = (xt - 0.7 * x0) / 0.3
    with pytest.warns(UserWarning, match="aligned"):
        ow.orbit_posterior(ow.SO3(), FLOW, pose, xt, t, x0=x0)


@pytest.mark.filterwarnings("error")
def test_no_warning_for_independent_noise_or_where_it_was_said():
    x1, x0, xt, t, _ = drawn(16, 5, 0.3)
    gen = torch.Generator().manual_seed(3)
    free = torch.randn(x0.shape, generator=gen, dtype=x0.dtype)
    ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, t, x0=free)
    ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, t, x0=x0, coupling="aligned")


def test_what_aligned_noise_does_not_cover_is_refused():
    x1, _, xt, t, _ = drawn(4, 5, 0.3)
    ask = {"coupling": "aligned"}
    with pytest.raises(NoClosedFormError, match="rotations, reflections and permutations"):
        ow.orbit_posterior(ow.Translation(), FLOW, x1, xt, t, **ask)
    with pytest.raises(InputError, match="method"):
        ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, t, method="snis", **ask)
    with pytest.raises(InputError, match="one cloud"):
        ow.orbit_posterior(ow.SO3(), FLOW, torch.stack([x1, x1]), xt, t, **ask)
    with pytest.raises(InputError, match="weights"):
        ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, t, weights=torch.ones(4, 5), **ask)
    with pytest.raises(InputError, match="none of"):
        ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, t, coupling="minibatch")


def test_reflections_and_zero_centre_of_mass():
    """O(3)-aligned noise at zero centre of mass, with a padded point: pose and density."""
    process = ow.GaussianProcess.flow(zero_com=True)
    gen = torch.Generator().manual_seed(7)
    mask = torch.tensor([True] * 5 + [False]).expand(6000, 6)
    x1, z = torch.randn(2, 6000, 6, 3, generator=gen, dtype=torch.float64)
    x1 = process.project(x1[:1].expand_as(x1) * mask[..., None], mask)
    z = process.noise(z, generator=gen, mask=mask)
    U, _, Vt = torch.linalg.svd(z.mT @ x1)
    x0 = z @ U @ Vt
    g = ow.O3().sample((6000,), generator=gen, dtype=torch.float64)
    pose = ow.O3().act(g, x1)
    xt = 0.3 * pose + 0.7 * ow.O3().act(g, x0)

    def at(time):
        return ow.orbit_posterior(ow.O3(), process, x1, xt, time, mask, coupling="aligned")

    post = at(0.3)
    torch.testing.assert_close(post.mean, pose, rtol=0, atol=1e-8)
    ratio = (at(0.33).log_evidence - post.log_evidence).exp()
    error = ratio.std() / len(ratio) ** 0.5
    assert error < 0.02
    assert abs(ratio.mean() - 1) < 4 * error
