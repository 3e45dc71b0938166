"""Shifts × permutations of crystals: the shared table of pairs against the sum over permutations written out, and
chains, modes and importance sampling where the permutations are too many."""


import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError
from orbitwise.groups.item_permutations import ItemPermutations
from orbitwise.groups.permutation import Permutation
from orbitwise.groups.torus import wrap, wrapped_normal
from orbitwise.orbits import dispatch, outer
from orbitwise.orbits.finite import images
from orbitwise.orbits.noise import Wrapped
from orbitwise.orbits.torus import exact_torus


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
    [[1, 1, 2, 2, 2, 3], [4, 4, 4, 4, -1, -1], [1, 2, 1, 2, 1, 2], [5, 6, 7, 8, 9, -1], [1, 1, 1, 1, 1, -1]]
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
        wrap(moved + t[..., None, None] * torch.randn(one.shape, generator=gen, dtype=torch.float64)),
        t,
    )


def written_out(group, x1, xt, t, mask):
    """The sum over permutations with the torus posterior of each image, by ``outer.sum_over``."""
    clouds = images(group, x1, mask, lambda h, g: (g, h))
    inner = lambda x: exact_torus(TORUS, NOISE, x, xt, t, mask)  # noqa: E731
    return outer.sum_over(clouds, inner, Wrapped(NOISE, t, mask), xt)


# ---- exact -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [1e-3, 0.02, 0.1, 0.24, 0.26, 0.5, 2.0])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_shared_nodes_are_the_sum_written_out(sigma, lead, monkeypatch):
    mask = LABELS >= 0
    x1, xt, t = crystals(LABELS, sigma, lead=lead)
    x1, xt = (torch.where(mask[..., None], x, 0.0) for x in (x1, xt))
    group = ItemPermutations.within(LABELS)
    expected = written_out(group, x1, xt, t, mask)
    for chunk in (2**16, 1):  # all items together, and one by one
        monkeypatch.setattr("orbitwise.orbits.torus.CACHE", chunk)
        post = dispatch.exact(ow.Product(TORUS, group), NOISE, x1, xt, t, mask)
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
        assert ((scores.mean(0) - post.score).abs() <= 5.5 * error + 2e-3 * scores.abs().max()).all()


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
