"""SO(3) and O(3) posteriors of point clouds: against Haar samples, special cases, symmetries,
limits."""

import math

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError, NoClosedFormError

VE = ow.GaussianProcess.ve(sigma_min=1e-3, sigma_max=1e2)
FLOW = ow.GaussianProcess.flow()


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=gen(seed), dtype=dtype)


def time_at(process_sigma):
    """t with VE noise of that standard deviation."""
    return math.log(process_sigma / 1e2) / math.log(1e-3 / 1e2)


@pytest.mark.parametrize(
    ("group", "zero_com", "t"),
    [(ow.SO3(), False, 0.3), (ow.O3(), True, 0.3), (ow.SO3(), True, 0.6), (ow.O3(), False, 0.05)],
)
def test_against_a_million_images(group, zero_com, t):
    """Mean, evidence and score from 1.2 million images of x1, compared point by point with x_t."""
    process = ow.GaussianProcess.flow(zero_com=zero_com)
    mask = torch.tensor([True, True, False, True, True])
    x1 = randn(5, 3, seed=1)
    t = torch.tensor(t, dtype=torch.float64)
    xt = process.perturb(x1, t, generator=gen(2), mask=mask)
    post = ow.orbit_posterior(group, process, x1, xt, t, mask)
    g = group.sample((1_200_000,), generator=gen(3), dtype=torch.float64)
    images = group.act(g, process.project(x1, mask), mask=mask)
    log_p = process.log_density(xt, images, t, mask)
    w = torch.exp(log_p - post.log_evidence)
    error = w.std() / math.sqrt(len(w))
    assert error < 0.05
    assert (w.mean() - 1).abs() < 5 * error
    w = w[:, None, None] / w.mean()
    mean = (w * images).mean(0)
    error = (w * (images - mean)).std(0) / math.sqrt(len(w))
    real = mask[:, None]
    assert (((mean - post.mean).abs() < 5 * error + 1e-12) | ~real).all()
    assert (post.mean[~mask] == 0).all() and (post.score[~mask] == 0).all()
    score = (w * process.score(xt, images, t, mask)).mean(0)
    assert torch.allclose(
        post.score[mask], score[mask], atol=5 * error.max().item() / (1 - t.item()) ** 2
    )


def von_mises_fisher(kappa):
    """log(sinh κ/κ) and coth κ - 1/κ."""
    kappa = torch.as_tensor(kappa, dtype=torch.float64)
    log_c = kappa + torch.log(-torch.expm1(-2 * kappa) / (2 * kappa))
    return log_c, 1 / torch.tanh(kappa) - 1 / kappa


