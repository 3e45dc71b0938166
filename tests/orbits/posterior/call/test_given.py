"""What is accepted and what is refused, with what is said."""

import numpy as np
import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError
from orbitwise.processes.gaussian import PROCESSES
from orbitwise.processes.sampling import sample

SHIPPED = {name: ow.GaussianProcess.named(name) for name in PROCESSES}
SHIPPED["harmonic"] = ow.HarmonicProcess()
SHIPPED["wrapped"] = ow.WrappedNormalProcess()
X1, XT = torch.rand(2, 2, 4, 3, generator=torch.Generator().manual_seed(0))
NAN = float("nan")


@pytest.mark.parametrize("t", [500.0, -0.3, NAN, 1.01, float("inf")])
@pytest.mark.parametrize("name", SHIPPED)
def test_times_outside_a_shipped_process(name, t):
    process = SHIPPED[name]
    group = ow.PeriodicTranslation() if name == "wrapped" else ow.SO3()
    times = torch.tensor([0.5, t])
    for ask in (
        lambda: process.perturb(X1, times),
        lambda: process.log_density(XT, X1, times),
        lambda: process.score(XT, X1, times),
        lambda: ow.orbit_posterior(group, process, X1, XT, times),
    ):
        with pytest.raises(InputError, match=r"t lies in \[0, 1\].*t = 1 - k/T|not finite"):
            ask()


def test_a_sampler_refuses_such_a_grid():
    grid = torch.tensor([0.0, 0.5, 1.5])
    with pytest.raises(InputError, match=r"t lies in \[0, 1\]"):
        sample(lambda x, t: x, ow.GaussianProcess.ve(), (2, 4, 3), grid=grid)


def test_a_process_of_ones_own_has_times_of_its_own():
    class Steps:
        def alpha(self, t):
            return 1 - t / 1000

        def sigma(self, t):
            return t / 1000

    post = ow.orbit_posterior(ow.SO3(), Steps(), X1, XT, 500.0)
    same = ow.orbit_posterior(ow.SO3(), ow.GaussianProcess.flow(), X1, XT, 0.5)
    torch.testing.assert_close(post.mean, same.mean)


def test_numpy():
    process = ow.GaussianProcess.flow()
    mask = np.array([[True] * 4, [True] * 3 + [False]])
    post = ow.orbit_posterior(
        ow.SO3(), process, X1.numpy(), XT.numpy(), np.array([0.2, 0.4]), mask=mask
    )
    same = ow.orbit_posterior(
        ow.SO3(), process, X1, XT, torch.tensor([0.2, 0.4]).double(), torch.as_tensor(mask)
    )
    torch.testing.assert_close(post.mean, same.mean)
    with pytest.raises(InputError, match="as_tensor"):
        process.perturb(X1.numpy(), torch.tensor([0.2, 0.4]))
    with pytest.raises(InputError, match="not list"):
        ow.orbit_posterior(ow.SO3(), process, X1.tolist(), XT, 0.5)


@pytest.mark.parametrize("name", ["x1", "xt", "t"])
def test_nan_is_refused_or_goes_through(name):
    given = {"x1": X1.clone(), "xt": XT.clone(), "t": torch.tensor([0.5, 0.5])}
    given[name].view(2, -1)[1, 0] = NAN
    process = ow.GaussianProcess.flow()
    with pytest.raises(InputError, match="not finite"):
        ow.orbit_posterior(ow.SO3(), process, **given)
    mean = ow.orbit_posterior(ow.SO3(), process, **given, check=False).mean
    alone = ow.orbit_posterior(ow.SO3(), process, X1[0], XT[0], 0.5).mean
    torch.testing.assert_close(mean[0], alone)
    assert mean[1].isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_coordinates_of_few_bits_are_refused(dtype):
    with pytest.raises(InputError, match="xt is torch"):
        ow.orbit_posterior(ow.SO3(), ow.GaussianProcess.flow(), X1, XT.to(dtype), 0.5)


