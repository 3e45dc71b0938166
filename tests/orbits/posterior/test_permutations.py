"""Assignment, Gibbs and importance sampling over permutations, against enumeration and Ryser's
permanent."""

import itertools
import math

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.permutation import Permutation

PROCESSES = {
    "gaussian": ow.GaussianProcess.ve(0.01, 3.0),
    "flow, zero centre of mass": ow.GaussianProcess.flow(zero_com=True),
    "wrapped": ow.WrappedNormalProcess(0.01, 0.6),
}
processes = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def noised(process, batch, n, t, seed=0, mask=None):
    gen = rng(seed)
    x1 = torch.rand(batch, n, 3, generator=gen, dtype=torch.float64)
    t = torch.full((batch,), t, dtype=torch.float64)
    return x1, process.perturb(x1, t, generator=gen, mask=mask), t


def by_enumeration(process, tables, x1, xt, t, mask=None):
    """log density of every permuted cloud ``(M, B)``, straight from the process."""
    images = x1[:, tables].movedim(0, 1)  # (M, B, N, 3)
    return images, process.log_density(xt, images, t, mask)


def all_tables(n):
    return torch.tensor(list(itertools.permutations(range(n))))


@processes
@pytest.mark.parametrize("t", [0.05, 0.4, 0.7, 0.95])
def test_exact_small_groups(process, t):
    x1, xt, times = noised(process, 4, 5, t)
    post = ow.orbit_posterior(Permutation(5), process, x1, xt, times)
    images, logits = by_enumeration(process, all_tables(5), x1, xt, times)
    assert (post.log_evidence - (logits.logsumexp(0) - math.log(120))).abs().max() < 1e-9
    scores = process.score(xt, images, times)
    expected = torch.einsum("mb,mbnd->bnd", logits.softmax(0), scores)
    torch.testing.assert_close(post.score, expected, rtol=1e-9, atol=1e-9)


@processes
@pytest.mark.parametrize("t", [0.05, 0.4, 0.7, 0.95])
def test_mode_is_the_best_of_all(process, t):
    x1, xt, times = noised(process, 20, 6, t)
    post = ow.orbit_posterior(Permutation(6), process, x1, xt, times, method="mode")
    images, logits = by_enumeration(process, all_tables(6), x1, xt, times)
    best, which = logits.max(0)
    assert (post.log_evidence - best).abs().max() < 1e-9
    assert torch.equal(post.sample(2)[1], all_tables(6)[which])
    aligned = images[which, torch.arange(20)]
    torch.testing.assert_close(post.score, process.score(xt, aligned, times), rtol=1e-9, atol=1e-9)
    assert not post.exact


@processes
@pytest.mark.parametrize("t", [0.05, 0.4, 0.7, 0.95])
def test_gibbs_agrees_with_enumeration(process, t):
    """Mean over 64 independent runs of the same problem, within five of their standard errors (+ 1
    % for bias)."""
    x1, xt, times = noised(process, 1, 5, t, seed=3)
    exact = ow.orbit_posterior(Permutation(5), process, x1, xt, times)
    many = [x.expand(64, *x.shape[1:]) for x in (x1, xt, times)]
    post = ow.orbit_posterior(
        Permutation(5), process, *many, method="gibbs", proposals=400, generator=rng(1)
    )
    scale = exact.score.abs().max()
    error = post.score.std(0) / 8
    assert ((post.score.mean(0) - exact.score[0]).abs() <= 5 * error + 0.01 * scale).all()
    # the bound holds and is no looser than the theorem allows (with exact marginals)
    assert (post.log_evidence <= exact.log_evidence + 1e-9).all()
    assert (post.log_evidence >= exact.log_evidence - 2.5 * math.log(2) - 0.05).all()
    # draws have the marginals of the posterior
    _, logits = by_enumeration(process, all_tables(5), x1, xt, times)
    weights = logits.softmax(0)[:, 0]
    marginals = torch.einsum("m,mij->ij", weights, torch.eye(5).double()[all_tables(5)])
    seen = torch.nn.functional.one_hot(post.sample(300, generator=rng(2)), 5).double().mean((0, 1))
    assert (seen - marginals).abs().max() < 0.03