@pytest.mark.parametrize("sigma", [0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("shape", ["one", "two", "collinear", "coincident"])
def test_one_direction_is_von_mises_fisher(shape, sigma):
    """F = a bᵀ: the evidence has sinh κ/κ, κ = |a||b|, and b turns towards a by coth κ - 1/κ; the
    mean of the points is along Σ_i h_i x_t,i for x1 = h bᵀ."""
    heights = {
        "one": [1.0],
        "two": [0.7, -0.7],
        "collinear": [-1.0, 0.2, 0.5, 2.0, -0.1],
        "coincident": [1.3, 1.3, 1.3, 1.3],
    }
    h = torch.tensor(heights[shape], dtype=torch.float64)[:, None]
    b = randn(3, seed=1)
    b = b / b.norm()
    x1 = h * b
    xt = x1 + sigma * randn(*x1.shape, seed=2)
    a = (h * xt).sum(0) / sigma**2
    log_c, length = von_mises_fisher(a.norm())
    post = ow.orbit_posterior(ow.SO3(), VE, x1, xt, time_at(sigma))
    square = (xt.square().sum() + x1.square().sum()) / (2 * sigma**2)
    expected = log_c - square - 1.5 * len(h) * math.log(2 * math.pi * sigma**2)
    assert post.log_evidence.item() == pytest.approx(expected.item(), rel=1e-11, abs=1e-9)
    assert torch.allclose(post.mean, h * length * a / a.norm(), atol=1e-11)
    both = ow.orbit_posterior(ow.O3(), VE, x1, xt, time_at(sigma))  # a mirror holds the line
    assert torch.allclose(both.mean, post.mean, atol=1e-11)
    assert both.log_evidence.item() == pytest.approx(post.log_evidence.item(), rel=1e-11)


def test_planar_cloud_has_a_mirror():
    """A plane is held by a reflection, so O(3) adds nothing to SO(3)."""
    x1 = randn(64, 6, 3) * torch.tensor([1.0, 1.0, 0.0])
    xt = x1 + 0.5 * randn(64, 6, 3, seed=1)
    one, both = (ow.orbit_posterior(g, VE, x1, xt, time_at(0.5)) for g in (ow.SO3(), ow.O3()))
    assert torch.allclose(one.mean, both.mean, atol=1e-12)
    assert torch.allclose(one.log_evidence, both.log_evidence, atol=1e-11)


def test_mirror_images_mix_by_evidence():
    """x_t near the mirror image: O(3) finds it, SO(3) cannot."""
    x1 = randn(4, 5, 3)
    sigma = 0.2
    xt = -x1 + sigma * randn(4, 5, 3, seed=1)
    both = ow.orbit_posterior(ow.O3(), VE, x1, xt, time_at(sigma))
    mirrored = ow.orbit_posterior(ow.SO3(), VE, -x1, xt, time_at(sigma))
    same = ow.orbit_posterior(ow.SO3(), VE, x1, xt, time_at(sigma))
    total = torch.logaddexp(mirrored.log_evidence, same.log_evidence) - math.log(2)
    assert torch.allclose(both.log_evidence, total, atol=1e-10)
    weight = torch.exp(mirrored.log_evidence - math.log(2) - total)[:, None, None]
    assert torch.allclose(both.mean, weight * mirrored.mean + (1 - weight) * same.mean, atol=1e-12)
    g = both.sample(1000, gen(1))
    assert (
        (torch.linalg.det(g) < 0).double().mean(0) - weight[:, 0, 0]
    ).abs().max() < 5 * 0.5 / 1000**0.5


@pytest.mark.parametrize("sigma", [0.03, 0.3, 3.0])
@pytest.mark.parametrize("atoms", [1, 2])
def test_evidence_integrates_to_one(atoms, sigma):
    """One atom, or two of zero centre of mass: three dimensions, a radial evidence, 4π∫ r² p dr =
    1."""
    process = ow.GaussianProcess.ve(sigma_min=1e-3, sigma_max=1e2, zero_com=atoms == 2)
    x1 = torch.tensor([[0.3, 1.0, -0.2], [-0.3, -1.0, 0.2]], dtype=torch.float64)[:atoms]
    size = x1.square().sum().sqrt()
    r = torch.linspace(max(0, size - 14 * sigma), size + 14 * sigma, 20001, dtype=torch.float64)
    direction = (
        torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], dtype=torch.float64)[:atoms] / atoms**0.5
    )
    xt = (
        r[:, None, None] * direction
    )  # |x_t| = r: in the zero-mass subspace (x_t1 - x_t2)/√2 has length r
    p = ow.orbit_posterior(
        ow.SO3(), process, x1.expand(len(r), -1, -1), xt, time_at(sigma)
    ).log_evidence.exp()
    assert torch.trapezoid(4 * math.pi * r**2 * p, r).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("group", [ow.SO3(), ow.O3()], ids=repr)
def test_evidence_integrates_to_one_for_three_atoms(group):
    """Six dimensions (zero centre of mass), importance sampling from a Gaussian that covers the
    orbit."""
    process = ow.GaussianProcess.flow(zero_com=True)
    x1, t = process.project(randn(3, 3)), torch.tensor(0.6, dtype=torch.float64)
    width = (x1.square().sum() * 0.36 / 6 + 0.16).sqrt()
    y = width * process.noise(torch.empty(50_000, 3, 3, dtype=torch.float64), generator=gen(1))
    post = ow.orbit_posterior(group, process, x1.expand_as(y), y, t)
    log_q = -0.5 * y.square().sum((-2, -1)) / width**2 - 3 * torch.log(2 * math.pi * width**2)
    w = torch.exp(post.log_evidence - log_q)
    assert w.std() / len(w) ** 0.5 < 0.02
    assert (w.mean() - 1).abs() < 5 * w.std() / len(w) ** 0.5


