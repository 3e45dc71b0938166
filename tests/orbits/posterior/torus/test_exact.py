"""The torus posterior against dense grids, finite differences, a closed form, statistics and its
own symmetry."""

import math

import pytest
import scipy.stats
import torch

import orbitwise as ow
from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.torus import nearest_image, wrap, wrapped_normal

SIGMAS = [1e-3, 0.01, 0.05, 0.2, 0.25, 0.5, 2.0]
SIZES = [1, 2, 7, 30, 100]
KINDS = ["noised", "spread", "even", "two clusters"]


class Level:
    """A process whose time is its noise level, so that a test sets sigma itself."""

    def wrapped_sigma(self, t):
        return t

    def log_density(self, xt, x1, t, mask=None):
        each = wrapped_normal(xt - x1, t[..., None, None]).log_density.sum(-1)
        return (each if mask is None else torch.where(mask, each, 0.0)).sum(-1)

    def score(self, xt, x1, t, mask=None):
        each = wrapped_normal(xt - x1, t[..., None, None]).score
        return each if mask is None else torch.where(mask[..., None], each, 0.0)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def clouds(n, sigma, kind, dim=1, seed=0):
    """x1 and xt of one crystal; ``even`` and ``two clusters`` have many equally good shifts."""
    gen = rng(hash((n, KINDS.index(kind))) % 1000 + seed)
    x1 = torch.rand(n, dim, generator=gen, dtype=torch.float64)
    noise = torch.randn(n, dim, generator=gen, dtype=torch.float64)
    residual = {
        "noised": 0.3 + sigma * noise,
        "spread": torch.rand(n, dim, generator=gen, dtype=torch.float64),
        "even": torch.arange(n, dtype=torch.float64)[:, None] / n + 1e-3 * sigma * noise,
        "two clusters": 0.5 * (torch.arange(n) % 2)[:, None] + 0.3 * sigma * noise,
    }[kind]
    return x1, wrap(x1 + residual)


def on_a_grid(x1, xt, sigma):
    """log evidence and score of one axis by the periodic trapezoid rule, which converges like
    exp(-2π²σ²nodes²/N)."""
    nodes = max(10_000, int(6 * math.sqrt(len(x1)) / sigma))
    tau = (torch.arange(nodes, dtype=torch.float64) + 0.37) / nodes
    sigma, log_f = torch.tensor(sigma, dtype=torch.float64), torch.zeros(nodes, dtype=torch.float64)
    residuals = (xt - x1)[:, 0]
    for r in residuals:
        log_f += wrapped_normal(r - tau, sigma).log_density
    weights = log_f.softmax(0)
    near = weights > 1e-25
    tau, weights = tau[near], weights[near]
    score = torch.stack([(weights * wrapped_normal(r - tau, sigma).score).sum() for r in residuals])
    return torch.logsumexp(log_f, 0) - math.log(nodes), score


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("n", SIZES)
def test_evidence_and_score_against_a_dense_grid(n, sigma, kind):
    x1, xt = clouds(n, sigma, kind)
    post = ow.orbit_posterior(ow.PeriodicTranslation(1), Level(), x1, xt, sigma)
    log_evidence, score = on_a_grid(x1, xt, sigma)
    assert abs(post.log_evidence - log_evidence) <= 1e-12 * max(1, abs(log_evidence)) + 1e-13
    # Where shifts tie, rounding of exponents of size 1/σ² shows in their weights, in the grid's as
    # well.
    ties = 1e-10 if kind in ("noised", "spread") else 1e-15 / sigma**3 * n
    scale = score.abs().max() + (1e-3 if sigma > 0.4 else 1) / sigma
    assert (post.score[:, 0] - score).abs().max() <= max(ties, 1e-10) * scale
    torch.testing.assert_close(post.mean, xt + sigma**2 * post.score, rtol=0, atol=1e-15)


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.3, 1.0])
def test_score_is_the_gradient_of_the_evidence(sigma):
    x1, xt = clouds(5, sigma, "spread", dim=3)
    group, step = ow.PeriodicTranslation(), 1e-5 * sigma
    score = ow.orbit_posterior(group, Level(), x1, xt, sigma).score
    shifts = step * torch.eye(15, dtype=torch.float64).reshape(15, 5, 3)
    both = [
        ow.orbit_posterior(
            group, Level(), x1.expand(15, 5, 3), xt + sign * shifts, sigma
        ).log_evidence
        for sign in (1, -1)
    ]
    slope = ((both[0] - both[1]) / (2 * step)).reshape(5, 3)
    assert (slope - score).abs().max() < 1e-6 * (score.abs().max() + 1 / sigma)


