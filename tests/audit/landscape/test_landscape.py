"""Hessians, condition numbers and landscapes of the loss terms against closed forms and dense
Hessians."""

import itertools
import math

import pytest
import torch
from torch import nn

import orbitwise as ow
from orbitwise.audit import AuditBatch, Enumerate, Haar, Quadrature
from orbitwise.audit.landscape.conditioning import (
    condition_numbers,
    conditioning,
    head_weight_deviation,
)
from orbitwise.audit.landscape.loss_surface import LossTerms, quadratic_in
from orbitwise.audit.landscape.plane import loss_landscape, quadratic_fit
from orbitwise.audit.landscape.spectrum import hessian_spectrum
from orbitwise.data.batch import PointBatch
from orbitwise.errors import InputError
from orbitwise.networks import PointTransformer

F64 = torch.float64
ICOSAHEDRAL = Quadrature("icosahedral")
SIGNS = ow.Finite(torch.tensor([[[1.0]], [[-1.0]]]))


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(b=6, n=4, d=3, seed=1):
    g = gen(seed)
    return AuditBatch(*(torch.randn(b, n, d, generator=g, dtype=F64) for _ in range(2)))


def linear(seed=2):
    model = nn.Linear(3, 3, bias=False, dtype=F64)
    with torch.no_grad():
        model.weight.copy_(torch.randn(3, 3, generator=gen(seed), dtype=F64))
    return model


class Small(nn.Module):
    """A point-wise network with a linear head, of no symmetry."""

    def __init__(self, hidden=5, seed=3):
        super().__init__()
        self.body = nn.Linear(3, hidden, dtype=F64)
        self.head = nn.Linear(hidden, 3, dtype=F64)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=gen(seed), dtype=F64))

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)))


# ---- a linear model: everything is known


def test_linear_model_against_projection_on_the_commutant():
    """f(x) = W x: the total Hessian is 2 mean(x²)/3, on vec(1)/√3 all of it twirled, elsewhere all
    equivariance."""
    data = batch()
    loss = LossTerms(linear(), ow.SO3(), data, nodes=ICOSAHEDRAL, generator=gen())
    scale = 2 * data.x.square().mean() / 3
    one = torch.eye(3, dtype=F64).flatten() / math.sqrt(3)
    commutant = torch.outer(one, one)
    found = {term: loss.dense_hessian(0, term) for term in ("total", "twirled", "equivariance")}
    assert torch.allclose(found["total"], scale * torch.eye(9, dtype=F64), atol=1e-12)
    assert torch.allclose(found["twirled"], scale * commutant, atol=1e-12)
    assert torch.allclose(
        found["equivariance"], scale * (torch.eye(9, dtype=F64) - commutant), atol=1e-12
    )

    result = condition_numbers(loss)
    assert [getattr(result, t).unresolved for t in found] == [0, 8, 1]
    for term in found:
        assert getattr(result, term).value.value == pytest.approx(1, rel=1e-9)
        assert getattr(result, term).largest == pytest.approx(float(scale), rel=1e-9)
    assert result.twirled.effective_rank == pytest.approx(
        1
    ) and result.equivariance.effective_rank == pytest.approx(8)
    assert math.isnan(result.total.value.error)  # one batch leaves no error


def test_the_terms_are_those_of_the_audit():
    model, data = Small(), [batch(seed=1), batch(b=3, seed=2)]
    loss = LossTerms(model, ow.SO3(), data, nodes=Quadrature("octahedral"), generator=gen(5))
    report = ow.audit_equivariance(
        model, ow.SO3(), data, nodes=Quadrature("octahedral"), generator=gen(5)
    )
    point, row = loss(), report.rows[0]
    assert point.total.item() == pytest.approx(row.total.value, rel=1e-12)
    assert point.twirled.item() == pytest.approx(row.twirled.value, rel=1e-12)
    assert point.equivariance.item() == pytest.approx(row.equivariance.value, rel=1e-10)


