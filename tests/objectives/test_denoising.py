"""Denoising targets by the property that defines them: E[(g·x_1 − target) φ(x_t)] = 0 for every
φ."""

import math

import pytest
import torch

import orbitwise as ow
from orbitwise.data.batch import PointBatch
from orbitwise.errors import InputError
from orbitwise.objectives.denoiser import Denoiser
from orbitwise.objectives.denoising import TARGETS, TIMES, Denoising
from orbitwise.processes.gaussian import PROCESSES, GaussianProcess

GEN = torch.Generator


def molecule(number, dtype=torch.float64):
    """Four points in general position and one padded row, the same in every item."""
    x = torch.tensor(
        [[1.0, 0, 0], [0, 1.4, 0], [0, 0, -0.8], [-1.0, -1.4, 0.8], [0, 0, 0]], dtype=dtype
    )
    mask = torch.tensor([True] * 4 + [False])
    bonds = torch.zeros(5, 5, dtype=torch.long)
    return PointBatch(
        x.expand(number, 5, 3),
        mask.long().expand(number, 5),
        bonds.expand(number, 5, 5),
        mask.expand(number, 5),
    )


def moments(target, group, number, time, seed):
    """Mean and standard error of (g·x_1 − target) φ(x_t), with φ = x_t and a bounded odd function
    of it."""
    process = GaussianProcess.flow(zero_com=True)
    batch = molecule(number)
    t = torch.full((number,), time, dtype=torch.float64)
    made, wanted = (
        Denoising(process, group, "augmentation"),
        Denoising(process, group, target, proposals=8),
    )
    # the same generator: the same g and noise in both
    xt, moved = made.pair(batch.x, t, batch.mask, GEN().manual_seed(seed))
    again, goal = wanted.pair(batch.x, t, batch.mask, GEN().manual_seed(seed))
    assert torch.equal(xt, again)
    products = torch.stack(
        [((moved - goal) * phi).sum((-2, -1)) for phi in (xt, torch.tanh(3 * xt))]
    )
    return products.mean(-1), products.std(-1) / number**0.5, moved, goal


@pytest.mark.parametrize("time", [0.15, 0.4, 0.6])
def test_exact_target_has_the_conditional_mean_and_less_spread(time):
    for group in (
        ow.SO3(),
        ow.Finite(torch.stack([torch.eye(3), torch.diag(torch.tensor([-1.0, -1, 1]))])),
    ):
        mean, error, moved, goal = moments("exact", group, 40_000, time, seed=1)
        assert (mean.abs() < 4.5 * error).all(), (group, mean, error)
        # law of total variance: spread lost = mean squared difference
        lost = moved.square().sum((-2, -1)) - goal.square().sum((-2, -1))
        gap = lost - (moved - goal).square().sum((-2, -1))
        assert abs(gap.mean()) < 4.5 * gap.std() / 200 and lost.mean() > 0


def test_the_same_check_finds_the_bias_of_alignment():
    mean, error, *_ = moments("aligned", ow.SO3(), 20_000, 0.4, seed=2)
    assert (mean.abs() > 10 * error).any(), (mean, error)


def test_importance_sampling_is_unbiased_with_the_generating_point_and_only_with_it():
    """Exchangeability (see the module's text), against the same estimator without that point."""
    mean, error, moved, goal = moments("snis", ow.SO3(), 40_000, 0.4, seed=2)
    assert (mean.abs() < 4.5 * error).all(), (mean, error)
    exact = moments("exact", ow.SO3(), 40_000, 0.4, seed=2)[3]
    assert exact.var(0).sum() < 0.97 * goal.var(0).sum() < 0.97**2 * moved.var(0).sum()
    process, batch = GaussianProcess.flow(zero_com=True), molecule(40_000)
    t = torch.full((40_000,), 0.4, dtype=torch.float64)
    xt, moved = Denoising(process, ow.SO3(), "augmentation").pair(
        batch.x, t, batch.mask, GEN().manual_seed(2)
    )
    post = ow.orbit_posterior(
        ow.SO3(),
        process,
        batch.x,
        xt,
        t,
        batch.mask,
        "snis",
        proposals=8,
        generator=GEN().manual_seed(3),
    )
    products = ((moved - post.mean) * xt).sum((-2, -1))
    assert abs(products.mean()) > 10 * products.std() / 200


def test_expected_gradients_agree_and_the_exact_one_varies_less():
    """Theorem 1 on the gradient of a linear network, at one noise level."""
    number, process, group = 40_000, GaussianProcess.flow(zero_com=True), ow.SO3()
    batch = molecule(number)
    t = torch.full((number,), 0.4, dtype=torch.float64)
    weights = torch.randn(3, 3, generator=GEN().manual_seed(3), dtype=torch.float64)
    gradients = {}
    for target in ("augmentation", "exact"):
        xt, goal = Denoising(process, group, target).pair(
            batch.x, t, batch.mask, GEN().manual_seed(4)
        )
        residual = (xt @ weights - goal) * batch.mask[..., None]
        gradients[target] = 2 * (xt.mT @ residual).flatten(1)  # d/dW |x W − y|²
    difference = gradients["augmentation"] - gradients["exact"]
    assert (difference.mean(0).abs() < 4.5 * difference.std(0) / number**0.5).all()
    traces = {target: g.var(0).sum() for target, g in gradients.items()}
    assert traces["exact"] < 0.95 * traces["augmentation"], traces