@pytest.mark.parametrize("sigma", [1e-3, 0.01, 0.04])
def test_small_noise_takes_the_mean_of_the_score_away(sigma):
    x1, xt = clouds(12, sigma, "noised", dim=3)
    post = ow.orbit_posterior(ow.PeriodicTranslation(), Level(), x1, xt, sigma)
    r = nearest_image(xt - x1 - 0.3) + 0.3
    closed = -(r - r.mean(0)) / sigma**2
    assert (post.score - closed).abs().max() < 1e-9 * closed.abs().max()
    gaussian = -0.5 * ((r - r.mean(0)) / sigma).square().sum() - 33 * math.log(
        sigma * math.sqrt(2 * math.pi)
    )
    assert abs(post.log_evidence - (gaussian - 1.5 * math.log(12))) < 1e-9


def test_evidence_is_a_density():
    """∫ p(x_t | orbit of x1) dx_t = 1: two points on the line, all of the torus, to quadrature
    level."""
    x1 = torch.tensor([[0.1], [0.45]], dtype=torch.float64)
    grid = torch.arange(128, dtype=torch.float64) / 128
    cells = torch.cartesian_prod(grid, grid)[..., None]
    for sigma in (0.05, 0.2, 0.6):
        post = ow.orbit_posterior(
            ow.PeriodicTranslation(1), Level(), x1.expand_as(cells), cells, sigma
        )
        assert abs(post.log_evidence.exp().mean() - 1) < 1e-12


def test_batches_masks_and_noise_levels_are_independent():
    gen = rng(3)
    x1 = torch.rand(6, 9, 3, generator=gen, dtype=torch.float64)
    t = torch.tensor([1e-3, 0.02, 0.2, 0.26, 0.6, 2.0], dtype=torch.float64)
    xt = wrap(x1 + t[:, None, None] * torch.randn(6, 9, 3, generator=gen, dtype=torch.float64))
    count = torch.tensor([9, 1, 5, 2, 8, 3])
    mask = torch.arange(9) < count[:, None]
    group = ow.PeriodicTranslation()
    dirty = torch.where(mask[..., None], xt, math.nan)
    post = ow.orbit_posterior(group, Level(), x1, dirty, t, mask)
    for k, n in enumerate(count):
        one = ow.orbit_posterior(group, Level(), x1[k, :n], xt[k, :n], t[k])
        assert abs(one.log_evidence - post.log_evidence[k]) < 1e-9
        torch.testing.assert_close(one.score, post.score[k, :n], rtol=1e-10, atol=1e-9)
        assert (post.score[k, n:] == 0).all() and (post.mean[k, n:] == 0).all()
    assert torch.isfinite(post.sample(4, generator=rng(1))).all()


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.5])
def test_invariance_and_equivariance(sigma, dtype, tol):
    """Shifting x1 changes nothing; shifting x_t changes neither evidence nor score (dyadic shifts:
    no rounding)."""
    x1, xt = clouds(8, sigma, "spread", dim=3)
    x1, xt = ((64 * 1024 * x).round().to(dtype) / (64 * 1024) for x in (x1, xt))
    group, g = ow.PeriodicTranslation(), torch.tensor([0.125, 0.75, 0.5], dtype=dtype)
    post = ow.orbit_posterior(group, Level(), x1, xt, sigma)
    for a, b in ((group.act(g, x1), xt), (x1, group.act(g, xt)), (x1 + 3, xt - 2)):
        moved = ow.orbit_posterior(group, Level(), a, b, sigma)
        assert abs(moved.log_evidence - post.log_evidence) <= tol * max(1, abs(post.log_evidence))
        assert (moved.score - post.score).abs().max() <= tol * (post.score.abs().max() + 1 / sigma)