def test_the_hessian_of_the_twirled_term_has_no_bias():
    """Two Haar elements per item: the mean over many draws is the projection on the commutant, and
    so is not the Hessian of the squared mean prediction."""
    one, repeats = batch(b=1), 6000
    many = AuditBatch(one.x.expand(repeats, -1, -1), one.target.expand(repeats, -1, -1))
    pieces = [many[torch.arange(k, repeats, 20)] for k in range(20)]
    loss = LossTerms(linear(), ow.SO3(), pieces, nodes=Haar(2), generator=gen())
    dense = torch.stack([loss.dense_hessian(k, "twirled") for k in range(20)])
    eye = torch.eye(3, dtype=F64).flatten()
    exact = 2 * one.x.square().mean() / 9 * torch.outer(eye, eye)
    z = (dense.mean(0) - exact) / (dense.std(0) / math.sqrt(20))
    assert z.abs().max() < 5 and z.square().mean() < 2
    biased = (
        exact + (2 * one.x.square().mean() / 3 * torch.eye(9, dtype=F64) - exact) / 2
    )  # of two elements' mean
    assert ((biased - exact).abs() / (dense.std(0) / math.sqrt(20))).max() > 20
    assert torch.linalg.eigvalsh(dense.mean(0))[0] < 0  # as stated: unbiased, so not convex


# ---- a small network against dense Hessians written out by hand


def by_hand(model, data, g, blocks):
    """Both terms as a function of all parameters, the twirled one as the sum over pairs of
    different blocks."""
    names, tensors = zip(*model.named_parameters(), strict=True)

    def terms(theta):
        pieces = theta.split([t.numel() for t in tensors])
        named = {n: v.reshape(t.shape) for n, v, t in zip(names, pieces, tensors, strict=True)}
        x = torch.einsum("kbij,bnj->kbni", g, data.x)
        F = torch.einsum("kbji,kbnj->kbni", g, torch.func.functional_call(model, named, x))
        left = (F.unflatten(0, (blocks, -1)).mean(1)) - data.target
        pairs = [(left[i] * left[j]).mean() for i, j in itertools.permutations(range(blocks), 2)]
        return (F - data.target).square().mean(), sum(pairs) / len(pairs)

    return terms


@pytest.fixture(scope="module")
def small():
    model, data = Small(), batch()
    nodes = Quadrature("tetrahedral", 3)
    loss = LossTerms(model, ow.SO3(), data, nodes=nodes, generator=gen(4))
    terms = by_hand(model, data, loss.elements[0], 3)
    dense = [torch.func.hessian(lambda t, k=k: terms(t)[k])(loss.point) for k in (0, 1)]
    slopes = [torch.func.grad(lambda t, k=k: terms(t)[k])(loss.point) for k in (0, 1)]
    return loss, *(
        {"total": d[0], "twirled": d[1], "equivariance": d[0] - d[1]} for d in (dense, slopes)
    )


@pytest.mark.parametrize("term", ["total", "twirled", "equivariance"])
def test_derivatives_and_spectra_of_a_small_network(small, term):
    loss, dense, slopes = small
    H = dense[term]
    assert torch.allclose(loss.gradient(term), slopes[term], atol=1e-11)
    v = torch.randn(loss.dimension, generator=gen(), dtype=F64)
    assert torch.allclose(loss.hessian_product(term, v), H @ v, atol=1e-10)
    assert torch.allclose(loss.dense_hessian(0, term, columns=7), H, atol=1e-10)

    values = torch.linalg.eigvalsh(H)
    found = hessian_spectrum(loss, term, 3, probes=400, tolerance=1e-9, generator=gen(1))
    assert torch.allclose(found.values, torch.cat([values[:3], values[-3:]]), atol=1e-7)
    assert torch.allclose(H @ found.vectors, found.vectors * found.values, atol=1e-5)
    assert found.residuals.max() < 1e-5 and found.residuals.shape == (6,)
    assert torch.allclose(found.vectors.norm(dim=0), torch.ones(6, dtype=F64))
    assert abs(found.trace.value - H.trace()) < 4 * found.trace.error
    assert abs(found.square.value - H.square().sum()) < 4 * found.square.error
    rank = float(H.trace() ** 2 / H.square().sum())
    assert found.effective_rank == pytest.approx(rank, rel=0.25)
    assert found.stretch == pytest.approx(
        float(values[-1] / values.square().mean().sqrt()), rel=0.1
    )
    assert found.dimension == loss.dimension == 38 and found.products > 400
    assert found.largest.value == pytest.approx(float(values[-1])) and math.isnan(
        found.largest.error
    )


