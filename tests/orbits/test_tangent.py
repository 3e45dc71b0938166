"""``ow.horizontal`` against least squares on the orbit's tangent vectors, and the orbit's volume by
autograd."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import orbitwise as ow
from orbitwise.errors import InputError
from orbitwise.groups.tangent import orbit_drift

F64 = torch.float64


def normal(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_least_squares(x, v, weights=None, translations=False):
    """One item ``(N, D)``, NumPy: the residual of v after the tangent vectors of the orbit."""
    x, v = x.numpy(), v.numpy()
    N, D = x.shape
    w = np.ones(N) if weights is None else weights.numpy()
    if translations:
        x = x - (w[:, None] * x).sum(0) / w.sum()
    fields = []
    for i, j in itertools.combinations(range(D), 2):
        field = np.zeros_like(x)
        field[:, i], field[:, j] = x[:, j], -x[:, i]
        fields.append(field)
    if translations:
        fields += [np.tile(row, (N, 1)) for row in np.eye(D)]
    A = np.stack([(np.sqrt(w)[:, None] * f).ravel() for f in fields], 1)
    b = (np.sqrt(w)[:, None] * v).ravel()
    omega = np.linalg.lstsq(A, b, rcond=1e-9)[0]
    return torch.from_numpy(v - sum(o * f for o, f in zip(omega, fields, strict=True)))


@pytest.mark.parametrize("D", [2, 3, 4, 5])
@pytest.mark.parametrize("translations", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_is_the_residual_of_least_squares(D, translations, weighted):
    x, v = normal(4, 6, D) + 0.7, normal(4, 6, D, seed=1)
    weights = normal(4, 6, seed=2).exp() if weighted else None
    found = ow.horizontal(x, v, weights=weights, translations=translations)
    for k in range(4):
        w = None if weights is None else weights[k]
        torch.testing.assert_close(found[k], by_least_squares(x[k], v[k], w, translations))
    again = ow.horizontal(x, found, weights=weights, translations=translations)
    torch.testing.assert_close(again, found, rtol=0, atol=1e-13)


def test_no_angular_momentum_is_left_and_what_turns_is_gone():
    x, v, axis = normal(5, 7, 3), normal(2, 5, 7, 3, seed=1), normal(5, 1, 3, seed=2)
    found = ow.horizontal(x, v)
    assert torch.linalg.cross(x.expand_as(found), found).sum(-2).abs().max() < 1e-13
    assert ow.horizontal(x, torch.linalg.cross(axis.expand_as(x), x)).abs().max() < 1e-13
    torch.testing.assert_close(ow.horizontal(x, x), x)  # an endpoint may be handed over as it is


@pytest.mark.parametrize("D", [2, 3])
def test_turns_with_the_points_and_does_not_mind_their_size(D):
    Q = torch.linalg.qr(normal(D, D, seed=3))[0]  # reflections too
    x, v = normal(3, 5, D), normal(3, 5, D, seed=1)
    found = ow.horizontal(x, v)
    torch.testing.assert_close(ow.horizontal(x @ Q.mT, v @ Q.mT), found @ Q.mT)
    for size in (1e-30, 1e30):
        torch.testing.assert_close(ow.horizontal(size * x, v), found)


def line(N):
    direction = torch.tensor([1.0, 2.0, -2.0], dtype=F64) / 3
    return torch.linspace(-1, 2, N, dtype=F64)[:, None] * direction


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(4, 3, dtype=F64),
        line(4),
        line(4).float().double(),
        line(1),
        torch.cat([normal(4, 2), torch.zeros(4, 1, dtype=F64)], 1),
        torch.cat([torch.zeros(3, 3, dtype=F64), line(1)]),
    ],
    ids=["origin", "line", "rounded line", "one point", "plane", "one point and the origin"],
)
def test_shapes_with_fewer_directions_to_turn_in(x):
    v = normal(*x.shape, seed=1)
    torch.testing.assert_close(ow.horizontal(x, v), by_least_squares(x, v), rtol=0, atol=1e-5)
    assert ow.horizontal(x, v).square().sum() <= v.square().sum()
    for given in (x, x.float()):
        given, v2 = given.clone().requires_grad_(), v.to(given.dtype).requires_grad_()
        for slope in torch.autograd.grad(ow.horizontal(given, v2).square().sum(), (given, v2)):
            assert slope.isfinite().all()


def test_gradients():
    x, v = normal(2, 4, 3).requires_grad_(), normal(2, 4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(ow.horizontal, (x, v))
    assert torch.autograd.gradcheck(orbit_drift, (x,))
    inside = torch.func.vmap(ow.horizontal)(x, v)
    torch.testing.assert_close(inside, ow.horizontal(x, v))


def test_padded_and_flat_points_are_the_single_items():
    sizes = (3, 5, 1, 4)
    items = [(normal(n, 3, seed=n), normal(n, 3, seed=10 + n), normal(n).exp()) for n in sizes]
    wanted = [ow.horizontal(x, v, weights=w) for x, v, w in items]
    mask = torch.arange(5) < torch.tensor(sizes)[:, None]
    x, v = torch.full((2, 4, 5, 3), torch.nan, dtype=F64)
    w = torch.full((4, 5), torch.nan, dtype=F64)
    for k, (xk, vk, wk) in enumerate(items):
        x[k, : sizes[k]], v[k, : sizes[k]], w[k, : sizes[k]] = xk, vk, wk
    padded = ow.horizontal(x, v, mask, weights=w)
    assert (padded[~mask] == 0).all()
    torch.testing.assert_close(padded[mask], torch.cat(wanted))

    order = torch.randperm(13, generator=torch.Generator().manual_seed(0))
    batch = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))[order]
    # stable within an item: the order of the points of an item does not matter to it
    flat = ow.horizontal(x[mask][order], v[mask][order], batch=batch, weights=w[mask][order])
    torch.testing.assert_close(flat, torch.cat(wanted)[order])
    known = ow.horizontal(
        x[mask][order], v[mask][order], batch=batch, sizes=(4, 5), weights=w[mask][order]
    )
    torch.testing.assert_close(known, flat)


def test_autocast_does_not_round():
    x, v = normal(8, 6, 3, dtype=torch.float32), normal(8, 6, 3, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, half = ow.horizontal(x, v), ow.horizontal(x, v.bfloat16())
    torch.testing.assert_close(rounded, ow.horizontal(x, v), rtol=0, atol=0)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, ow.horizontal(x, v.bfloat16().float()), rtol=0, atol=0)


class NoLook(TorchDispatchMode):
    """Refuses what an accelerator has to wait for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(word in str(func) for word in ("_local_scalar", "nonzero", "equal.default"))
        return func(*args, **(kwargs or {}))


