"""Items with groups of very different orders in one call: class by class, to the same end."""

from __future__ import annotations

import pytest
import torch

import orbitwise as ow
from orbitwise.orbits.posterior.call import order_classes

FLOW = ow.GaussianProcess.flow()
LABELS = torch.arange(7).repeat(24, 1)
LABELS[5], LABELS[11, :4], LABELS[20, :2] = 0, 9, 9
OWN = ow.ItemPermutations.within(LABELS)  # orders 5040, 24, 2 and 1


class Torus:
    def wrapped_sigma(self, t):
        return 0.05 + 0.3 * (1 - t)


CASES = {
    "permutations": (OWN, FLOW),
    "rotations": (ow.Product(ow.SO3(), OWN), FLOW),
    "first": (ow.Product(OWN, ow.SO3()), FLOW),
    "torus": (ow.Product(ow.PeriodicTranslation(3), OWN), Torus()),
}


@pytest.fixture
def asked(monkeypatch):
    """What parts were solved, and a way to ask for the whole at once."""
    generator = torch.Generator().manual_seed(0)
    x1 = torch.rand(24, 7, 3, generator=generator)
    t = torch.rand(24, generator=generator)
    xt = x1 + 0.3 * torch.randn(24, 7, 3, generator=generator)

    def whole(*args, **options):
        with monkeypatch.context() as patch:
            patch.setattr(order_classes, "SMALL", 10**12)
            return ow.orbit_posterior(*args, **options)

    return x1, xt, t, whole


def solved(group, process, *given, **options):
    """The posterior, and into how many classes the call was shared."""
    seen = []
    shared_out = order_classes.shared_out_by_order

    def spy(*args):
        found = shared_out(*args)
        seen.append(len(found[0]))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orbitwise.orbits.posterior.entrance.shared_out_by_order", spy)
        post = ow.orbit_posterior(group, process, *given, **options)
    return post, sum(seen)


def same(a, b):
    for name in ("mean", "log_evidence", "score", "velocity"):
        assert torch.allclose(getattr(a, name), getattr(b, name), atol=1e-6, rtol=1e-5), name


@pytest.mark.parametrize("name", CASES)
def test_classes_and_the_whole_are_one(asked, name):
    group, process = CASES[name]
    x1, xt, t, whole = asked
    post, classes = solved(group, process, x1, xt, t)
    assert classes == 4
    same(post, whole(group, process, x1, xt, t))
    generator = torch.Generator().manual_seed(1)
    images = group.act(post.sample(3, generator), x1)
    assert images.shape == (3, 24, 7, 3)


def test_flat_points_masks_weights_and_conformers(asked):
    group = CASES["rotations"][0]
    x1, xt, t, whole = asked
    order = torch.randperm(24 * 7, generator=torch.Generator().manual_seed(2))
    batch = torch.arange(24).repeat_interleave(7)[order]
    back = torch.stack([(batch == item).nonzero()[:, 0] for item in range(24)])  # (24, 7)
    flat = x1.flatten(0, 1).clone(), xt.flatten(0, 1).clone()
    for to, of in zip(flat, (x1, xt), strict=True):
        to[back] = of  # in the order of their points, item by item
    for time, times in ((t, t), (t[batch], t), (0.4, 0.4)):
        post, classes = solved(group, FLOW, *flat, time, batch=batch)
        assert classes == 4
        padded = whole(group, FLOW, x1, xt, times)
        assert torch.allclose(post.mean[back], padded.mean, atol=1e-6)
    mask = torch.ones(24, 7, dtype=torch.bool)
    mask[0, 6] = False
    two = torch.stack([x1, x1.flip(1)])
    weights = torch.where(LABELS == 3, 2.0, 1.0)
    for points, options in (
        (x1, {"mask": mask}),
        (two, {"log_weights": torch.tensor([0.0, 1.0])}),
        (x1, {"weights": weights}),
        (x1, {"method": "mode"}),
    ):
        post, classes = solved(group, FLOW, points, xt, t[:, None], **options)
        assert classes == 4
        same(post, whole(group, FLOW, points, xt, t[:, None], **options))


def test_gradients_of_the_evidence(asked):
    x1, xt, t, _ = asked
    xt = xt.double().requires_grad_()
    post = ow.orbit_posterior(OWN, FLOW, x1.double(), xt, t)
    (slope,) = torch.autograd.grad(post.log_evidence.sum(), xt)
    assert torch.allclose(slope, post.score, atol=1e-9)


def test_where_classes_do_not_pay(asked):
    x1, xt, t, _ = asked
    assert solved(OWN[:4], FLOW, x1[:4], xt[:4], t[:4])[1] == 0
    assert solved(ow.Permutation(7), FLOW, x1, xt, t)[1] == 0