def test_batches_weigh_by_their_items_and_give_errors():
    """Eigenvalue errors against the spread over independent repeats of the whole."""
    pieces = [batch(b=8, seed=s) for s in range(10, 18)]
    loss = LossTerms(
        Small(), ow.SO3(), pieces, parameters=["head.weight"], nodes=Quadrature(), generator=gen()
    )
    joined = AuditBatch(torch.cat([p.x for p in pieces]), torch.cat([p.target for p in pieces]))
    assert torch.allclose(loss.weights, torch.full((8,), 1 / 8, dtype=F64))
    mean = sum(loss.dense_hessian(k, "total") for k in range(8)) / 8
    found = hessian_spectrum(loss, "total", 2, tolerance=1e-8)
    assert found.largest.value == pytest.approx(float(torch.linalg.eigvalsh(mean)[-1]), rel=1e-7)
    tops = []
    for s in range(30):
        other = [batch(b=64, seed=100 + s)]
        again = LossTerms(
            Small(),
            ow.SO3(),
            other,
            parameters=["head.weight"],
            nodes=Quadrature(),
            generator=gen(s),
        )
        tops.append(torch.linalg.eigvalsh(again.dense_hessian(0, "total"))[-1])
    assert found.largest.error == pytest.approx(float(torch.stack(tops).std()), rel=0.8)
    uneven = LossTerms(
        Small(), ow.SO3(), [joined[:60], joined[60:]], nodes=Quadrature(), generator=gen()
    )
    assert torch.allclose(uneven.weights, torch.tensor([60 / 64, 4 / 64], dtype=F64))
    whole = uneven()
    parts = [uneven.of_batch(k) for k in range(2)]
    assert whole.total.item() == pytest.approx(
        float(60 / 64 * parts[0].total + 4 / 64 * parts[1].total)
    )


# ---- the head: exactly quadratic


def test_head_hessian_is_the_orbit_averaged_covariance_of_the_features():
    model, data = Small(), [batch(b=5, seed=s) for s in (1, 2, 3)]
    loss = LossTerms(
        model, ow.SO3(), data, parameters=["head"], nodes=Quadrature("octahedral"), generator=gen()
    )
    assert loss.names == ["head.weight", "head.bias"] and loss.dimension == 18
    covariance = 0
    for piece, g in zip(data, loss.elements, strict=True):
        phi = torch.tanh(model.body(torch.einsum("kbij,bnj->kbni", g, piece.x)))
        phi = torch.cat([phi, torch.ones_like(phi[..., :1])], -1).flatten(0, 2).detach()
        covariance = covariance + 2 / 3 * phi.T @ phi / len(phi) / 3
    known = torch.linalg.eigvalsh(covariance).repeat_interleave(3)
    result = condition_numbers(loss, floor=1e-6)
    assert torch.allclose(result.total.spectrum, known, rtol=1e-9)
    assert result.total.value.value == pytest.approx(float(known[-1] / known[0]), rel=1e-8)
    assert result.total.unresolved == 0 and result.dimension == 18 and result.batches == 3
    assert (
        result.equivariance.negative > -1e-12
    )  # a variance: convex for every draw of the elements


def test_head_terms_of_a_sign_group():
    """w·(x, 2x³, |x|, 3x²) on the line: the first two are odd and only in the twirled term, the
    others only in the equivariance error; each 2x2 Hessian is known."""

    class Powers(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1.0, 0.5, -0.3, 0.2], dtype=F64))

        def forward(self, x):
            return torch.cat([x, 2 * x**3, x.abs(), 3 * x * x], -1) @ self.w[:, None]

    pieces = [batch(b=50, n=1, d=1, seed=s) for s in range(6)]
    x = torch.cat([p.x for p in pieces]).flatten()
    odd, even = torch.stack([x, 2 * x**3]), torch.stack([x.abs(), 3 * x * x])
    result = condition_numbers(LossTerms(Powers(), SIGNS, pieces))
    for found, features in ((result.twirled, odd), (result.equivariance, even)):
        values = torch.linalg.eigvalsh(2 * features @ features.T / len(x))
        assert torch.allclose(found.spectrum[2:], values, rtol=1e-9) and found.unresolved == 2
        assert torch.allclose(found.spectrum[:2], torch.zeros(2, dtype=F64), atol=1e-9)
        assert found.value.value == pytest.approx(float(values[1] / values[0]), rel=1e-8)
    assert result.twirled_over_equivariance.value == pytest.approx(
        result.twirled.value.value / result.equivariance.value.value
    )
    assert result.total.value.error > 0 and result.twirled_over_equivariance.error > 0