def test_no_value_is_looked_at_and_nothing_breaks_a_graph():
    x, v, w = normal(4, 5, 3), normal(2, 4, 5, 3), normal(4, 5).exp()
    mask, batch = w > 0.5, torch.tensor([0, 1, 0, 1, 1])
    with NoLook():
        ow.horizontal(x, v, mask, weights=w, translations=True)
        ow.horizontal(x[0], v[:, 0], batch=batch, sizes=(2, 3))
        orbit_drift(x, mask, w)
        with pytest.raises(AssertionError):  # which shows that a look would be seen
            ow.horizontal(x[0], v[:, 0], batch=batch)

    whole = torch.compile(ow.horizontal, backend="eager", fullgraph=True)
    x, v = normal(3, 5, 3), normal(3, 5, 3, seed=1)
    torch.testing.assert_close(whole(x, v), ow.horizontal(x, v))


def test_a_lost_item_loses_no_other():
    x, v = normal(3, 4, 3), normal(3, 4, 3, seed=1)
    wanted = ow.horizontal(x, v)
    x[1, 2, 0] = torch.nan
    found = ow.horizontal(x, v)
    assert found[1].isnan().any()
    torch.testing.assert_close(found[[0, 2]], wanted[[0, 2]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"v": torch.zeros(5, 3)}, "one vector per point"),
        ({"v": torch.zeros(4, 3, dtype=torch.long)}, "floating"),
        ({"xt": torch.zeros(4, 3).half()}, "float32 or float64"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, "mask must be bool"),
        ({"mask": torch.ones(4)}, "mask must be bool"),
        ({"weights": torch.ones(3)}, "weights must be"),
        ({"weights": torch.ones(4, dtype=torch.long)}, "floating"),
        ({"sizes": (1, 4)}, "batch, which is not given"),
        ({"batch": torch.zeros(4).long(), "mask": torch.ones(4) > 0}, "not both"),
        ({"batch": torch.zeros(5).long()}, "batch"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    given = {"xt": torch.zeros(4, 3), "v": torch.zeros(4, 3)} | change
    with pytest.raises(InputError, match=said):
        ow.horizontal(**given)


@pytest.mark.parametrize("D", [2, 3, 4])
@pytest.mark.parametrize("translations", [False, True])
def test_the_drift_is_the_gradient_of_the_orbits_volume(D, translations):
    """Against autograd through the Gram matrix of explicit tangent vectors, in the metric of the
    weights: the gradient there is the ordinary one over the weights."""
    x, w = normal(5, D).requires_grad_(), normal(5, seed=2).exp()
    y = x - (w[:, None] * x).sum(0) / w.sum() if translations else x
    fields = []
    for i, j in itertools.combinations(range(D), 2):
        E = torch.zeros(D, D, dtype=F64)
        E[i, j], E[j, i] = 1, -1
        fields.append(y @ E.mT)
    T = torch.stack(fields)
    gram = torch.einsum("n,knd,lnd->kl", w, T, T)
    (slope,) = torch.autograd.grad(0.5 * gram.logdet(), x)
    drift = orbit_drift(x.detach(), weights=w, translations=translations)
    torch.testing.assert_close(drift, slope / w[:, None], rtol=0, atol=1e-9)
    left = ow.horizontal(x.detach(), drift, weights=w, translations=translations)
    torch.testing.assert_close(left, drift, rtol=0, atol=1e-9)


def test_the_drift_is_what_turning_a_noised_cloud_back_leaves():
    """Full noise, turned onto the points it came from by Kabsch, moves horizontally, and on average
    by half its variance times the drift."""
    x = normal(4, 3, seed=5)
    x = x - x.mean(0)
    size, K = 0.02, 400_000
    noise = normal(K // 2, 4, 3, seed=6)
    noise = torch.cat([noise, -noise])  # the first order cancels
    y = x + size * noise
    U, _, Vh = torch.linalg.svd(y.mT @ x)
    U = torch.cat([U[..., :-1], U[..., -1:] * torch.linalg.det(U @ Vh)[:, None, None]], -1)
    step = y @ (U @ Vh) - x
    assert torch.linalg.cross(x.expand_as(step), step).sum(-2).abs().max() < 1e-10
    pairs = (step[: K // 2] + step[K // 2 :]) / 2
    mean, error = pairs.mean(0), pairs.std(0) / (K // 2) ** 0.5
    wanted = 0.5 * size**2 * orbit_drift(x)
    assert (error < 0.02 * wanted.abs().max()).all()
    assert ((mean - wanted).abs() < 5 * error + 0.01 * wanted.abs().max()).all()


@pytest.mark.parametrize("group", [ow.SO3(), ow.O3()])
def test_exact_posteriors_of_rotations_turn_nothing(group):
    """Mean, score and velocity have no angular momentum about x_t; the clean point has."""
    process = ow.GaussianProcess.flow()
    x1, t = normal(64, 9, 3), torch.linspace(0.05, 0.95, 64, dtype=F64)
    xt = process.perturb(x1, t, generator=torch.Generator().manual_seed(1))
    post = ow.orbit_posterior(group, process, x1, xt, t)
    for exact in (post.mean, post.score, post.velocity, post.mean - xt):
        turning = (exact - ow.horizontal(xt, exact)).norm(dim=(-2, -1))
        assert (turning < 1e-9 * exact.norm(dim=(-2, -1))).all()
    raw = (x1 - ow.horizontal(xt, x1)).norm(dim=(-2, -1)) / x1.norm(dim=(-2, -1))
    assert raw.median() > 0.05


def test_those_of_weighted_noise_turn_nothing_by_their_weights():
    process, w = ow.GaussianProcess.flow(), normal(6, seed=3).exp()
    x1, t = normal(16, 6, 3), torch.full((16,), 0.6, dtype=F64)
    xt = t[:, None, None] * x1 + 0.4 * normal(16, 6, 3, seed=1) / w.sqrt()[:, None]
    mean = ow.orbit_posterior(ow.SO3(), process, x1, xt, t, weights=w).mean
    torch.testing.assert_close(ow.horizontal(xt, mean, weights=w), mean, rtol=0, atol=1e-9)
    assert (ow.horizontal(xt, mean) - mean).abs().max() > 1e-3