class Zero(torch.nn.Module):
    def forward(self, x, t, batch):
        return torch.zeros_like(x)


def test_losses_by_hand_with_masks():
    estimate, target = torch.zeros(2, 3, 3), torch.ones(2, 3, 3)
    target[1, 0] = 2.0
    mask = torch.tensor([[True, True, False], [True, False, False]])
    losses = Denoising.loss(estimate, target, torch.tensor([1.0, 0.5]), mask)
    assert losses.tolist() == [1.0, 2.0]


def test_call_is_reproducible_weighted_and_ignores_what_stands_in_padding():
    process, batch = GaussianProcess.flow(zero_com=True), molecule(64, torch.float32)
    denoiser = Denoiser(Zero(), process, 1.0)
    for target in TARGETS:
        objective = Denoising(process, ow.SO3(), target, proposals=4)
        losses = objective(denoiser, batch, GEN().manual_seed(5))
        assert losses.shape == (64,) and losses.dtype == torch.float32 and (losses >= 0).all()
        assert torch.equal(losses, objective(denoiser, batch, GEN().manual_seed(5)))
    junk = batch.with_x(torch.where(batch.mask[..., None], batch.x, 1e3))
    objective = Denoising(process, ow.SO3())
    torch.testing.assert_close(
        objective(denoiser, junk, GEN().manual_seed(5)),
        objective(denoiser, batch, GEN().manual_seed(5)),
    )


def test_a_silent_network_has_loss_one_for_plain_augmentation_of_gaussian_data():
    process = GaussianProcess.edm()
    x = 0.7 * torch.randn(4000, 5, 3, generator=GEN().manual_seed(6))
    batch = PointBatch(
        x, *(getattr(molecule(4000), k) for k in ("species", "bonds")), torch.ones(4000, 5).bool()
    )
    losses = Denoising(process, ow.SO3(), "augmentation")(
        Denoiser(Zero(), process, 0.7), batch, GEN().manual_seed(7)
    )
    assert abs(losses.mean() - 1) < 5 * losses.std() / 4000**0.5


def test_laws_of_time():
    scale = torch.tensor(1.3, dtype=torch.float64)
    for name in TIMES:
        for process in (GaussianProcess.flow(), GaussianProcess.vp()):
            objective = Denoising(process, ow.SO3(), times=name)
            t = objective.draw_times(4096, scale, GEN().manual_seed(8))
            if name == "uniform":
                value = (t - 1e-3) / (1 - 2e-3)
            elif name == "late":  # a mixture: its law, and that all of it is seen
                law = 0.02 * t + 0.98 * t**1.9
                assert (law.sort().values - torch.linspace(0, 1, 4096)).abs().max() < 0.03
                continue
            else:  # back to the normal quantile of the noise ratio
                ratio = (process.sigma(t) / process.alpha(t) / scale).log()
                centre, width = {"lognormal": (-0.5, 1.2), "fine": (-1.2, 1.5)}[name]
                value = torch.special.ndtr((ratio - centre) / width)
            # stratified: the sorted draws sit in their cells
            cells = (value.sort().values * 4096 - torch.arange(4096)).clamp(-1, 2)
            assert cells.min() > -0.01 and cells.max() < 1.01
            # each position sees all of the law: the order is shuffled
            rank = torch.stack([torch.arange(4096.0, dtype=torch.float64), value])
            assert abs(torch.corrcoef(rank)[0, 1]) < 4 / math.sqrt(4096)


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process_gives_finite_losses(name):
    process = GaussianProcess.named(name, zero_com=True)
    denoiser = Denoiser(Zero(), process, 1.0)
    for times in TIMES:
        losses = Denoising(process, ow.SO3(), times=times)(
            denoiser, molecule(256, torch.float32), GEN().manual_seed(9)
        )
        assert torch.isfinite(losses).all() and losses.max() < 100


def test_product_group_moves_labels_with_points():
    """SO3 x a swap of two points: x_t comes from every labelling, and the target knows it."""
    group = ow.Product(ow.SO3(), ow.Permutation(4, labels=torch.tensor([0, 0, 1, 2])))
    mean, error, _, goal = moments("exact", group, 20_000, 0.5, seed=10)
    assert (mean.abs() < 4.5 * error).all()
    rotations_only = moments("exact", ow.SO3(), 20_000, 0.5, seed=10)[3]
    assert goal.var(0).sum() < rotations_only.var(0).sum()


def test_names_are_checked():
    with pytest.raises(InputError, match="unknown target 'exakt'"):
        Denoising(GaussianProcess.flow(), ow.SO3(), "exakt")
    with pytest.raises(InputError, match="unknown times"):
        Denoising(GaussianProcess.flow(), ow.SO3(), times="daily")
