"""The split of the loss against closed forms, brute force over groups and quadrature on Euler
angles."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

import orbitwise as ow
from orbitwise.audit import (
    AuditBatch,
    Enumerate,
    Haar,
    Quadrature,
    Shifts,
    audit_equivariance,
    loss_terms,
)
from orbitwise.audit.losses import LOSSES
from orbitwise.data.batch import PointBatch
from orbitwise.errors import InputError
from orbitwise.groups.polyhedral import icosahedral, octahedral, tetrahedral
from orbitwise.networks import EGNN

F64 = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def points(b=40, n=5, seed=1):
    g = generator(seed)
    return torch.randn(b, n, 3, generator=g, dtype=F64), torch.randn(
        b, n, 3, generator=g, dtype=F64
    )


def matrix(seed=2):
    return torch.randn(3, 3, generator=generator(seed), dtype=F64)


def euler_grid(degree):
    """Rotations (M, 3, 3) and weights, exact for Wigner functions up to ``degree``: uniform in two
    angles, Gauss in the third."""
    m = degree + 1
    nodes, weights = np.polynomial.legendre.leggauss(m)
    angles = 2 * np.pi * np.arange(m) / m
    a, b, c = np.meshgrid(angles, np.arccos(nodes), angles, indexing="ij")
    w = np.broadcast_to(weights[None, :, None], a.shape).ravel() / weights.sum() / m**2
    rotations = Rotation.from_euler(
        "ZYZ", np.stack([a.ravel(), b.ravel(), c.ravel()], -1)
    ).as_matrix()
    return torch.from_numpy(rotations), torch.from_numpy(w)


def quadratic(seed=3):
    c = torch.randn(3, 3, 3, generator=generator(seed), dtype=F64)
    return lambda x: torch.einsum("ijk,bnj,bnk->bni", c, x, x) + x.tanh()


def by_quadrature(model, x, y, degree=24):
    """Total and twirled squared loss per item from a fine grid on SO(3)."""
    R, w = euler_grid(degree)
    turned = torch.einsum("kij,bnj->kbni", R, x)
    answers = model(turned.flatten(0, 1)).unflatten(0, (len(R), len(x)))
    back = torch.einsum("kji,kbnj->kbni", R, answers)
    total = torch.einsum("k,kbni->b", w, (back - y).square()) / x[0].numel()
    mean = torch.einsum("k,kbni->bni", w, back)
    return total, (mean - y).square().mean((1, 2))


@pytest.mark.parametrize(
    ("make", "size", "degree"), [(tetrahedral, 12, 2), (octahedral, 24, 3), (icosahedral, 60, 5)]
)
def test_polyhedral_groups_average_low_degrees_exactly(make, size, degree):
    group = make()
    R = group.matrices
    assert len(group) == size
    assert torch.allclose(torch.linalg.det(R), torch.ones(size, dtype=F64))
    # characters of degree l average to the number of invariants: none up to the degree, one beyond
    cosine = ((R.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2).clamp(-1, 1)
    angle = torch.arccos(cosine)
    for degree_l in range(1, degree + 2):
        character = 1 + 2 * torch.cos(angle[:, None] * torch.arange(1, degree_l + 1)).sum(1)
        invariants = float(character.mean())
        assert invariants == pytest.approx(0 if degree_l <= degree else 1, abs=1e-9)


def test_split_of_a_linear_model_is_known():
    """f(x) = A x: the twirl is tr(A)/3 x, and E|RᵀARx|² = |A|²|x|²/3."""
    (x, y), A = points(), matrix()
    report = audit_equivariance(
        lambda v: v @ A.T, ow.SO3(), (x, y), nodes=Quadrature("icosahedral")
    )
    row, trace = report.rows[0], A.trace() / 3
    twirled = (trace * x - y).square().mean()
    error = (A.square().sum() / 3 - trace**2) * x.square().mean()
    assert row.twirled.value == pytest.approx(float(twirled), rel=1e-12)
    assert row.equivariance.value == pytest.approx(float(error), rel=1e-12)
    assert row.total.value == pytest.approx(float(twirled + error), rel=1e-12)
    assert row.percent.value == pytest.approx(float(100 * error / (twirled + error)), rel=1e-12)
    assert report.evaluations == len(x) * (120 + 3)


def test_split_of_a_reflected_half():
    """±1 on the line: |x| is even, so all of it is error under the sign group, and x is none of
    it."""
    group = ow.Finite(torch.tensor([[[1.0]], [[-1.0]]]))
    x = torch.linspace(-2, 2, 11, dtype=F64)[:, None, None]
    row = audit_equivariance(lambda v: v + 0.5 * v.abs(), group, (x, x)).rows[0]
    assert row.twirled.value == pytest.approx(0, abs=1e-15)
    assert row.equivariance.value == pytest.approx(float(0.25 * x.square().mean()), rel=1e-12)
    assert row.monte_carlo == 0


@pytest.mark.parametrize(
    "nodes", [Haar(2), Haar(5), Quadrature("tetrahedral"), Quadrature("octahedral", 3)]
)
def test_both_terms_are_unbiased(nodes):
    """10⁴ repeats of one item, each with group elements of its own, against quadrature on Euler
    angles."""
    x, y = points(1, 2)
    model, repeats = quadratic(), 10_000 if nodes.blocks * nodes.size(ow.SO3()) < 40 else 4_000
    total, twirled = by_quadrature(model, x, y)
    many = (x.expand(repeats, -1, -1), y.expand(repeats, -1, -1))
    row = audit_equivariance(model, ow.SO3(), many, nodes=nodes, generator=generator(7)).rows[0]
    for found, exact in (
        (row.total, total),
        (row.twirled, twirled),
        (row.equivariance, total - twirled),
    ):
        assert abs(found.value - float(exact)) < 3 * found.error
    # every item is the same, so the error over items is that of the group elements alone
    # (jackknife: to first order)
    if nodes.blocks > 2:
        assert row.monte_carlo == pytest.approx(row.equivariance.error, rel=0.4)
    else:
        assert math.isnan(row.monte_carlo)


def test_uncorrected_mean_is_biased_by_the_known_factor():
    """The published estimate of the equivariance error with S rotations is (S - 1)/S of it (facts
    of 2512.02303)."""
    (x, y), A = points(4000, 2), matrix()
    S = 4
    g = ow.SO3().sample((S, len(x)), generator=generator(), dtype=F64)
    F = torch.einsum("kbji,kbnj->kbni", g, torch.einsum("kbij,bnj->kbni", g, x) @ A.T)
    naive = F.var(0, correction=0).mean((1, 2))
    terms = loss_terms(F, y, LOSSES["squared"], blocks=S)
    assert torch.allclose(naive, terms.equivariance * (S - 1) / S, rtol=1e-10)


@pytest.mark.parametrize("name", ["l1", "huber", "norm"])
def test_convex_losses(name):
    """Jensen: the gap is the mean Bregman divergence, hence never negative; corrected estimates
    beat plain ones."""
    loss, model = LOSSES[name], quadratic()
    x, y = points(1, 3)
    R, w = euler_grid(24)
    F = torch.einsum(
        "kji,kbnj->kbni", R, model(torch.einsum("kij,bnj->kbni", R, x).flatten(0, 1))[:, None]
    )
    values = loss(F[:, 0], y.expand(len(R), -1, -1))
    centre = torch.einsum("k,kbni->bni", w, F).requires_grad_(True)
    twirled = loss(centre, y)
    (slope,) = torch.autograd.grad(twirled.sum(), centre)
    bregman = values - twirled - (slope * (F[:, 0] - centre)).sum((1, 2))
    gap = float(((w * values).sum() - twirled).detach())
    assert float((w * bregman).sum().detach()) == pytest.approx(gap, rel=1e-9)
    assert bregman.detach().min() > -1e-12 and gap > 0

    many = (x.expand(4000, -1, -1), y.expand(4000, -1, -1))
    row = audit_equivariance(
        model, ow.SO3(), many, loss=name, nodes=Haar(16), generator=generator(3)
    ).rows[0]
    assert row.total.value == pytest.approx(row.twirled.value + row.equivariance.value, rel=1e-12)
    assert abs(row.total.value - float((w * values).sum())) < 3 * row.total.error
    off = abs(row.equivariance.value - gap)
    assert off < 0.02 * gap + 3 * row.equivariance.error


def test_finite_groups_are_summed_in_full():
    (x, y), A = points(6), matrix()
    model = lambda v: v @ A.T + v.square()  # noqa: E731
    row = audit_equivariance(model, octahedral(), (x, y)).rows[0]
    F = torch.stack([model(x @ R.T) @ R for R in octahedral().matrices])
    assert row.total.value == pytest.approx(float((F - y).square().mean()), rel=1e-12)
    assert row.twirled.value == pytest.approx(float((F.mean(0) - y).square().mean()), rel=1e-12)
    assert row.nodes == 24 and row.monte_carlo == 0


def test_permutations_scalars_and_products():
    x, y = points(8, 4)
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=F64)[:, None]
    row = audit_equivariance(lambda v: weight * v, ow.Permutation(4), (x, y)).rows[0]
    assert row.twirled.value == pytest.approx(float((2.5 * x - y).square().mean()), rel=1e-12)
    assert row.equivariance.value == pytest.approx(float(1.25 * x.square().mean()), rel=1e-12)

    charges = y[..., 0]
    row = audit_equivariance(
        lambda v: weight[:, 0] * v.square().sum(-1),
        ow.Product(ow.SO3(), ow.Permutation(4)),
        AuditBatch(x, charges),
        outputs="scalar",
        nodes=Haar(600),
        generator=generator(),
    ).rows[0]
    exact = float(1.25 * x.square().sum(-1).square().mean())
    assert abs(row.equivariance.value - exact) < 4 * row.monte_carlo < 0.1 * exact
    product = audit_equivariance(
        lambda v: weight * v, ow.Product(ow.SO3(), ow.Permutation(4)), (x, y), generator=generator()
    ).rows[0]
    assert product.nodes == 24
    assert (
        abs(product.equivariance.value - float(1.25 * x.square().mean()))
        < 3 * product.equivariance.error
    )


def test_translations_need_a_width_and_periodic_ones_do_not():
    x, y = points(400, 3)
    with pytest.raises(InputError, match="nodes=Shifts"):
        audit_equivariance(lambda v: v, ow.Translation(), (x, y))
    row = audit_equivariance(
        lambda v: 0.5 * v, ow.Translation(), (x, x), nodes=Shifts(2.0), generator=generator()
    ).rows[0]
    assert abs(row.equivariance.value - 0.25 * 4.0) < 4 * row.equivariance.error
    cell = torch.rand(50, 3, 3, generator=generator(), dtype=F64)
    row = audit_equivariance(
        lambda v: torch.sin(2 * math.pi * v),
        ow.PeriodicTranslation(),
        (cell, cell),
        nodes=Haar(200),
        generator=generator(1),
    ).rows[0]
    assert abs(row.equivariance.value - 0.5) < 4 * row.equivariance.error + 0.01


def labels(b, n):
    return PointBatch(
        torch.zeros(b, n, 3),
        torch.full((b, n), 6),
        torch.ones(b, n, n).long(),
        torch.ones(b, n, dtype=torch.bool),
    )


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_an_equivariant_network_audits_to_rounding(dtype):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = EGNN(hidden=16, layers=2, vectors=8, pair=8).to(dtype)
    x, y = (v.to(dtype) for v in points(30))
    batch = AuditBatch(x, y, args=(torch.full((30,), 0.5, dtype=dtype), labels(30, 5)))
    row = audit_equivariance(net, ow.SO3(), batch, generator=generator()).rows[0]
    assert row.rounding and row.percent.value < 1e-6
    assert row.relative_deviation < 1e3 * torch.finfo(dtype).eps


def test_outputs_of_every_rank_and_inputs_that_turn_along():
    x, _ = points(20)
    cell = matrix(5).expand(20, 3, 3)
    tilt = torch.tensor([0.0, 0.0, 1.0], dtype=F64)

    def model(v, box):
        return {
            "energy": v.square().sum((1, 2)) + torch.linalg.det(box),
            "forces": v + 0.1 * tilt,
            "stress": v.mT @ v + box.mT @ box,
        }

    batch = AuditBatch(
        x, {k: torch.zeros_like(v) for k, v in model(x, cell).items()}, moved=(cell,)
    )
    kinds = {"energy": "invariant", "forces": "vector", "stress": "tensor"}
    report = audit_equivariance(model, ow.SO3(), batch, outputs=kinds, generator=generator())
    assert report.row("energy").rounding and report.row("stress").rounding
    assert report.row("forces").equivariance.value == pytest.approx(0.01 / 3, rel=1e-9)
    with pytest.raises(InputError, match="say how 'stress' moves"):
        audit_equivariance(
            model, ow.SO3(), batch, outputs={"energy": "invariant", "forces": "vector"}
        )


def test_quadrature_beats_haar_at_equal_cost():
    x, y = points(1, 4)
    many = (x.expand(2000, -1, -1), y.expand(2000, -1, -1))
    error = [
        audit_equivariance(quadratic(), ow.SO3(), many, nodes=n, generator=generator())
        .rows[0]
        .equivariance.error
        for n in (Haar(120), Quadrature("tetrahedral", 10), Quadrature("icosahedral", 2))
    ]
    assert error[2] < 0.5 * error[0] and error[1] < error[0]


def test_levels_and_gradients():
    """Gradients of f(x) = A x in closed form: of |tr(A)/3 x - y|² and of (|A|²/3 - tr²/9)|x|²."""
    A = nn.Linear(3, 3, bias=False, dtype=F64)
    batches = [
        AuditBatch(*points(50, 3, seed), level=level)
        for seed, level in ((1, 0.1), (2, 0.1), (3, 0.1), (4, 0.9))
    ]
    report = audit_equivariance(
        A, ow.SO3(), batches, gradients=True, nodes=Quadrature("icosahedral"), generator=generator()
    )
    assert [row.level for row in report.rows] == [0.1, 0.9]
    found = report.row(level=0.9).gradients
    x, y = batches[3].x, batches[3].target
    W = A.weight.detach().clone().requires_grad_(True)
    trace = W.trace() / 3
    (twirled,) = torch.autograd.grad((trace * x - y).square().mean(), W, retain_graph=True)
    (error,) = torch.autograd.grad((W.square().sum() / 3 - trace**2) * x.square().mean(), W)
    assert found.twirled.value == pytest.approx(float(twirled.norm()), rel=1e-9)
    assert found.equivariance.value == pytest.approx(float(error.norm()), rel=1e-9)
    assert found.ratio.value == pytest.approx(float(error.norm() / twirled.norm()), rel=1e-9)
    several = report.row(level=0.1).gradients
    assert several.batches == 3 and several.twirled.error > 0
    assert all(p.grad is None for p in A.parameters())


class Regulated(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.flatten(1)).view_as(x)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(15, dtype=F64)])
def test_stateful_layers_are_switched_off_and_said(layer):
    model = Regulated(layer)
    report = audit_equivariance(model, ow.SO3(), points(), generator=generator())
    assert any("training mode" in text and type(layer).__name__ in text for text in report.warnings)
    assert model.training and layer.training
    model.eval()
    assert not any(
        "training mode" in text for text in audit_equivariance(model, ow.SO3(), points()).warnings
    )


def test_bad_models_are_one_clear_error():
    x, y = points()
    with pytest.raises(InputError, match="asked twice"):
        audit_equivariance(lambda v: v + torch.rand_like(v), ow.SO3(), (x, y))
    with pytest.raises(InputError, match=r"not finite for items \[3\]"):
        bad = torch.ones(len(x), 1, 1, dtype=F64)
        bad[3] = math.nan
        audit_equivariance(lambda v, w: v * w, ow.SO3(), AuditBatch(x, y, args=(bad,)))
    with pytest.raises(InputError, match="shape"):
        audit_equivariance(lambda v: v[..., 0], ow.SO3(), (x, y))
    with pytest.raises(InputError, match="needs a tensor 'prediction'"):
        audit_equivariance(lambda v: {"forces": v}, ow.SO3(), (x, y))
    with pytest.raises(InputError, match="target prediction has values"):
        audit_equivariance(lambda v: v, ow.SO3(), (x, torch.full_like(y, math.nan)))
    with pytest.raises(InputError, match="is empty"):
        audit_equivariance(lambda v: v, ow.SO3(), (x[:0], y[:0]))
    with pytest.raises(InputError, match="no batch"):
        audit_equivariance(lambda v: v, ow.SO3(), [])
    with pytest.raises(InputError, match="unknown loss"):
        audit_equivariance(lambda v: v, ow.SO3(), (x, y), loss="l3")
    with pytest.raises(InputError, match="two independent"):
        Haar(1)
    with pytest.raises(InputError, match="quadrature is for rotations"):
        audit_equivariance(lambda v: v, ow.Permutation(5), (x, y), nodes=Quadrature())
    with pytest.raises(InputError, match=r"need a torch\.nn\.Module"):
        audit_equivariance(lambda v: v, ow.SO3(), (x, y), gradients=True)


def test_doubtful_models_are_warned_about():
    x, y = points(60)
    constant = audit_equivariance(
        lambda v: torch.ones_like(v), ow.SO3(), (x, y), generator=generator()
    )
    assert any("constant model" in text for text in constant.warnings)
    assert constant.rows[0].equivariance.value == pytest.approx(1.0, rel=1e-9)
    coupled = audit_equivariance(lambda v: v - v.mean(0), ow.SO3(), (x, y), generator=generator())
    assert any("depends on the other items" in text for text in coupled.warnings)
    perfect = audit_equivariance(lambda v: v, ow.SO3(), (x, x), generator=generator())
    assert any("loss is zero" in text for text in perfect.warnings) or perfect.rows[0].rounding


def test_budget_and_chunks():
    x, y = points(50)
    calls = []

    def model(v):
        calls.append(len(v))
        return quadratic()(v)

    report = audit_equivariance(
        model, ow.SO3(), [(x, y)] * 5, chunk=64, budget_seconds=0.0, generator=generator()
    )
    assert max(calls) <= 64 and report.rows[0].items == 50
    assert any("4 batches were left out" in text for text in report.warnings)
    whole = audit_equivariance(model, ow.SO3(), (x, y), generator=generator()).rows[0]
    assert whole.total == report.rows[0].total


def test_padding_counts_for_nothing():
    x, y = points(30, 6)
    mask = torch.ones(30, 6, dtype=torch.bool)
    mask[:, 4:] = False
    A = matrix()
    model = lambda v: v @ A.T  # noqa: E731
    padded = audit_equivariance(
        model,
        ow.SO3(),
        AuditBatch(x, y, mask=mask),
        nodes=Quadrature("icosahedral"),
        generator=generator(),
    ).rows[0]
    cut = audit_equivariance(
        model,
        ow.SO3(),
        (x[:, :4], y[:, :4]),
        nodes=Quadrature("icosahedral"),
        generator=generator(),
    ).rows[0]
    assert padded.equivariance.value == pytest.approx(cut.equivariance.value, rel=1e-9)
    assert padded.twirled.value == pytest.approx(cut.twirled.value, rel=1e-9)


def test_enumerate_refuses_what_cannot_be_enumerated():
    with pytest.raises(ow.errors.NoClosedFormError):
        audit_equivariance(lambda v: v, ow.SO3(), points(), nodes=Enumerate())