def test_condition_of_diagonal_hessians():
    total = torch.diag(torch.tensor([100.0, 10.0, 1.0, 1e-7]))
    twirled = torch.diag(torch.tensor([60.0, 0.0, 0.5, 0.0]))
    result = conditioning(total.expand(4, 4, 4), twirled.expand(4, 4, 4), floor=1e-5)
    assert result.total.value.value == pytest.approx(100) and result.total.unresolved == 1
    assert result.twirled.value.value == pytest.approx(120) and result.twirled.unresolved == 2
    assert (
        result.equivariance.value.value == pytest.approx(80) and result.equivariance.unresolved == 1
    )
    assert result.total_over_equivariance.value == pytest.approx(1.25)
    assert result.total.value.error == pytest.approx(0, abs=1e-6)  # equal batches
    assert conditioning(total[None], twirled[None], floor=0.05).total.value.value == pytest.approx(
        10
    )
    noisy = twirled - torch.diag(torch.tensor([0.0, 0.0, 0.0, 2.0]))  # noise of −2 hides 0.5
    found = conditioning(total[None] * 2, noisy[None]).twirled
    assert found.lower_bound and not result.twirled.lower_bound
    assert (
        found.negative == pytest.approx(-2)
        and found.unresolved == 3
        and found.value.value == pytest.approx(1)
    )


def test_errors_of_condition_numbers_are_those_of_repeats():
    """Twelve batches against 200 repeats of the whole."""

    def draw(seed):
        x = torch.randn(12, 40, 3, generator=gen(seed), dtype=F64) * torch.tensor(
            [5.0, 2.0, 1.0], dtype=F64
        )
        total = x.mT @ x / 40
        return conditioning(
            total, 0.4 * total * torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 0.5]], dtype=F64)
        )

    many = [draw(s) for s in range(200)]
    for pick in (lambda r: r.total.value, lambda r: r.total_over_equivariance):
        values = torch.tensor([pick(r).value for r in many])
        errors = torch.tensor([pick(r).error for r in many])
        assert errors.mean() == pytest.approx(float(values.std()), rel=0.25)


def test_only_quadratic_losses_have_a_condition_number():
    assert quadratic_in(LossTerms(Small(), SO3, batch(), parameters=["head"], generator=gen()))
    whole = LossTerms(Small(), SO3, batch(), generator=gen())
    assert not quadratic_in(whole)
    with pytest.raises(InputError, match="last"):
        condition_numbers(whole)


SO3 = ow.SO3()


# ---- the plane


def test_quadratic_fit_recovers_curvatures_and_noise():
    axis = torch.linspace(-0.01, 0.01, 20, dtype=F64)
    a, b = torch.meshgrid(axis, axis, indexing="ij")
    smooth = 3 + 2 * a - b + 0.5 * 226.7 * a * a + 0.5 * 4.3 * b * b + 9 * a * b
    exact = quadratic_fit(axis, smooth)
    assert torch.allclose(exact.curvatures, torch.tensor([226.7, 4.3], dtype=F64), rtol=1e-9)
    assert exact.r_squared == pytest.approx(1) and math.isnan(exact.neighbour_correlation)
    z, correlations, noise = [], [], 3e-3
    for s in range(50):
        fit = quadratic_fit(axis, smooth + noise * torch.randn(20, 20, generator=gen(s), dtype=F64))
        z.append((fit.curvatures - exact.curvatures) / fit.curvature_errors)
        correlations.append(fit.neighbour_correlation)
        assert fit.residual == pytest.approx(noise, rel=0.2)
        assert fit.relative_residual == pytest.approx(fit.residual / float(smooth.mean()), rel=0.01)
    z = torch.stack(z)
    assert z.square().mean() == pytest.approx(1, abs=0.45) and z.abs().max() < 4
    assert abs(sum(correlations) / 50) < 0.05
    wave = quadratic_fit(axis, smooth + noise * torch.sin(600 * a))
    assert wave.neighbour_correlation > 0.8


