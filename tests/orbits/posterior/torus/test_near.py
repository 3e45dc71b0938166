"""Importance sampling over the shifts of a crystal: as published, and what the drawn shift among
the proposals does."""

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError
from orbitwise.groups.torus import wrap

TORUS = ow.PeriodicTranslation()
PROCESS = ow.WrappedNormalProcess(0.01, 0.5)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def at_level(sigma, batch):
    """The time at which the process has this noise level."""
    low, high = torch.tensor(PROCESS.sigma_min), torch.tensor(PROCESS.sigma_max)
    return ((torch.tensor(sigma) / high).log() / (low / high).log()).double().expand(batch)


def crystals(batch, n, sigma, seed=0):
    gen = rng(seed)
    x1 = torch.rand(batch, n, 3, generator=gen, dtype=torch.float64)
    t = at_level(sigma, batch)
    return x1, PROCESS.perturb(x1, t, generator=gen), t


def solve(x1, xt, t, width=None, identity=True, proposals=1000, seed=1):
    options = {"proposals": proposals, "include_identity": identity, "proposal_width": width}
    return ow.orbit_posterior(
        TORUS, PROCESS, x1, xt, t, method="snis", generator=rng(seed), **options
    )


@pytest.mark.parametrize(("n", "size"), [(5, 29.0), (10, 11.5), (20, 5.0)])
def test_effective_sample_sizes_are_those_of_the_published_code(n, size):
    """1000 proposals: wrapped normal of two sigma 29, 11.5, 5 for 5, 10, 20 atoms; uniform 1 to 1.6
    at little noise."""
    for sigma in (0.02, 0.1):
        near = solve(*crystals(9, n, sigma), width=2.0).ess
        assert abs(near.mean() - size) < 5 * near.std() / 3 + 0.05 * size
    assert solve(*crystals(9, n, 0.02)).ess.mean() < 1.6


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.3, 0.5])
def test_wrapped_proposals_tend_to_the_exact_posterior(sigma):
    x1, xt, t = crystals(6, 3, sigma)
    exact = ow.orbit_posterior(TORUS, PROCESS, x1, xt, t)
    errors = []
    for proposals in (100, 8000):
        post = solve(x1, xt, t, 2.0, identity=False, proposals=proposals)
        assert post.method == "snis" and not post.exact
        errors.append((post.score - exact.score).square().mean().sqrt())
    assert errors[1] < 0.1 * max(exact.score.square().mean().sqrt(), 0.1 / sigma)
    assert (post.log_evidence - exact.log_evidence).abs().max() < 0.1
    g = post.sample(500, rng(2))
    assert g.shape == (500, 6, 3) and ((g >= 0) & (g < 1)).all()
    other = ow.orbit_posterior(
        TORUS,
        PROCESS,
        x1,
        xt,
        t,
        method="snis",
        proposal_width=5.0,
        proposals=15_000,
        generator=rng(3),
    )
    assert (other.score - exact.score).abs().max() < 0.2 / sigma  # whatever the width


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.35])
def test_with_the_drawn_shift_uniform_proposals_are_unbiased(sigma):
    """Given x_t, the shift that made it is a draw from the posterior. With it among the uniform
    proposals the mean of the estimate over shifts is the exact score, whatever the number of
    proposals (here 4); without it it is not."""
    x1, xt, t = crystals(1, 3, sigma, seed=3)
    exact = ow.orbit_posterior(TORUS, PROCESS, x1, xt, t)
    number = 20_000
    shifts = exact.sample(number, rng(4))[:, 0]  # shifts that may have made x_t
    many = (wrap(x1 + shifts[:, None]), xt.expand(number, 3, 3), t.expand(number))
    kept = solve(*many, proposals=4).score
    error = kept.std(0) / number**0.5
    assert ((kept.mean(0) - exact.score[0]).abs() <= 5 * error).all()
    without = solve(*many, proposals=4, identity=False).score
    error = without.std(0) / number**0.5
    assert ((without.mean(0) - exact.score[0]).abs() > 5 * error).any()