@pytest.mark.parametrize("sigma", [1e-3, 0.05, 0.3, 1.0])
def test_single_precision_input(sigma):
    x1, xt = clouds(20, sigma, "noised", dim=3)
    x1, xt = x1.float(), xt.float()
    single = ow.orbit_posterior(ow.PeriodicTranslation(), Level(), x1, xt, sigma)
    double = ow.orbit_posterior(ow.PeriodicTranslation(), Level(), x1.double(), xt.double(), sigma)
    assert single.score.dtype == single.log_evidence.dtype == torch.float32
    assert abs(single.log_evidence - double.log_evidence) < 1e-5 * abs(double.log_evidence)
    torch.testing.assert_close(single.score.double(), double.score, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["noised", "spread", "even"])
@pytest.mark.parametrize("sigma", [0.01, 0.07, 0.35, 1.5])
@pytest.mark.parametrize("n", [1, 4, 25])
def test_draws_follow_the_posterior(n, sigma, kind):
    """Kolmogorov-Smirnov against the distribution function on a dense grid; 20,000 draws."""
    x1, xt = clouds(n, sigma, kind)
    post = ow.orbit_posterior(ow.PeriodicTranslation(1), Level(), x1, xt, sigma)
    draws = post.sample(20_000, generator=rng(9))[:, 0]
    assert ((draws >= 0) & (draws < 1)).all()
    tau = (torch.arange(50_000, dtype=torch.float64) + 0.5) / 50_000
    log_f = sum(
        wrapped_normal(r - tau, torch.tensor(sigma, dtype=torch.float64)).log_density
        for r in (xt - x1)[:, 0]
    )
    cdf = log_f.softmax(0).cumsum(0)
    uniform = cdf[
        (draws * 50_000).long()
    ]  # steps of the grid are far below the resolution of the test
    assert scipy.stats.kstest(uniform.numpy(), "uniform").pvalue > 1e-4


def test_draws_reproduce_the_mean_of_the_score_and_the_axes():
    """E over draws of the score given the shift is ``.score``; three axes, a batch, per item
    levels."""
    gen = rng(11)
    x1 = torch.rand(3, 6, 3, generator=gen, dtype=torch.float64)
    t = torch.tensor([0.03, 0.15, 0.5], dtype=torch.float64)
    group, process = ow.PeriodicTranslation(), Level()
    xt = wrap(
        x1 + 0.4 + t[:, None, None] * torch.randn(3, 6, 3, generator=gen, dtype=torch.float64)
    )
    post = ow.orbit_posterior(group, process, x1, xt, t)
    g = post.sample(20_000, generator=gen)
    assert g.shape == (20_000, 3, 3)
    scores = process.score(xt, group.act(g, x1), t)
    error = scores.std(0) / 20_000**0.5
    assert ((scores.mean(0) - post.score).abs() <= 5 * error + 1e-9).all()


def test_the_mode_is_the_highest_point_of_the_posterior():
    for n, sigma, kind in [
        (1, 0.1, "noised"),
        (6, 0.05, "noised"),
        (6, 0.2, "spread"),
        (20, 0.01, "spread"),
    ]:
        x1, xt = clouds(n, sigma, kind)
        post = ow.orbit_posterior(ow.PeriodicTranslation(1), Level(), x1, xt, sigma, method="mode")
        tau = torch.arange(50_000, dtype=torch.float64) / 50_000
        log_f = sum(
            wrapped_normal(r - tau, torch.tensor(sigma, dtype=torch.float64)).log_density
            for r in (xt - x1)[:, 0]
        )
        top = log_f.max().item()
        assert (
            post.log_evidence >= top - 1e-3
            and post.log_evidence <= top + 2.5 * n * (2e-5 / sigma) ** 2 + 1e-9
        )
        assert not post.exact and torch.equal(*post.sample(2))


def test_importance_sampling_agrees_where_it_works():
    x1, xt = clouds(3, 0.3, "noised", dim=3)
    group = ow.PeriodicTranslation()
    process = Level()
    exact = ow.orbit_posterior(group, process, x1, xt, 0.3)
    many = [x.expand(64, 3, 3) for x in (x1, xt)]
    snis = ow.orbit_posterior(
        group, process, *many, 0.3, method="snis", proposals=4096, generator=rng(2)
    )
    error = snis.log_evidence.std() / 8
    assert abs(snis.log_evidence.mean() - exact.log_evidence) < 5 * error + 0.01
    assert ((snis.score.mean(0) - exact.score).abs() < 5 * snis.score.std(0) / 8 + 0.01).all()