def test_score_is_the_gradient_of_the_evidence():
    x1, xt = randn(3, 4, 3), randn(3, 4, 3, seed=1)
    for group in (ow.SO3(), ow.O3()):
        post = ow.orbit_posterior(group, FLOW, x1, xt, 0.4)
        direction, step = randn(3, 4, 3, seed=2), 1e-5
        up, down = (
            ow.orbit_posterior(group, FLOW, x1, xt + s * direction, 0.4).log_evidence
            for s in (step, -step)
        )
        slope = (post.score * direction).sum((-2, -1))
        assert torch.allclose((up - down) / (2 * step), slope, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("group", [ow.SO3(), ow.O3()], ids=repr)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("method", ["exact", "mode"])
def test_equivariance(group, dtype, tolerance, method):
    """mean(x1, h·x_t) = h·mean(x1, x_t) and mean(h·x1, x_t) = mean(x1, x_t); the evidence does not
    move."""
    x1, noise = randn(200, 12, 3, dtype=dtype), randn(200, 12, 3, seed=1, dtype=dtype)
    sigma = torch.logspace(-1, 1, 200, dtype=dtype)
    t = math.log(1e5) ** -1 * (math.log(1e2) - sigma.log())
    xt = x1 + sigma[:, None, None] * noise
    h = group.sample((200,), generator=gen(3), dtype=dtype)
    base = ow.orbit_posterior(group, VE, x1, xt, t, method=method)
    turned = ow.orbit_posterior(group, VE, x1, group.act(h, xt), t, method=method)
    other = ow.orbit_posterior(group, VE, group.act(h, x1), xt, t, method=method)
    scale = x1.abs().max()
    assert (turned.mean - group.act(h, base.mean)).abs().max() < tolerance * scale
    assert (other.mean - base.mean).abs().max() < tolerance * scale
    for post in (turned, other):
        assert torch.allclose(
            post.log_evidence, base.log_evidence, rtol=30 * tolerance, atol=30 * tolerance
        )


@pytest.mark.parametrize("group", [ow.SO3(), ow.O3()], ids=repr)
def test_single_precision_input(group):
    x1, noise = randn(500, 9, 3, seed=4), randn(500, 9, 3, seed=5)
    sigma = torch.logspace(-2, 1, 500, dtype=torch.float64)
    t = (math.log(1e2) - sigma.log()) / math.log(1e5)
    x1, xt, t = x1.float(), (x1 + sigma[:, None, None] * noise).float(), t.float()
    single = ow.orbit_posterior(group, VE, x1, xt, t)
    double = ow.orbit_posterior(group, VE, x1.double(), xt.double(), t.double())
    assert single.mean.dtype == single.log_evidence.dtype == single.score.dtype == torch.float32
    assert single.sample(2, gen()).dtype == torch.float32
    assert (single.mean - double.mean).abs().max() < 1e-4
    assert torch.allclose(single.log_evidence.double(), double.log_evidence, rtol=1e-4)
    assert torch.allclose(single.score.double(), double.score, rtol=1e-4, atol=1e-4)


def test_ends_of_time():
    x1 = randn(6, 7, 3)
    zero = ow.orbit_posterior(ow.SO3(), FLOW, x1, randn(6, 7, 3, seed=1), 0.0)
    assert zero.mean.abs().max() < 1e-14 * x1.abs().max()
    g = ow.SO3().sample((6,), generator=gen(1), dtype=torch.float64)
    xt = ow.SO3().act(g, x1)
    for t in (1.0, 1 - 1e-12, 1 - 1e-9):
        one = ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, t)
        assert torch.allclose(one.mean, xt, atol=1e-9)
        assert torch.allclose(one.sample(3, gen(2)), g.expand(3, 6, 3, 3), atol=1e-7)
        assert torch.isfinite(one.log_evidence).all() and torch.isfinite(one.score).all()
    aligned = ow.orbit_posterior(
        ow.SO3(), FLOW, x1, xt + 0.1 * randn(6, 7, 3, seed=3), 0.5, method="mode"
    )
    limit = ow.orbit_posterior(ow.SO3(), FLOW, x1, xt + 0.1 * randn(6, 7, 3, seed=3), 1.0)
    assert torch.allclose(limit.mean, aligned.mean, atol=1e-9)  # the mode does not depend on t


@pytest.mark.parametrize("group", [ow.SO3(), ow.O3()], ids=repr)
def test_draws_reproduce_the_mean(group):
    x1, xt = randn(4, 5, 3), randn(4, 5, 3, seed=1)
    mask = torch.tensor(
        [[True] * 5, [True] * 4 + [False], [True, False, True, True, True], [True] * 5]
    )
    post = ow.orbit_posterior(group, FLOW, x1, xt, torch.tensor([0.1, 0.4, 0.6, 0.9]), mask)
    points = group.act(post.sample(20_000, gen(2)), x1, mask=mask)
    error = points.std(0) / 20_000**0.5
    assert (((points.mean(0) - post.mean).abs() < 5 * error + 1e-12) | ~mask[..., None]).all()
    assert torch.equal(post.sample(3, gen(7)), post.sample(3, gen(7)))


