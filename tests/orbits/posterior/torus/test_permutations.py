"""Shifts × permutations of crystals: the shared table of pairs against the sum over permutations
written out, and chains, modes and importance sampling where the permutations are too many."""

import math

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.item_permutations import ItemPermutations
from orbitwise.groups.permutation import Permutation
from orbitwise.groups.torus import wrap, wrapped_normal
from orbitwise.orbits.posterior import dispatch, sums
from orbitwise.orbits.posterior.finite import images
from orbitwise.orbits.posterior.question import Question
from orbitwise.orbits.posterior.torus.exact import exact_torus


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


TORUS, NOISE = ow.PeriodicTranslation(), Level()
LABELS = torch.tensor(
    [
        [1, 1, 2, 2, 2, 3],
        [4, 4, 4, 4, -1, -1],
        [1, 2, 1, 2, 1, 2],
        [5, 6, 7, 8, 9, -1],
        [1, 1, 1, 1, 1, -1],
    ]
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def crystals(labels, sigma, seed=0, lead=()):
    """x1, and x_t made from a Haar point of its orbit."""
    gen = rng(seed)
    x1 = torch.rand(*lead, *labels.shape, 3, generator=gen, dtype=torch.float64)
    t = torch.as_tensor(sigma, dtype=torch.float64).expand(labels.shape[:-1])
    one = x1.reshape(-1, *labels.shape, 3)[0]
    order = Permutation(labels.shape[-1], labels).sample(labels.shape[:-1], generator=gen)
    moved = one.gather(-2, order[..., None].expand(one.shape)) + torch.rand(
        *labels.shape[:-1], 1, 3, generator=gen, dtype=torch.float64
    )
    return (
        x1,
        wrap(
            moved + t[..., None, None] * torch.randn(one.shape, generator=gen, dtype=torch.float64)
        ),
        t,
    )


def written_out(group, x1, xt, t, mask):
    """The sum over permutations with the torus posterior of each image, by ``outer.sum_over``."""
    question = Question(NOISE, x1, xt, t, mask)
    clouds = images(group, question, lambda h, g: (g, h))
    return sums.sum_over(clouds, lambda x: exact_torus(TORUS, question.about(x)), question)


# ---- exact


@pytest.mark.parametrize("sigma", [1e-3, 0.02, 0.1, 0.24, 0.26, 0.5, 2.0])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_shared_nodes_are_the_sum_written_out(sigma, lead, monkeypatch):
    mask = LABELS >= 0
    x1, xt, t = crystals(LABELS, sigma, lead=lead)
    x1, xt = (torch.where(mask[..., None], x, 0.0) for x in (x1, xt))
    group = ItemPermutations.within(LABELS)
    expected = written_out(group, x1, xt, t, mask)
    for chunk in (2**16, 1):  # all items together, and one by one
        monkeypatch.setattr("orbitwise.orbits.posterior.torus.exact.CACHE", chunk)
        post = dispatch.exact(ow.Product(TORUS, group), Question(NOISE, x1, xt, t, mask))
        assert post.exact and post.method == "exact"
        scale = expected.log_evidence.abs().clamp_min(1)
        assert ((post.log_evidence - expected.log_evidence).abs() < 1e-10 * scale).all()
        assert (post.score - expected.score).abs().max() < 1e-9 * max(1, expected.score.abs().max())
        assert (post.mean - expected.mean).abs().max() < 1e-10
        assert torch.allclose(post.ess, expected.ess, rtol=1e-6)


@pytest.mark.parametrize("labels", [None, [0, 0, 1, 1, 2]])
def test_one_group_for_all_items(labels):
    x1, xt, t = crystals(torch.zeros(6, 5, dtype=torch.long), 0.15)
    group = Permutation(5, labels)
    expected = written_out(group, x1, xt, t, None)
    for product in (ow.Product(TORUS, group), ow.Product(group, TORUS)):
        post = ow.orbit_posterior(product, NOISE, x1, xt, t)
        assert (post.score - expected.score).abs().max() < 1e-9 * expected.score.abs().max()
        assert (post.log_evidence - expected.log_evidence).abs().max() < 1e-9
        drawn = product.act(post.sample(1000, rng(1)), x1)
        scores = NOISE.score(xt, drawn, t)
        error = scores.std(0) / 1000**0.5
        assert (
            (scores.mean(0) - post.score).abs() <= 5.5 * error + 2e-3 * scores.abs().max()
        ).all()


def test_density_of_the_orbit_integrates_to_one():
    """Two equal atoms on a line: ∫ evidence dx_t = 1."""
    x1 = torch.tensor([[0.1], [0.45]], dtype=torch.float64)
    grid = torch.arange(128, dtype=torch.float64) / 128
    cells = torch.cartesian_prod(grid, grid)[..., None]
    group = ow.Product(ow.PeriodicTranslation(1), Permutation(2))
    for sigma in (0.05, 0.2, 0.6):
        post = ow.orbit_posterior(group, NOISE, x1.expand_as(cells), cells, sigma)
        assert abs(post.log_evidence.exp().mean() - 1) < 1e-12


def test_moving_padding_is_refused():
    x1, xt, t = crystals(torch.zeros(2, 4, dtype=torch.long), 0.1)
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    for group in (Permutation(4), ItemPermutations.within(torch.zeros(2, 4, dtype=torch.long))):
        with pytest.raises(InputError, match="padding"):
            ow.orbit_posterior(ow.Product(TORUS, group), NOISE, x1, xt, t, mask)


# ---- too many to enumerate


def repeated(number, *values):
    return [value.expand(number, *value.shape[1:]) for value in values]


@pytest.mark.parametrize("sigma", [0.01, 0.07, 0.12, 0.2, 0.4])
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1, 1]])
def test_gibbs_agrees_with_enumeration(labels, sigma):
    """The mean over 48 independent runs on one problem, within five of their standard errors (+ 1 %
    for bias)."""
    n = len(labels)
    x1, xt, t = crystals(torch.tensor([labels]), sigma, seed=n)
    exact = ow.orbit_posterior(ow.Product(TORUS, Permutation(n, labels)), NOISE, x1, xt, t)
    group = ow.Product(TORUS, Permutation(n, torch.tensor(labels).expand(48, n)))
    many = repeated(48, x1, xt, t)
    post = ow.orbit_posterior(group, NOISE, *many, method="gibbs", proposals=32, generator=rng(1))
    assert post.method == "gibbs" and not post.exact
    error = post.score.std(0) / 48**0.5
    scale = exact.score.abs().max()
    assert ((post.score.mean(0) - exact.score[0]).abs() <= 5 * error + 0.01 * scale).all()
    assert (post.log_evidence <= exact.log_evidence + 1e-9).all()
    assert (post.log_evidence >= exact.log_evidence - 0.5 * n * math.log(2) - 1.5).all()
    drawn = group.act(post.sample(200, rng(2)), many[0])
    scores = NOISE.score(many[1], drawn, many[2]).mean(0)
    error = scores.std(0) / 48**0.5
    assert ((scores.mean(0) - exact.score[0]).abs() <= 5 * error + 0.01 * scale).all()