def test_devices_are_named():
    with pytest.raises(InputError, match="xt is on cpu, x1 on meta"):
        ow.orbit_posterior(ow.SO3(), ow.GaussianProcess.flow(), X1.to("meta"), XT, 0.5)


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 1), (3,), (1, 2)])
def test_times_of_another_shape(shape):
    with pytest.raises(InputError, match="one number per item"):
        ow.orbit_posterior(ow.SO3(), ow.GaussianProcess.flow(), X1, XT, torch.full(shape, 0.5))


def test_sigma_per_point_is_refused_and_weights_are_named():
    class PerPoint:
        def alpha(self, t):
            return t

        def sigma(self, t):
            return (1 - t)[:, None, None] * torch.ones(2, 4, 1)

    with pytest.raises(InputError, match=r"PerPoint.sigma\(t\) has shape \(2, 4, 1\).*weights="):
        ow.orbit_posterior(ow.SO3(), PerPoint(), X1, XT, torch.tensor([0.5, 0.5]))


def test_weights_by_importance_sampling():
    """Rotations under sigma_i = sigma/√w_i, against 400,000 rotations written out."""
    gen = torch.Generator().manual_seed(1)
    weights = torch.tensor([1.0, 4.0, 12.0, 16.0], dtype=torch.float64)
    x1 = torch.randn(4, 3, generator=gen, dtype=torch.float64)
    xt = 0.5 * x1 + 0.5 * torch.randn(4, 3, generator=gen, dtype=torch.float64)
    post = ow.orbit_posterior(ow.SO3(), ow.GaussianProcess.flow(), x1, xt, 0.5, weights=weights)

    images = ow.SO3().act(ow.SO3().sample((400_000,), generator=gen, dtype=torch.float64), x1)
    width = (0.5 / weights.sqrt())[:, None].expand(4, 3)
    log_p = torch.distributions.Normal(0.5 * images, width).log_prob(xt).sum((-2, -1))
    share = log_p.softmax(0)[:, None, None]
    mean = (share * images).sum(0)
    error = (share.square() * (images - mean).square()).sum(0).sqrt()
    assert error.max() < 0.05
    assert ((post.mean - mean).abs() < 5 * error + 1e-12).all()
    evidence = torch.logsumexp(log_p, 0) - torch.tensor(4e5).log()
    assert abs(post.log_evidence - evidence) < 5 * share.square().sum().sqrt()
    torch.testing.assert_close(post.noise, (xt - 0.5 * post.mean) / 0.5)
    score = -weights[:, None] * (xt - 0.5 * post.mean) / 0.25
    torch.testing.assert_close(post.score, score)


def test_weights_that_do_not_fit():
    flow, ones = ow.GaussianProcess.flow(), torch.ones(2, 4)
    uneven = torch.tensor([1.0, 12.0, 1.0, 1.0]).expand(2, 4)

    def ask(group=ow.SO3(), process=flow, weights=ones):
        return ow.orbit_posterior(group, process, X1, XT, 0.5, weights=weights)

    for group in (ow.Permutation(4), ow.Product(ow.SO3(), ow.Permutation(4))):
        with pytest.raises(InputError, match="different weight"):
            ask(group, weights=uneven)
        torch.testing.assert_close(
            ask(group).mean, ow.orbit_posterior(group, flow, X1, XT, 0.5).mean
        )
    kept = ow.Permutation(4, labels=[0, 1, 0, 0])
    assert ask(kept, weights=uneven).mean.isfinite().all()
    for wrong in (-ones, 0 * ones):
        with pytest.raises(InputError, match="positive"):
            ask(weights=wrong)
    with pytest.raises(InputError, match="one per point"):
        ask(weights=torch.ones(2, 3))
    with pytest.raises(InputError, match="zero_com"):
        ask(process=ow.GaussianProcess.flow(zero_com=True))
    with pytest.raises(InputError, match="any weight alike"):
        ask(ow.Translation())


def test_other_mistakes():
    flow = ow.GaussianProcess.flow()
    with pytest.raises(InputError, match="empty for some"):
        mask = torch.tensor([[True] * 4, [False] * 4])
        ow.orbit_posterior(ow.SO3(), flow, X1, XT, 0.5, mask)
    with pytest.raises(InputError, match="group must be a group"):
        ow.orbit_posterior("SO3", flow, X1, XT, 0.5)  # type: ignore[arg-type]