def test_padding_does_not_matter():
    x1, xt, mask = randn(3, 6, 3), randn(3, 6, 3, seed=1), torch.ones(3, 6, dtype=torch.bool)
    mask[:, 4:] = False
    for process in (FLOW, ow.GaussianProcess.flow(zero_com=True)):
        short = ow.orbit_posterior(ow.SO3(), process, x1[:, :4].clone(), xt[:, :4].clone(), 0.5)
        x1[:, 4:], xt[:, 5:] = math.nan, math.inf
        padded = ow.orbit_posterior(ow.SO3(), process, x1, xt, 0.5, mask)
        assert torch.allclose(short.log_evidence, padded.log_evidence, atol=1e-12)
        assert torch.allclose(short.mean, padded.mean[:, :4], atol=1e-13)


def test_any_batch_shape():
    x1, xt = randn(2, 3, 4, 5, 3), randn(2, 3, 4, 5, 3, seed=1)
    t = torch.rand(2, 3, 4, generator=gen(), dtype=torch.float64)
    post = ow.orbit_posterior(ow.O3(), FLOW, x1, xt, t)
    assert post.mean.shape == x1.shape and post.log_evidence.shape == (2, 3, 4)
    assert post.sample(2, gen()).shape == (2, 2, 3, 4, 3, 3)
    single = ow.orbit_posterior(ow.O3(), FLOW, x1[1, 2, 3], xt[1, 2, 3], t[1, 2, 3])
    assert (
        torch.allclose(single.mean, post.mean[1, 2, 3], atol=1e-13)
        and single.log_evidence.shape == ()
    )
    nothing = ow.orbit_posterior(ow.SO3(), FLOW, x1[:, :0], xt[:, :0], t[:, :0])
    assert nothing.mean.shape == (2, 0, 4, 5, 3)


def test_no_gradients_and_inputs_untouched():
    x1 = randn(2, 3, 3).requires_grad_(True)
    xt = randn(2, 3, 3, seed=1).requires_grad_(True)
    before = x1.detach().clone(), xt.detach().clone()
    post = ow.orbit_posterior(ow.SO3(), ow.GaussianProcess.flow(zero_com=True), x1, xt, 0.5)
    for value in (post.mean, post.score, post.sample(2, gen())):
        assert not value.requires_grad
    assert torch.equal(before[0], x1) and torch.equal(before[1], xt)


def test_bad_input():
    x1, xt, t = randn(2, 4, 3), randn(2, 4, 3, seed=1), torch.tensor([0.3, 0.6])
    nan = xt.clone()
    nan[1, 2, 0] = math.nan
    bad = [
        (dict(xt=nan), "xt holds"),
        (dict(x1=nan), "x1 holds"),
        (dict(t=torch.tensor([0.3, math.inf])), "t holds"),
        (dict(x1=x1[:1]), "x1 must have the shape"),
        (dict(x1=x1[None, None]), "x1 must have the shape"),
        (dict(t=torch.rand(3)), "t must be one number"),
        (dict(mask=torch.ones(2, 4)), "mask must be bool"),
        (dict(mask=torch.ones(2, 3, dtype=torch.bool)), "mask must be bool"),
        (dict(mask=torch.tensor([[True] * 4, [False] * 4])), "at least one real point"),
        (dict(x1=x1.long(), xt=xt.long()), "floating point"),
        (dict(method="kabsch"), "none of"),
        (dict(method="snis", proposals=0), "proposals"),
        (dict(include_identity=True), "include_identity"),
        (dict(group=ow.SO3), "a group such as"),
        (dict(log_weights=torch.zeros(2)), "one per leading entry"),
        (dict(x1=x1[..., :2], xt=xt[..., :2]), "3 dimensions"),
    ]
    for change, message in bad:
        with pytest.raises(InputError, match=message):
            ow.orbit_posterior(**(dict(group=ow.SO3(), process=FLOW, x1=x1, xt=xt, t=t) | change))
    with pytest.raises(NoClosedFormError, match="Gaussian noise"):
        ow.orbit_posterior(ow.SO3(), ow.WrappedNormalProcess(), x1, xt, t)
    with pytest.raises(NoClosedFormError, match="permutations"):
        ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, t, method="gibbs")
