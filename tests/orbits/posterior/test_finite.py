"""Finite groups, products, conformer sets: brute force written out with the process's own
density."""

import itertools
import math

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.orbits.posterior import sums

FLOW = ow.GaussianProcess.flow()
CENTRED = ow.GaussianProcess.flow(zero_com=True)
SIGNS = ow.Finite(torch.tensor([[[1.0]], [[-1.0]]]))


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=gen(seed), dtype=torch.float64)


def tetrahedral():
    """The 12 rotations of the tetrahedron: even permutations of the axes with an even number of
    signs."""
    rotations = []
    for p in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            m = torch.zeros(3, 3)
            m[range(3), p] = torch.tensor(signs)
            if torch.det(m) > 0 and math.prod(signs) > 0:
                rotations.append(m)
    return ow.Finite(torch.stack(rotations))


def brute(process, images, log_prior, xt, t):
    """Weights by hand: images (M, *B, N, D)."""
    logits = torch.stack(
        [process.log_density(xt, image, t) + w for image, w in zip(images, log_prior, strict=True)]
    )
    weights = torch.softmax(logits, 0)
    return (weights[..., None, None] * images).sum(0), torch.logsumexp(logits, 0), weights


def test_signs_on_the_line():
    """G = {±1}: E[g x1] = x1 tanh(alpha x1 x_t/sigma²)."""
    x1, xt, t = (
        randn(50, 1, 1),
        randn(50, 1, 1, seed=1),
        torch.rand(50, generator=gen(), dtype=torch.float64) * 0.98,
    )
    post = ow.orbit_posterior(SIGNS, FLOW, x1, xt, t)
    alpha, variance = t[:, None, None], (1 - t[:, None, None]) ** 2
    assert torch.allclose(post.mean, x1 * torch.tanh(alpha * x1 * xt / variance), atol=1e-13)
    log_half = [FLOW.log_density(xt, s * x1, t) - math.log(2) for s in (1, -1)]
    assert torch.allclose(post.log_evidence, torch.logaddexp(*log_half), atol=1e-11)
    g = post.sample(4000, gen(1))
    plus = torch.sigmoid(2 * (alpha * x1 * xt / variance)[:, 0, 0])
    assert ((g == 0).double().mean(0) - plus).abs().max() < 5 * 0.5 / 4000**0.5


def test_evidence_of_signs_integrates_to_one():
    xt = torch.linspace(-8, 8, 8001, dtype=torch.float64)[:, None, None]
    post = ow.orbit_posterior(SIGNS, FLOW, torch.full_like(xt, 0.7), xt, 0.6)
    assert torch.trapezoid(post.log_evidence.exp(), xt[:, 0, 0]).item() == pytest.approx(
        1, abs=1e-9
    )


@pytest.mark.parametrize("process", [FLOW, CENTRED], ids=["free", "centred"])
def test_point_group(process):
    group = tetrahedral()
    x1, xt, t = (
        randn(6, 4, 3),
        randn(6, 4, 3, seed=1),
        torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 0.95]).double(),
    )
    xt = process.project(xt)
    images = torch.stack([process.project(x1) @ m.T for m in group.matrices])
    mean, log_evidence, _ = brute(process, images, [-math.log(12)] * 12, xt, t)
    post = ow.orbit_posterior(group, process, x1, xt, t)
    assert torch.allclose(post.mean, mean, atol=1e-13)
    assert torch.allclose(post.log_evidence, log_evidence, atol=1e-11)
    best = ow.orbit_posterior(group, process, x1, xt, t, method="mode")
    distance = (t[:, None, None] * images - xt).square().sum((-2, -1))
    nearest = images[distance.argmin(0), torch.arange(6)]
    assert torch.allclose(best.mean[1:], nearest[1:], atol=1e-14)
    g = best.sample(2)
    assert torch.allclose(group.act(g[0], process.project(x1)), best.mean)