def test_common_random_numbers_are_exact():
    loss = LossTerms(Small(), SO3, batch(), nodes=Haar(4), generator=gen())
    directions = torch.randn(loss.dimension, 2, generator=gen(1), dtype=F64)
    first, second = (loss_landscape(loss, directions, span=0.05, count=7) for _ in range(2))
    for term in ("total", "twirled", "equivariance"):
        assert torch.equal(getattr(first, term), getattr(second, term))
    assert torch.allclose(first.total, first.twirled + first.equivariance, atol=1e-13)
    here = loss()
    assert first.total[3, 3].item() == pytest.approx(here.total.item(), rel=1e-13)
    q, r = torch.linalg.qr(directions)
    q = q * r.diagonal().sign()
    moved = loss(loss.point + first.axis[5] * q[:, 0] + first.axis[1] * q[:, 1])
    assert first.twirled[5, 1].item() == pytest.approx(moved.twirled.item(), rel=1e-12)
    assert torch.allclose(q[:, 0] * directions[:, 0].norm(), directions[:, 0])


def test_fresh_random_numbers_make_a_smooth_surface_rough():
    """The same surface: a quadratic to high precision with common random numbers, noise without
    neighbours when drawn anew at every point."""
    loss = LossTerms(
        Small(), SO3, [batch(b=8, seed=s) for s in (1, 2)], nodes=Haar(4), generator=gen()
    )
    found = hessian_spectrum(loss, "total", 1, probes=2, tolerance=1e-4)
    options = {"span": 2e-3, "count": 12}
    common = loss_landscape(loss, found.extreme_directions, **options)
    fresh = loss_landscape(loss, found.extreme_directions, **options, fresh=gen(3))
    assert fresh.fresh and not common.fresh
    for term in ("total", "twirled", "equivariance"):
        a, b = common.fit(term), fresh.fit(term)
        assert a.r_squared > 0.999 and b.r_squared < 0.2
        assert a.residual < 1e-4 * b.residual
        assert a.neighbour_correlation > 0.5 and abs(b.neighbour_correlation) < 0.25
    curvatures = torch.stack(
        [loss.curvature("total", v).mean() for v in found.extreme_directions.T]
    )
    assert torch.allclose(
        common.fit("total").curvatures, curvatures, rtol=1e-2, atol=1e-3 * float(curvatures[0])
    )


def test_the_default_span_doubles_the_loss_of_a_quadratic():
    loss = LossTerms(linear(), SO3, batch(), nodes=ICOSAHEDRAL, generator=gen())
    found = loss_landscape(loss, torch.eye(9, dtype=F64)[:, :2], count=5)
    scale = 2 * float(batch().x.square().mean()) / 3
    assert float(found.axis[-1]) == pytest.approx(
        math.sqrt(2 * float(loss().total) / scale), rel=1e-9
    )
    assert found.fit("total").r_squared == pytest.approx(1)
    assert torch.allclose(found.fit("total").curvatures, torch.full((2,), scale, dtype=F64))


# ---- the rest


def test_redrawn_losses_differ_and_share_the_model():
    loss = LossTerms(Small(), SO3, batch(), nodes=Haar(4), generator=gen())
    a, b, c = loss.redrawn(gen(1)), loss.redrawn(gen(1)), loss.redrawn(gen(2))
    assert torch.equal(a().total, b().total) and not torch.equal(a().total, c().total)
    assert a.model is loss.model and not torch.equal(a.elements[0], loss.elements[0])
    values = torch.stack([loss.redrawn(gen(s))().total for s in range(200)])
    exact = LossTerms(Small(), SO3, batch(), nodes=ICOSAHEDRAL, generator=gen())().total
    assert abs(values.mean() - exact) < 4 * values.std() / math.sqrt(200) + 0.02 * exact


def test_the_model_is_copied_and_left_alone():
    model = Small().train()
    model.head.weight.requires_grad_(False)
    loss = LossTerms(model, SO3, batch(), nodes=Haar(2), generator=gen())
    assert loss.names == ["body.weight", "body.bias", "head.bias"]  # what is learned
    before = loss().total
    with torch.no_grad():
        model.body.weight.zero_()
    assert torch.equal(loss().total, before)
    loss.hessian_product("twirled", torch.ones_like(loss.point))
    assert model.training and model.body.weight.requires_grad and model.body.weight.grad is None


