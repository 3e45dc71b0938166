"""Flat points with a batch index: each item's posterior is the one it has alone."""

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError

FLOW = ow.GaussianProcess.flow(zero_com=True)
SIZES = [4, 1, 7, 3]


def flat(seed=0, dtype=torch.float64, shuffled=True):
    gen = torch.Generator().manual_seed(seed)
    batch = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))
    if shuffled:
        batch = batch[torch.randperm(len(batch), generator=gen)]
    x1, xt = torch.randn(2, len(batch), 3, generator=gen, dtype=dtype)
    t = torch.tensor([0.2, 0.5, 0.7, 0.9], dtype=dtype)
    return x1, xt, t, batch


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(
    ("group", "process"),
    [
        (ow.SO3(), FLOW),
        (ow.O3(), ow.GaussianProcess.vp()),
        (ow.PeriodicTranslation(), ow.WrappedNormalProcess(0.05, 0.5)),
    ],
    ids=repr,
)
def test_as_one_by_one(group, process, shuffled):
    x1, xt, t, batch = flat(shuffled=shuffled)
    post = ow.orbit_posterior(group, process, x1, xt, t, batch=batch)
    assert post.mean.shape == post.score.shape == post.velocity.shape == (sum(SIZES), 3)
    assert post.log_evidence.shape == (len(SIZES),)
    for k in range(len(SIZES)):
        mine = batch == k
        alone = ow.orbit_posterior(group, process, x1[mine], xt[mine], t[k])
        torch.testing.assert_close(post.log_evidence[k], alone.log_evidence)
        for name in ("mean", "score", "velocity", "noise"):
            torch.testing.assert_close(getattr(post, name)[mine], getattr(alone, name))


@pytest.mark.parametrize("way", ["node", "graph", "number", "beside"])
def test_times(way):
    x1, xt, t, batch = flat()
    t = torch.full_like(t, 0.4) if way == "number" else t
    given = {"node": t[batch], "graph": t, "number": 0.4, "beside": t[:, None, None]}[way]
    post = ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, given, batch=batch)
    expected = ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, t, batch=batch, sizes=(4, 7))
    assert torch.equal(post.mean, expected.mean)


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 1, 1)])
def test_times_beside_padded_points(shape):
    x1, xt = torch.randn(2, 2, 5, 3, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.2, 0.8])
    post = ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, t.reshape(shape))
    for k in range(2):
        alone = ow.orbit_posterior(ow.SO3(), FLOW, x1[k], xt[k], float(t[k]))
        torch.testing.assert_close(post.mean[k], alone.mean)


def test_conformers_and_draws():
    x1, xt, t, batch = flat()
    both = torch.stack([x1, x1.flip(-1)])
    post = ow.orbit_posterior(ow.SO3(), FLOW, both, xt, t, batch=batch)
    index, g = post.sample(5, torch.Generator().manual_seed(0))
    assert index.shape == (5, 4) and g.shape == (5, 4, 3, 3)
    mine = batch == 2
    alone = ow.orbit_posterior(ow.SO3(), FLOW, both[:, mine], xt[mine], t[2])
    torch.testing.assert_close(post.mean[mine], alone.mean)


def test_gradients_reach_flat_points():
    x1, xt, t, batch = flat()
    xt.requires_grad_()
    post = ow.orbit_posterior(ow.SO3(), ow.GaussianProcess.vp(), x1, xt, t, batch=batch)
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    (slope,) = torch.autograd.grad((weight * post.log_evidence).sum(), xt)
    torch.testing.assert_close(slope, weight[batch][:, None] * post.score)


def test_what_is_refused():
    x1, xt, t, batch = flat()

    def ask(t=t, batch=batch, x1=x1, **more):
        return ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, t, batch=batch, **more)

    uneven = t[batch].clone()
    uneven[batch == 2] = torch.rand(7, dtype=torch.float64)
    with pytest.raises(InputError, match="points of item 2 have different times"):
        ask(t=uneven)
    with pytest.raises(InputError, match="item 1 of the batch has no points"):
        ask(batch=torch.where(batch == 1, 0, batch))
    with pytest.raises(InputError, match="numbered from 0"):
        ask(batch=batch - 1)
    with pytest.raises(InputError, match="whole numbers"):
        ask(batch=batch.double())
    with pytest.raises(InputError, match="one per item"):
        ask(t=t[:3])
    with pytest.raises(InputError, match="15 points"):
        ask(x1=x1[:-1])
    with pytest.raises(InputError, match="not both"):
        ask(mask=torch.ones(15, dtype=torch.bool))
    with pytest.raises(InputError, match="sizes"):
        ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, 0.5, sizes=(4, 7))


def test_very_different_sizes_are_solved_class_by_class(monkeypatch):
    """One item of 300 points among 60 small ones, against the padded batch told its sizes."""
    from orbitwise.orbits.posterior.call import size_classes

    monkeypatch.setattr(size_classes, "SMALL", 100)
    gen = torch.Generator().manual_seed(0)
    counts = torch.cat([torch.randint(1, 9, (30,), generator=gen), torch.tensor([300])])
    counts = torch.cat([counts, torch.randint(1, 30, (30,), generator=gen)])
    batch = torch.arange(61).repeat_interleave(counts)
    batch = batch[torch.randperm(len(batch), generator=gen)]
    x1, xt = torch.randn(2, len(batch), 3, generator=gen, dtype=torch.float64)
    t = 0.1 + 0.8 * torch.rand(61, generator=gen, dtype=torch.float64)
    group, process = ow.SO3(), ow.GaussianProcess.flow()
    assert len(size_classes.size_classes(batch, group, process)) > 3
    xt.requires_grad_()
    told = ow.orbit_posterior(group, process, x1, xt, t, batch=batch, sizes=(61, 300))
    for times in (t, t[batch]):
        post = ow.orbit_posterior(group, process, x1, xt, times, batch=batch)
        for name in ("mean", "score", "velocity", "noise", "log_evidence"):
            torch.testing.assert_close(getattr(post, name), getattr(told, name))
    (slope,) = torch.autograd.grad(post.log_evidence.sum(), xt)
    torch.testing.assert_close(slope, post.score)
    g = post.sample(2000, gen)
    assert g.shape == (2000, 61, 3, 3)
    drawn = group.act(g[:, batch].mean(0), x1[:, None, :])[:, 0]  # the mean over draws, per point
    assert (drawn - post.mean).abs().max() < 5 * 4 / 2000**0.5
    with pytest.raises(InputError, match="one per item"):
        ow.orbit_posterior(group, process, x1, xt, t[:5], batch=batch)