def test_gibbs_on_a_larger_cloud_against_ryser():
    """Twelve points: marginals from Ryser's formula for permanents of the minors."""
    process = PROCESSES["gaussian"]
    x1, xt, times = noised(process, 1, 12, 0.45, seed=5)
    sigma = process.sigma(times)
    logits = -0.5 * torch.cdist(xt, x1)[0] ** 2 / sigma**2
    a = (logits - logits.amax(1, keepdim=True)).exp()

    def permanent(m):
        n = len(m)
        bits = (torch.arange(2**n)[:, None] >> torch.arange(n)) & 1
        sign = (-1.0) ** (n - bits.sum(1))
        return (sign * (bits.double() @ m.mT).prod(1)).sum()

    total = permanent(a)
    keep = [[k for k in range(12) if k != i] for i in range(12)]
    marginals = torch.tensor(
        [
            [a[i, j] * permanent(a[keep[i]][:, keep[j]]) / total for j in range(12)]
            for i in range(12)
        ]
    ).double()
    assert (
        abs(marginals.sum(1) - 1).max() < 1e-6 and marginals.amax(1).median() < 0.7
    )  # a real mixture
    many = [x.expand(32, *x.shape[1:]) for x in (x1, xt, times)]
    post = ow.orbit_posterior(
        Permutation(12), process, *many, method="gibbs", proposals=512, generator=rng(6)
    )
    expected = marginals @ x1[0]
    error = post.mean.std(0) / 32**0.5
    assert ((post.mean.mean(0) - expected).abs() <= 5 * error + 2e-3).all()
    evidence = (
        total.log() + logits.amax(1).sum() - math.lgamma(13) - 18 * math.log(2 * math.pi * sigma**2)
    )
    assert (post.log_evidence <= evidence + 1e-9).all() and (
        post.log_evidence > evidence - 6 * math.log(2)
    ).all()


@processes
def test_importance_sampling_converges_where_the_posterior_is_wide(process):
    x1, xt, times = noised(process, 1, 6, 0.1, seed=7)
    exact = ow.orbit_posterior(Permutation(6), process, x1, xt, times)
    many = [x.expand(64, *x.shape[1:]) for x in (x1, xt, times)]
    post = ow.orbit_posterior(
        Permutation(6), process, *many, method="snis", proposals=2000, generator=rng(8)
    )
    error = post.score.std(0) / 8
    assert (
        (post.score.mean(0) - exact.score[0]).abs() <= 5 * error + 2e-3 * exact.score.abs().max()
    ).all()
    spread = post.log_evidence.std() / 8
    assert abs(post.log_evidence.mean() - exact.log_evidence) <= 5 * spread + 2e-3


@processes
@pytest.mark.parametrize("method", ["exact", "mode", "gibbs", "snis"])
def test_labels_are_kept_apart(process, method):
    """Permutations within species: never a draw that mixes them, and the sum over the twelve
    elements."""
    labels = torch.tensor([6, 6, 8, 8, 8, -1])
    x1, xt, times = noised(process, 3, 6, 0.6, seed=9)
    group = Permutation(6, labels)
    post = ow.orbit_posterior(group, process, x1, xt, times, method=method, generator=rng(3))
    g = post.sample(50, generator=rng(4))
    assert (labels[g] == labels).all() and (g[..., 5] == 5).all()
    tables = group.enumerate()[0]
    images, logits = by_enumeration(process, tables, x1, xt, times)
    if method == "exact":
        assert (post.log_evidence - (logits.logsumexp(0) - math.log(12))).abs().max() < 1e-9
    if method == "mode":
        assert (post.log_evidence - logits.amax(0)).abs().max() < 1e-9
    if method == "gibbs":
        assert (post.log_evidence <= logits.logsumexp(0) - math.log(12) + 1e-9).all()
    scores = process.score(xt, images, times)
    mean = torch.einsum("mb,mbnd->bnd", logits.softmax(0), scores)
    if method in ("exact", "gibbs"):
        assert (post.score - mean).abs().max() < (
            1e-9 if method == "exact" else 0.15
        ) * mean.abs().max()


@processes
@pytest.mark.parametrize("method", ["mode", "gibbs", "snis"])
def test_padding_is_left_alone(process, method):
    """A padded item gives what the same item without padding gives, and the group acts on real
    points only."""
    mask = torch.tensor([[True, True, False, True, True], [True] * 5])
    x1, xt, times = noised(process, 2, 5, 0.5, seed=10, mask=mask)
    dirty = torch.where(mask[..., None], xt, math.nan)
    post = ow.orbit_posterior(
        Permutation(5), process, x1, dirty, times, mask, method, generator=rng(5), proposals=2000
    )
    real = [0, 1, 3, 4]
    small = ow.orbit_posterior(Permutation(4), process, x1[:1, real], xt[:1, real], times[:1])
    assert (post.mean[0, 2] == 0).all() and (post.score[0, 2] == 0).all()
    assert (post.sample(20, generator=rng(6))[:, 0, 2] == 2).all()
    if method != "mode":
        difference = (post.score[0, real] - small.score[0]).abs().max()
        assert difference < (0.05 if method == "gibbs" else 0.5) * small.score.abs().max()
        assert (post.log_evidence[0] <= small.log_evidence[0] + 0.3).all()
    else:
        _, logits = by_enumeration(process, all_tables(4), x1[:1, real], xt[:1, real], times[:1])
        assert abs(post.log_evidence[0] - logits.max()) < 1e-9