def test_product_with_permutations_and_conformers_is_the_sum():
    """PeriodicTranslation x S_2 x S_2 over two reference crystals, against the sum written out."""
    x1, xt = clouds(5, 0.15, "noised", dim=2)
    other, _ = clouds(5, 0.15, "spread", dim=2, seed=1)
    shift, swap = ow.PeriodicTranslation(2), ow.Permutation(5, [0, 0, 1, 1, 2])
    process, prior = Level(), torch.tensor([0.25, 0.75]).double()
    post = ow.orbit_posterior(
        ow.Product(swap, shift),
        process,
        torch.stack([x1, other]),
        xt,
        0.15,
        log_weights=prior.log(),
    )
    table, log_haar = swap.enumerate(dtype=torch.float64)
    parts = [
        (ow.orbit_posterior(shift, process, swap.act(g, x), xt, 0.15), w + p)
        for x, p in zip((x1, other), prior.log(), strict=True)
        for g, w in zip(table, log_haar, strict=True)
    ]
    logits = torch.stack([part.log_evidence + w for part, w in parts])
    assert abs(post.log_evidence - torch.logsumexp(logits, 0)) < 1e-11
    score = sum(w * part.score for w, (part, _) in zip(logits.softmax(0), parts, strict=True))
    torch.testing.assert_close(post.score, score, rtol=1e-9, atol=1e-9)


def test_large_crystals_are_solved_in_pieces():
    """Chunked rows give what one row at a time gives."""
    gen = rng(5)
    x1 = torch.rand(40, 60, 3, generator=gen, dtype=torch.float64)
    xt = wrap(x1 + 0.1 * torch.randn(40, 60, 3, generator=gen, dtype=torch.float64))
    group, t = ow.PeriodicTranslation(), torch.full((40,), 0.1, dtype=torch.float64)
    post = ow.orbit_posterior(group, Level(), x1, xt, t)
    one = ow.orbit_posterior(group, Level(), x1[17], xt[17], 0.1)
    torch.testing.assert_close(post.score[17], one.score, rtol=1e-12, atol=1e-12)
    assert abs(post.score.sum(1)).max() < 1e-9  # no net pull


def test_refusals():
    x = torch.rand(4, 3)
    with pytest.raises(NoClosedFormError, match="WrappedNormalProcess"):
        ow.orbit_posterior(ow.PeriodicTranslation(), ow.GaussianProcess.flow(), x, x, 0.5)
    with pytest.raises(InputError, match="3 coordinates"):
        ow.orbit_posterior(ow.PeriodicTranslation(2), ow.WrappedNormalProcess(), x, x, 0.5)
    with pytest.raises(NoClosedFormError, match="Gibbs"):
        ow.orbit_posterior(
            ow.PeriodicTranslation(), ow.WrappedNormalProcess(), x, x, 0.5, method="gibbs"
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_on_a_hundred_thousand_random_inputs(dtype):
    """Noise levels from 1e-6 to 100, sizes 1 to 6, coincident, antipodal and far-off points."""
    gen, number = rng(21), 50_000
    x1 = torch.rand(number, 6, 1, generator=gen, dtype=dtype)
    xt = torch.rand(number, 6, 1, generator=gen, dtype=dtype)
    kind = torch.randint(0, 4, (number, 1, 1), generator=gen)
    xt = torch.where(
        kind == 0, x1, torch.where(kind == 1, x1 + 0.5, torch.where(kind == 2, xt + 1e6, xt))
    )
    t = 10 ** (-6 + 8 * torch.rand(number, generator=gen, dtype=dtype))
    mask = torch.arange(6) <= torch.randint(0, 6, (number, 1), generator=gen)
    post = ow.orbit_posterior(ow.PeriodicTranslation(1), Level(), x1, xt, t, mask)
    draws = post.sample(1, generator=gen)
    for value in (post.mean, post.score, post.log_evidence, draws):
        assert torch.isfinite(value).all()
    net, size = post.score.double().sum((-2, -1)).abs(), post.score.double().abs().sum((-2, -1))
    assert (net <= 1e-6 * size + 1e-9 / t.double() ** 2).all()
