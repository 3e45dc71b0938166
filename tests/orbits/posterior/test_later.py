"""Score and evidence are worked out when they are read: then, once, and of what was asked."""

from __future__ import annotations

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError
from orbitwise.orbits.posterior.noise import Gaussian

FLOW = ow.GaussianProcess.flow()
GROUPS = [ow.SO3(), ow.O3(), ow.Permutation(4), ow.Product(ow.SO3(), ow.Permutation(4))]


def points(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x1, xt = torch.randn(2, 5, 4, 3, dtype=dtype, generator=generator)
    return x1, xt


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_a_mean_asks_for_no_score(group, monkeypatch):
    asked = []
    score = Gaussian.score
    monkeypatch.setattr(
        Gaussian, "score", lambda *args: (asked.append(args[1].shape), score(*args))[1]
    )
    post = ow.orbit_posterior(group, FLOW, *points(), 0.5)
    assert post.mean.shape == (5, 4, 3) and not asked
    assert post.score is post.score and asked == [(5, 4, 3)]


def test_points_changed_in_the_meantime():
    for group in GROUPS:
        x1, xt = points(torch.float64)
        post = ow.orbit_posterior(group, FLOW, x1, xt, 0.5)
        xt += 1
        for name in ("score", "log_evidence", "velocity"):
            with pytest.raises(InputError, match="changed in place after"):
                getattr(post, name)

        x1, xt = points()  # the solvers have copies in float64
        post = ow.orbit_posterior(group, FLOW, x1, xt, 0.5)
        before = ow.orbit_posterior(group, FLOW, x1.clone(), xt.clone(), 0.5)
        x1 += 1
        xt += 1
        assert torch.equal(post.score, before.score)
        assert torch.equal(post.log_evidence, before.log_evidence)
        assert torch.equal(post.velocity, before.velocity)


def test_reading_under_grad_mode_makes_no_graph():
    x1, xt = points()
    post = ow.orbit_posterior(ow.SO3(), FLOW, x1, xt, 0.5)
    x1.requires_grad_()
    assert not post.score.requires_grad and not post.log_evidence.requires_grad