def test_attention_and_dictionaries():
    """Fused attention has no second derivative; single precision; one of two outputs; padded
    points."""
    net = PointTransformer(hidden=16, layers=1, heads=2, waves=4, times=4)

    class Forces(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, t, labels):
            out = self.net(x, t, labels)
            return {"forces": out, "energy": out.sum((1, 2))}

    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
    labels = PointBatch(
        x=torch.zeros(2, 4, 3),
        species=torch.full((2, 4), 6),
        bonds=torch.zeros(2, 4, 4, dtype=torch.long),
        mask=mask,
    )
    x = torch.randn(2, 4, 3, generator=gen())
    data = AuditBatch(
        x, {"forces": x.sin(), "energy": x[:, 0, 0]}, (torch.full((2,), 0.5), labels), mask
    )
    kinds = {"forces": "vector", "energy": "invariant"}
    loss = LossTerms(
        Forces(),
        SO3,
        [data, data],
        outputs=kinds,
        output="forces",
        nodes=Haar(4),
        generator=gen(),
        chunk=5,
    )
    spectrum = hessian_spectrum(loss, "total", 1, probes=4)
    assert spectrum.values[-1] > 0 and spectrum.residuals.max() < 0.05 * spectrum.values[-1]
    head = LossTerms(
        Forces(),
        SO3,
        [data, data],
        outputs=kinds,
        output="forces",
        parameters=["net.readout"],
        nodes=Haar(4),
        generator=gen(),
    )
    result = condition_numbers(head, floor=1e-3)
    assert result.total.unresolved >= 3  # the centre of mass is taken out: the bias does nothing
    assert result.total.value.value > 1
    with pytest.raises(InputError, match="name one of forces, energy"):
        LossTerms(Forces(), SO3, data, outputs=kinds)


def test_finite_groups_and_all_their_elements():
    """Every element of a group of signed permutations: no sampling, terms convex."""
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    group = ow.Finite(torch.stack([torch.linalg.matrix_power(quarter, k) for k in range(4)]))
    loss = LossTerms(linear(), group, batch(), nodes=Enumerate())
    dense = loss.dense_hessian(0, "twirled")
    values = torch.linalg.eigvalsh(dense)
    assert values[0] > -1e-12
    assert (
        int((values > 1e-9).sum()) == 3
    )  # matrices that commute with turns about z: two in the plane, one along


def test_head_weight_deviation():
    row = torch.arange(1.0, 5.0)
    assert head_weight_deviation(row.expand(3, 4)).plain == 0
    opposite = torch.stack([row, -row, 0 * row])
    assert head_weight_deviation(opposite).plain == pytest.approx(
        float(2 / 3 * row.square().mean())
    )
    assert head_weight_deviation(opposite).normalised == pytest.approx(1)
    w = torch.randn(3, 1000, generator=gen())
    assert head_weight_deviation(w).normalised == pytest.approx(2 / 3, abs=0.05)  # independent rows
    with pytest.raises(InputError, match="zero"):
        head_weight_deviation(torch.zeros(3, 4))
    with pytest.raises(InputError, match="rows"):
        head_weight_deviation(row)


def test_errors():
    with pytest.raises(InputError, match=r"nn\.Module"):
        LossTerms(lambda x: x, SO3, batch())
    with pytest.raises(InputError, match=r"'tail'.*head\.bias"):
        LossTerms(Small(), SO3, batch(), parameters=["tail"])
    with pytest.raises(InputError, match="require gradients"):
        LossTerms(linear().requires_grad_(False), SO3, batch())
    loss = LossTerms(Small(), SO3, batch(), nodes=Haar(2), generator=gen())
    with pytest.raises(InputError, match="between 1 and 18"):
        hessian_spectrum(loss, k=19)
    with pytest.raises(InputError, match="restarts"):
        hessian_spectrum(loss, k=5, tolerance=1e-15, iterations=1)
    with pytest.raises(InputError, match="parallel"):
        loss_landscape(loss, torch.ones(38, 2, dtype=F64))
    with pytest.raises(InputError, match="directions"):
        loss_landscape(loss, torch.ones(5, 2))
    with pytest.raises(InputError, match="floor"):
        conditioning(torch.eye(2)[None], torch.eye(2)[None] / 2, floor=2.0)
    with pytest.raises(InputError, match="equivariance term has no curvature"):
        conditioning(torch.eye(2)[None], torch.eye(2)[None])