@pytest.mark.parametrize("sigma", [0.05, 0.12, 0.25])
def test_gibbs_leaves_little_of_the_variance(sigma):
    """32 states: below a twentieth of what the translations alone leave, over 64 crystals of five
    equal atoms."""
    labels = torch.zeros(64, 5, dtype=torch.long)
    x1, xt, t = crystals(labels, sigma, seed=5)
    x1 = x1.gather(1, Permutation(5).sample((64,), generator=rng(3))[..., None].expand(x1.shape))
    exact = ow.orbit_posterior(ow.Product(TORUS, Permutation(5)), NOISE, x1, xt, t).score
    alone = ow.orbit_posterior(TORUS, NOISE, x1, xt, t).score
    group = ow.Product(TORUS, Permutation(5, labels))
    post = ow.orbit_posterior(
        group, NOISE, x1, xt, t, method="gibbs", proposals=32, generator=rng(4)
    )
    assert (post.score - exact).square().mean() < 0.05 * (alone - exact).square().mean()


def test_gibbs_on_padded_batches_and_either_order():
    mask = LABELS >= 0
    x1, xt, t = crystals(LABELS, 0.15, seed=6)
    exact = ow.orbit_posterior(
        ow.Product(TORUS, ItemPermutations.within(LABELS)), NOISE, x1, xt, t, mask
    )
    dirty = torch.where(mask[..., None], xt, math.nan)
    for group in (
        ow.Product(TORUS, Permutation(6, LABELS)),
        ow.Product(Permutation(6, LABELS), TORUS),
    ):
        post = ow.orbit_posterior(
            group, NOISE, x1, dirty, t, mask, "gibbs", proposals=512, generator=rng(5)
        )
        assert (post.score[~mask] == 0).all() and (post.score.sum(1).abs() < 1e-8).all()
        assert (post.score - exact.score).abs().max() < 0.1 * exact.score.abs().max()
        g = post.sample(20, rng(6))
        table = g[0] if g[0].dtype == torch.long else g[1]
        assert (LABELS.expand_as(table).gather(-1, table) == LABELS)[:, mask].all()
        assert (group.act(g, x1, mask)[:, ~mask] == x1[~mask]).all()