@pytest.mark.parametrize("sigma", [0.03, 0.1])
def test_with_the_drawn_shift_wrapped_proposals_are_nearly_so(sigma):
    """Their density moves with the shift, so no theorem; at little noise the bias is odd and
    cancels."""
    x1, xt, t = crystals(1, 5, sigma, seed=5)
    exact = ow.orbit_posterior(TORUS, PROCESS, x1, xt, t)
    number = 2000
    shifts = exact.sample(number, rng(6))[:, 0]
    many = (wrap(x1 + shifts[:, None]), xt.expand(number, 5, 3), t.expand(number))
    post = solve(*many, width=2.0, proposals=60)
    error = post.score.std(0) / number**0.5
    assert ((post.score.mean(0) - exact.score[0]).abs() <= 5 * error + 2e-3 / sigma).all()


def test_masks_and_reference_crystals():
    x1, xt, t = crystals(3, 6, 0.1)
    mask = torch.arange(6) < torch.tensor([6, 3, 4])[:, None]
    post = ow.orbit_posterior(
        TORUS, PROCESS, x1, xt, t, mask, "snis", proposals=300, proposal_width=2.0, generator=rng(1)
    )
    assert (post.score[~mask] == 0).all() and torch.isfinite(post.score).all()
    two = torch.stack([x1, x1 + 0.01])
    post = ow.orbit_posterior(
        TORUS,
        PROCESS,
        two,
        xt,
        t,
        mask,
        "snis",
        proposals=300,
        proposal_width=2.0,
        generator=rng(1),
    )
    assert post.mean.shape == x1.shape and post.sample(2, rng(2))[1].shape == (2, 3, 3)


def test_products_with_permutations_of_the_real_atoms():
    """Uniform proposals for shifts × permutations, one set of species per item, padding left
    alone."""
    labels = torch.tensor([[1, 1, 2, -1], [3, 3, 3, -1]])
    mask = labels >= 0
    x1, xt, _ = crystals(2, 4, 0.4)
    t = at_level(0.4, 2)
    group = ow.Product(TORUS, ow.Permutation(4, labels))
    exact = ow.orbit_posterior(
        ow.Product(TORUS, ow.ItemPermutations.within(labels)), PROCESS, x1, xt, t, mask
    )
    for same in (
        group,
        ow.Product(TORUS, ow.Permutation(4)),
        ow.Product(ow.Permutation(4, labels), TORUS),
    ):
        post = ow.orbit_posterior(
            same, PROCESS, x1, xt, t, mask, "snis", proposals=10_000, generator=rng(4)
        )
        assert (post.score[~mask] == 0).all()
        if same is not group and same.factors[1] is not TORUS:
            continue  # all permutations of the real atoms: another group
        assert (post.score - exact.score).abs().max() < 0.1 * exact.score.abs().max() + 0.02
        assert (post.log_evidence - exact.log_evidence).abs().max() < 0.05


def test_refusals():
    x1, xt, t = crystals(2, 3, 0.1)
    for group, process in (
        (ow.Product(TORUS, ow.Permutation(3)), PROCESS),
        (ow.SO3(), ow.GaussianProcess.flow()),
        (TORUS, ow.GaussianProcess.flow()),
    ):
        with pytest.raises(InputError, match="proposal_width is for PeriodicTranslation"):
            ow.orbit_posterior(group, process, x1, xt, t, method="snis", proposal_width=2.0)
    with pytest.raises(InputError, match="belongs to method='snis'"):
        ow.orbit_posterior(TORUS, PROCESS, x1, xt, t, proposal_width=2.0)
    with pytest.raises(InputError, match="positive"):
        ow.orbit_posterior(TORUS, PROCESS, x1, xt, t, method="snis", proposal_width=0.0)
