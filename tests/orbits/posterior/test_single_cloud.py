"""One cloud without a batch in front has the posterior, and draws, of a batch of one."""

import pytest
import torch

import orbitwise as ow

FLOW, WRAPPED = ow.GaussianProcess.flow(), ow.WrappedNormalProcess()
TORUS = ow.PeriodicTranslation()
FEW, MANY = ow.Permutation(5, [0, 0, 1, 1, 2]), ow.Permutation(5, max_order=1)


@pytest.mark.parametrize(
    ("group", "process", "method"),
    [
        (ow.SO3(), FLOW, "exact"),
        (ow.O3(), FLOW, "snis"),
        (FEW, FLOW, "exact"),
        (FEW, WRAPPED, "snis"),
        (MANY, FLOW, "gibbs"),
        (ow.Product(ow.SO3(), FEW), FLOW, "exact"),
        (ow.Product(ow.SO3(), FEW), FLOW, "mode"),
        (ow.Translation(), FLOW, "exact"),
        (TORUS, WRAPPED, "exact"),
        (ow.Product(TORUS, FEW), WRAPPED, "exact"),
        (ow.Product(TORUS, MANY), WRAPPED, "gibbs"),
        (ow.Product(TORUS, MANY), WRAPPED, "mode"),
    ],
    ids=str,
)
def test_one_cloud_is_a_batch_of_one(group, process, method):
    gen = torch.Generator().manual_seed(0)
    x1, xt = torch.rand(2, 5, 3, generator=gen, dtype=torch.float64)

    def solve(x1, xt):
        again = torch.Generator().manual_seed(1)
        return ow.orbit_posterior(group, process, x1, xt, 0.5, method=method, generator=again)

    one, batch = solve(x1, xt), solve(x1[None], xt[None])
    assert one.mean.shape == (5, 3) and one.log_evidence.shape == ()
    for name in ("mean", "score", "log_evidence"):
        assert torch.allclose(getattr(one, name), getattr(batch, name)[0], atol=1e-12), name

    draws = [post.sample(3, torch.Generator().manual_seed(2)) for post in (one, batch)]
    moved = [group.act(draws[0], x1), group.act(draws[1], x1[None])[:, 0]]
    assert moved[0].shape == (3, 5, 3) and torch.allclose(*moved, atol=1e-12)