@pytest.mark.parametrize("space", [ow.SO3(), ow.O3(), tetrahedral(), ow.Translation()], ids=repr)
def test_product_with_permutations(space):
    """Every permutation by hand, the inner posterior of the permuted cloud from the factor
    alone."""
    points = ow.Permutation(4, labels=[0, 0, 0, 1])
    group = ow.Product(space, points)
    x1, xt = randn(5, 4, 3), randn(5, 4, 3, seed=1)
    t = torch.tensor([0.05, 0.3, 0.5, 0.7, 0.9]).double()
    orders = [[*p, 3] for p in itertools.permutations(range(3))]
    inner = [ow.orbit_posterior(space, FLOW, x1[:, p], xt, t) for p in orders]
    logits = torch.stack([post.log_evidence for post in inner]) - math.log(6)
    weights = torch.softmax(logits, 0)[..., None, None]
    post = ow.orbit_posterior(group, FLOW, x1, xt, t)
    assert torch.allclose(post.log_evidence, torch.logsumexp(logits, 0), atol=1e-11)
    assert torch.allclose(
        post.mean, (weights * torch.stack([p.mean for p in inner])).sum(0), atol=1e-12
    )
    swapped = ow.orbit_posterior(ow.Product(points, space), FLOW, x1, xt, t)
    assert torch.allclose(swapped.mean, post.mean, atol=1e-13)

    for each, result in ((group, post), (ow.Product(points, space), swapped)):
        images = each.act(result.sample(5000, gen(2)), x1)
        error = images.std(0) / 5000**0.5
        assert (
            (images.mean(0) - result.mean).abs() < 5 * error + 1e-4
        ).all()  # and events never seen

    modes = [ow.orbit_posterior(space, FLOW, x1[:, p], xt, t, method="mode") for p in orders]
    density = torch.stack([m.log_evidence for m in modes])
    best = torch.stack([m.mean for m in modes])[density.argmax(0), torch.arange(5)]
    mode = ow.orbit_posterior(group, FLOW, x1, xt, t, method="mode")
    assert torch.allclose(mode.mean, best, atol=1e-12)
    assert torch.allclose(group.act(mode.sample(1), x1)[0], mode.mean, atol=1e-12)


def test_product_is_invariant():
    """The evidence is a function of the orbits: it does not change when x1 or x_t is rotated and
    renamed."""
    group = ow.Product(ow.SO3(), ow.Permutation(4))
    x1, xt = randn(20, 4, 3), randn(20, 4, 3, seed=1)
    g = group.sample((20,), generator=gen(3), dtype=torch.float64)
    base = ow.orbit_posterior(group, FLOW, x1, xt, 0.7)
    turned = ow.orbit_posterior(group, FLOW, x1, group.act(g, xt), 0.7)
    other = ow.orbit_posterior(group, FLOW, group.act(g, x1), xt, 0.7)
    assert torch.allclose(turned.mean, group.act(g, base.mean), atol=1e-12)
    assert torch.allclose(other.mean, base.mean, atol=1e-12)
    assert torch.allclose(turned.log_evidence, base.log_evidence, atol=1e-11)


def test_product_against_haar_samples():
    group = ow.Product(ow.O3(), ow.Permutation(3))
    x1, xt, t = randn(3, 3), randn(3, 3, seed=1), torch.tensor(0.45).double()
    post = ow.orbit_posterior(group, FLOW, x1, xt, t)
    images = group.act(group.sample((1_000_000,), generator=gen(1), dtype=torch.float64), x1)
    w = torch.exp(FLOW.log_density(xt, images, t) - post.log_evidence)
    assert (w.mean() - 1).abs() < 5 * w.std() / 1000
    w = w[:, None, None] / w.mean()
    mean = (w * images).mean(0)
    assert ((mean - post.mean).abs() < 5 * (w * (images - mean)).std(0) / 1000).all()


