"""Importance sampling towards the exact posterior, its two ways of evaluation, and translations."""

import math

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import NoClosedFormError
from orbitwise.orbits.posterior.question import Question, Sampling
from orbitwise.orbits.posterior.snis import snis_by_images, snis_rotations

FLOW = ow.GaussianProcess.flow()
CENTRED = ow.GaussianProcess.flow(zero_com=True)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=gen(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "group", [ow.SO3(), ow.O3(), ow.Product(ow.SO3(), ow.Permutation(4))], ids=repr
)
def test_snis_tends_to_the_exact_posterior(group):
    x1, xt = randn(8, 4, 3), randn(8, 4, 3, seed=1)
    exact = ow.orbit_posterior(group, FLOW, x1, xt, 0.4)
    assert exact.exact and exact.method == "exact"
    errors = []
    for proposals in (100, 20_000):
        post = ow.orbit_posterior(
            group, FLOW, x1, xt, 0.4, method="snis", proposals=proposals, generator=gen()
        )
        assert not post.exact and post.method == "snis"
        assert (post.ess <= proposals * (1 + 1e-9)).all() and (post.ess >= 1).all()
        errors.append((post.mean - exact.mean).square().mean().sqrt())
    assert errors[1] < 0.05 and errors[1] < 0.3 * errors[0]
    assert (post.log_evidence - exact.log_evidence).abs().max() < 0.15
    assert torch.allclose(post.score, (0.4 * post.mean - xt) / 0.36, atol=1e-12)


@pytest.mark.parametrize("group", [ow.SO3(), ow.O3()], ids=repr)
@pytest.mark.parametrize("identity", [False, True])
def test_weights_through_F_are_those_of_the_images(group, identity):
    """F carries all that x_t and x1 have to say: same proposals, same estimate."""
    x1, xt, t = randn(3, 5, 3), randn(3, 5, 3, seed=1), torch.tensor([0.1, 0.5, 0.9]).double()
    question = Question(FLOW, x1, xt, t)
    a, b = (
        solve(group, question, Sampling(50, identity, generator=gen(3)))
        for solve in (snis_rotations, snis_by_images)
    )
    for name in ("mean", "log_evidence", "score", "ess"):
        assert torch.allclose(getattr(a, name), getattr(b, name), atol=1e-10), name
    assert torch.equal(a.sample(9, gen(4)), b.sample(9, gen(4)))


def test_identity_among_the_proposals():
    """At little noise the identity takes all the weight: the estimate is x1 itself, whatever else
    is drawn."""
    x1 = randn(4, 6, 3)
    xt = x1 + 1e-3 * randn(4, 6, 3, seed=1)
    ve = ow.GaussianProcess.ve(sigma_min=1e-3)
    for group in (ow.SO3(), ow.Product(ow.SO3(), ow.Permutation(6))):
        post = ow.orbit_posterior(
            group,
            ve,
            x1,
            xt,
            1.0,
            method="snis",
            proposals=16,
            include_identity=True,
            generator=gen(),
        )
        assert torch.allclose(post.mean, x1, atol=1e-12)
        assert torch.allclose(post.ess, torch.ones(4).double())
        drawn = post.sample(2, gen(1))
        assert torch.allclose(group.act(drawn, x1), x1.expand(2, 4, 6, 3))


def test_conformers_by_snis():
    x1, xt = randn(2, 5, 3, 3), randn(5, 3, 3, seed=1)
    exact = ow.orbit_posterior(ow.SO3(), CENTRED, x1, xt, 0.3)
    post = ow.orbit_posterior(
        ow.SO3(), CENTRED, x1, xt, 0.3, method="snis", proposals=20_000, generator=gen()
    )
    assert (post.mean - exact.mean).abs().max() < 0.05


@pytest.mark.parametrize("process", [FLOW, CENTRED], ids=["free", "centred"])
def test_translation(process):
    """x1 takes the place of x_t; the evidence is the density of the centred clouds."""
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[0, 1:] = mask[1, :2] = False
    x1, xt = randn(6, 5, 3), randn(6, 5, 3, seed=1) + 3
    t = torch.tensor([0.2, 0.3, 0.5, 0.7, 0.9, 0.99]).double()
    if process.zero_com:
        xt = process.project(xt, mask)
    post = ow.orbit_posterior(ow.Translation(), process, x1, xt, t, mask)
    weight = mask[..., None] / mask.sum(-1)[:, None, None]
    com_t, com_1 = (xt * weight).sum(-2), (x1 * weight).sum(-2)
    expected = (x1 - com_1[:, None] + com_t[:, None] / t[:, None, None]) * mask[..., None]
    assert torch.allclose(post.mean, expected, atol=1e-12)
    assert torch.allclose(post.log_evidence, CENTRED.log_density(xt, x1, t, mask), atol=1e-10)
    g = post.sample(4000, gen(2))
    assert (
        (g.mean(0) - (com_t / t[:, None] - (0 if process.zero_com else com_1))).abs()
        < 5 * g.std(0) / 63 + 1e-12
    ).all()
    spread = (1 - t) / t / mask.sum(-1).sqrt() * float(not process.zero_com)
    assert torch.allclose(g.std(0), spread[:, None].expand(6, 3), rtol=0.08, atol=1e-12)


def test_translation_evidence_is_the_integral():
    """∫ p_t(x_t | x1 + τ) dτ times alpha √N (per dimension): the centre of mass in orthonormal
    coordinates."""
    x1, xt, t = randn(3, 1), randn(3, 1, seed=1), torch.tensor(0.6, dtype=torch.float64)
    tau = torch.linspace(-15, 15, 20001, dtype=torch.float64)
    p = FLOW.log_density(xt, x1 + tau[:, None, None], t).exp()
    integral = torch.trapezoid(p, tau) * 0.6 * 3**0.5
    post = ow.orbit_posterior(ow.Translation(1), FLOW, x1, xt, t)
    assert post.log_evidence.exp().item() == pytest.approx(integral.item(), rel=1e-9)


def test_translation_without_signal():
    x1, xt = randn(2, 4, 3), randn(2, 4, 3, seed=1)
    post = ow.orbit_posterior(ow.Translation(), FLOW, x1, xt, 0.0)
    assert torch.allclose(post.mean, x1 - x1.mean(-2, keepdim=True), atol=1e-13)
    assert torch.isfinite(post.sample(3, gen())).all()
    mode = ow.orbit_posterior(ow.Translation(), FLOW, x1, xt, 0.5, method="mode")
    assert torch.allclose(ow.Translation().act(mode.sample(2), x1)[1], mode.mean, atol=1e-12)
    with pytest.raises(NoClosedFormError, match="zero_com"):
        ow.orbit_posterior(ow.Translation(), FLOW, x1, xt, 0.5, method="snis")
    with pytest.raises(NoClosedFormError, match="zero_com"):
        ow.Translation().sample((3,))
    assert math.isfinite(mode.log_evidence.sum())