def test_gibbs_with_conformers_is_the_mixture():
    labels = torch.zeros(2, 3, dtype=torch.long)
    x1, xt, t = crystals(labels, 0.2, lead=(2,))
    prior = torch.tensor([0.3, 0.7]).double().log()
    exact = ow.orbit_posterior(
        ow.Product(TORUS, Permutation(3)), NOISE, x1, xt, t, log_weights=prior
    )
    group = ow.Product(TORUS, Permutation(3, labels))
    options = {"method": "gibbs", "log_weights": prior, "proposals": 512, "generator": rng(1)}
    post = ow.orbit_posterior(group, NOISE, x1, xt, t, **options)
    assert (post.score - exact.score).abs().max() < 0.02 * exact.score.abs().max()
    index, g = post.sample(7, rng(2))
    assert index.shape == (7, 2) and g[1].shape == (7, 2, 3)


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.1, 0.3])
def test_mode_against_enumeration(n, sigma):
    """Never above the highest of all permutations; below the distance of atoms it is that."""
    labels = torch.zeros(60, n, dtype=torch.long)
    x1, xt, t = crystals(labels, sigma, seed=7)
    highest = ow.orbit_posterior(ow.Product(TORUS, Permutation(n)), NOISE, x1, xt, t, method="mode")
    post = ow.orbit_posterior(
        ow.Product(TORUS, Permutation(n, labels)), NOISE, x1, xt, t, method="mode"
    )
    short = highest.log_evidence - post.log_evidence
    assert short.min() > -1e-9 and post.method == "mode" and not post.exact
    assert (short < 1e-6).double().mean() >= (1 if sigma <= 0.05 else 0.85)
    same = short < 1e-6
    group = ow.Product(TORUS, Permutation(n, labels))
    density = NOISE.log_density(xt, group.act(post.sample(1), x1)[0], t)
    assert (density - post.log_evidence).abs().max() < 1e-9
    if sigma <= 0.05:
        assert (post.score - highest.score)[same].abs().max() < 1e-6 * highest.score.abs().max()


def test_carbon_like_crystals_recover_the_permutation():
    """24 equal atoms at little noise: the assignment that made x_t, and with it the exact score."""
    labels = torch.zeros(3, 24, dtype=torch.long)
    grid = torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)) / torch.tensor(
        [2, 3, 4]
    )
    gen = rng(8)
    x1 = grid.double() + 0.02 * torch.randn(3, 24, 3, generator=gen, dtype=torch.float64)
    group = ow.Product(TORUS, Permutation(24, labels))
    g = group.sample((3,), generator=gen, dtype=torch.float64)
    true = group.act(g, x1)
    t = torch.full((3,), 3e-3, dtype=torch.float64)
    xt = wrap(true + 3e-3 * torch.randn(x1.shape, generator=gen, dtype=torch.float64))
    expected = ow.orbit_posterior(TORUS, NOISE, true, xt, t)
    for method in ("gibbs", "mode"):
        post = ow.orbit_posterior(group, NOISE, x1, xt, t, method=method, generator=gen)
        tol = 1e-9 if method == "gibbs" else 1e-6
        assert (post.score - expected.score).abs().max() < tol * expected.score.abs().max()
    assert ((post.sample(1)[1][0]) == g[1]).all()


def test_noise_far_above_the_cell_and_single_atoms():
    for n, sigma in ((1, 0.1), (2, 5.0), (9, 1.5)):
        labels = torch.zeros(4, n, dtype=torch.long)
        x1, xt, t = crystals(labels, sigma)
        group = ow.Product(TORUS, Permutation(n, labels))
        for method in ("gibbs", "mode", "snis"):
            post = ow.orbit_posterior(group, NOISE, x1, xt, t, method=method, generator=rng(1))
            assert torch.isfinite(post.score).all() and torch.isfinite(post.log_evidence).all()
            if method == "gibbs":
                assert post.score.abs().max() < 1e-6
            if sigma > 1:  # every density is 1; the bound for permutations is N/2 log 2 low at most
                low = 0.35 * n if method == "gibbs" else 1e-3
                assert post.log_evidence.min() > -low - 1e-3 and post.log_evidence.max() < 1e-3


def test_reproducible_and_global_state_untouched():
    labels = torch.zeros(3, 6, dtype=torch.long)
    x1, xt, t = crystals(labels, 0.15)
    group = ow.Product(TORUS, Permutation(6, labels))
    before = torch.random.get_rng_state()
    a, b, c = (
        ow.orbit_posterior(
            group, NOISE, x1, xt, t, method="gibbs", proposals=16, generator=rng(s)
        ).score
        for s in (1, 1, 2)
    )
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(before, torch.random.get_rng_state())


def test_refusals_name_what_to_use():
    x = torch.rand(2, 20, 3)
    group = ow.Product(TORUS, Permutation(20))
    with pytest.raises(NoClosedFormError, match=r"gibbs.*mode"):
        ow.orbit_posterior(group, ow.WrappedNormalProcess(), x, x, 0.5)
    for method in ("gibbs", "mode"):
        with pytest.raises(NoClosedFormError, match="PeriodicTranslation"):
            ow.orbit_posterior(
                ow.Product(ow.SO3(), Permutation(20)),
                ow.GaussianProcess.flow(),
                x,
                x,
                0.5,
                method=method,
            )
        with pytest.raises(NoClosedFormError, match="WrappedNormalProcess"):
            ow.orbit_posterior(group, ow.GaussianProcess.flow(), x, x, 0.5, method=method)