@pytest.mark.parametrize(
    "group", [ow.SO3(), ow.Product(ow.SO3(), ow.Permutation(3)), SIGNS], ids=repr
)
@pytest.mark.parametrize("prior", [None, [0.0, -1.0, 2.0, -math.inf]])
def test_conformers(group, prior):
    """A finite set of references is one more outer sum."""
    dim = 1 if group is SIGNS else 3
    x1, xt = randn(4, 5, 3, dim), randn(5, 3, dim, seed=1)
    t = torch.tensor([0.0, 0.3, 0.6, 0.8, 0.99]).double()
    log_weights = None if prior is None else torch.tensor(prior)
    log_prior = torch.log_softmax(torch.tensor(prior or [0.0] * 4).double(), 0)
    inner = [ow.orbit_posterior(group, CENTRED, x, xt, t) for x in x1]
    logits = torch.stack([p.log_evidence for p in inner]) + log_prior[:, None]
    weights = torch.softmax(logits, 0)
    post = ow.orbit_posterior(group, CENTRED, x1, xt, t, log_weights=log_weights)
    assert torch.allclose(post.log_evidence, torch.logsumexp(logits, 0), atol=1e-10)
    mean = (weights[..., None, None] * torch.stack([p.mean for p in inner])).sum(0)
    assert post.mean.shape == xt.shape and torch.allclose(post.mean, mean, atol=1e-12)
    index, g = post.sample(2000, gen(1))
    frequency = torch.nn.functional.one_hot(index, 4).double().mean(0).T
    assert (frequency - weights).abs().max() < 5 * 0.5 / 2000**0.5
    images = group.act(g, torch.take_along_dim(CENTRED.project(x1), index[..., None, None], 0))
    assert ((images.mean(0) - mean).abs() < 5 * images.std(0) / 2000**0.5 + 1e-4).all()
    mode = ow.orbit_posterior(group, CENTRED, x1, xt, t, method="mode", log_weights=log_weights)
    assert mode.mean.shape == xt.shape
    if prior:
        assert (mode.sample(1)[0] != 3).all()


def test_the_evidence_of_a_conformer_set_is_a_normalised_mixture():
    """Two conformers of a two-atom cloud of zero centre of mass: 4π∫ r² p(r) dr = 1, with two
    shells."""
    r = torch.linspace(0, 12, 12001, dtype=torch.float64)
    axis = torch.tensor([[0, 0, 0.5**0.5], [0, 0, -(0.5**0.5)]], dtype=torch.float64)
    x1 = torch.stack([1.0 * axis, 5.0 * axis])[:, None].expand(2, len(r), 2, 3)
    process = ow.GaussianProcess.ve(sigma_min=0.3, sigma_max=1, zero_com=True)
    post = ow.orbit_posterior(
        ow.SO3(), process, x1, r[:, None, None] * axis, 1.0, log_weights=torch.tensor([0.0, 1.0])
    )
    shells = 4 * math.pi * r**2 * post.log_evidence.exp()
    assert torch.trapezoid(shells, r).item() == pytest.approx(1, abs=1e-6)
    outer_shell = torch.trapezoid(shells[3000:], r[3000:]).item()
    assert outer_shell == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=1e-4)


def test_chunks_do_not_change_the_result(monkeypatch):
    group = ow.Product(ow.SO3(), ow.Permutation(5))
    x1, xt, t = randn(7, 5, 3), randn(7, 5, 3, seed=1), torch.linspace(0, 1, 7).double()
    whole = ow.orbit_posterior(group, FLOW, x1, xt, t)
    sizes = []
    for memory in (1, 7 * 8 * 1000 * 13):
        monkeypatch.setattr(sums, "MEMORY", memory)
        pieces = ow.orbit_posterior(group, FLOW, x1, xt, t)
        assert torch.allclose(whole.mean, pieces.mean, atol=1e-13)
        assert torch.allclose(whole.log_evidence, pieces.log_evidence, rtol=1e-13, atol=1e-11)
        clouds = sums.Clouds(x1.shape, torch.zeros(120), None, None)
        sizes.append(len(clouds.chunks()))
    assert sizes[0] == 120 and 1 < sizes[1] < 120


def test_no_closed_form():
    x1, xt = randn(2, 30, 3), randn(2, 30, 3, seed=1)
    with pytest.raises(NoClosedFormError, match="snis"):
        ow.orbit_posterior(ow.Product(ow.SO3(), ow.Permutation(30)), FLOW, x1, xt, 0.5)
    with pytest.raises(NoClosedFormError, match="gibbs"):
        ow.orbit_posterior(ow.Permutation(30), FLOW, x1, xt, 0.5)
    with pytest.raises(InputError, match="zero_com=True"):
        ow.Product(ow.SO3(), ow.Translation())
    with pytest.raises(InputError, match="not a group"):
        ow.Finite(torch.tensor([[[1.0]], [[-2.0]]]))
    with pytest.raises(InputError, match="NaN"):
        ow.orbit_posterior(
            ow.SO3(), FLOW, torch.stack([x1, x1]), xt, 0.5, log_weights=torch.tensor([0, math.nan])
        )