@processes
@pytest.mark.parametrize("method", ["mode", "gibbs"])
def test_permuting_the_reference_changes_nothing_but_the_elements(process, method):
    x1, xt, times = noised(process, 2, 7, 0.6, seed=11)
    group, p = Permutation(7), torch.tensor([3, 1, 0, 6, 5, 2, 4])
    a = ow.orbit_posterior(
        group, process, x1, xt, times, method=method, generator=rng(1), proposals=800
    )
    b = ow.orbit_posterior(
        group, process, group.act(p, x1), xt, times, method=method, generator=rng(1), proposals=800
    )
    tol = 1e-9 if method == "mode" else 0.1
    assert (a.score - b.score).abs().max() <= tol * a.score.abs().max()


def test_low_noise_gives_the_mode_and_high_noise_the_average():
    process = PROCESSES["gaussian"]
    x1, xt, times = noised(process, 3, 30, 1.0, seed=12)  # sigma 0.01, far below the spacing
    group = Permutation(30)
    gibbs, mode = (
        ow.orbit_posterior(group, process, x1, xt, times, method=m, generator=rng(1))
        for m in ("gibbs", "mode")
    )
    assert (gibbs.mean - mode.mean).abs().max() < 1e-3
    assert (gibbs.log_evidence + math.lgamma(31) - mode.log_evidence).abs().max() < 1e-2
    x1, xt, _ = noised(process, 3, 30, 0.0, seed=13)
    wide = ow.GaussianProcess.ve(0.01, 100.0)  # noise far above the size of the cloud
    many = ow.orbit_posterior(
        group, wide, x1, xt, torch.zeros(3), method="gibbs", generator=rng(2), proposals=800
    )
    assert (many.mean - x1.mean(1, keepdim=True)).abs().max() < 0.08


def test_odd_sizes_single_points_and_coincident_points():
    process = PROCESSES["gaussian"]
    for n in (1, 2, 3):
        x1, xt, times = noised(process, 2, n, 0.5, seed=14)
        exact = ow.orbit_posterior(Permutation(n), process, x1, xt, times)
        post = ow.orbit_posterior(
            Permutation(n), process, x1, xt, times, method="gibbs", generator=rng(1), proposals=4000
        )
        assert (post.mean - exact.mean).abs().max() < 0.03
    same = torch.zeros(2, 4, 3, dtype=torch.float64)
    for method in ("mode", "gibbs"):
        post = ow.orbit_posterior(
            Permutation(4), process, same, same, 0.5, method=method, generator=rng(1)
        )
        assert torch.isfinite(post.log_evidence).all() and (post.mean == 0).all()


def test_no_noise_at_all_is_finite():
    process = ow.GaussianProcess.flow()
    x1 = torch.rand(2, 9, 3, generator=rng(15), dtype=torch.float64)
    xt = x1[:, torch.randperm(9, generator=rng(16))]
    for method in ("mode", "gibbs"):
        post = ow.orbit_posterior(
            Permutation(9), process, x1, xt, 1.0, method=method, generator=rng(1)
        )
        assert (post.mean - xt).abs().max() < 1e-12 and torch.isfinite(post.log_evidence).all()


def test_reproducible_single_precision_and_untouched_global_state():
    process = PROCESSES["wrapped"]
    x1, xt, times = noised(process, 2, 8, 0.5, seed=17)
    before = torch.random.get_rng_state()
    runs = [
        ow.orbit_posterior(Permutation(8), process, x1, xt, times, method="gibbs", generator=rng(s))
        for s in (1, 1, 2)
    ]
    assert torch.equal(runs[0].score, runs[1].score) and not torch.equal(
        runs[0].score, runs[2].score
    )
    assert torch.equal(before, torch.random.get_rng_state())
    single = ow.orbit_posterior(
        Permutation(8),
        process,
        x1.float(),
        xt.float(),
        times.float(),
        method="gibbs",
        generator=rng(1),
    )
    assert single.mean.dtype == torch.float32
    assert (single.mean.double() - runs[0].mean).abs().max() < 0.05


def test_refusals_name_what_to_use():
    process = PROCESSES["gaussian"]
    x = torch.rand(2, 20, 3)
    with pytest.raises(NoClosedFormError, match=r"snis.*gibbs.*mode"):
        ow.orbit_posterior(Permutation(20), process, x, x, 0.5)
    with pytest.raises(InputError, match=r"Permutation\(30\) on 20 points"):
        ow.orbit_posterior(Permutation(30), process, x, x, 0.5, method="mode")
    with pytest.raises(NoClosedFormError):
        ow.orbit_posterior(ow.Product(ow.SO3(), Permutation(20)), process, x, x, 0.5)
