"""Objectives on paths: identities between them, closed forms, and Monte Carlo with its error."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from orbitwise.data.batch import PointBatch
from orbitwise.data.buffer import ReplayBuffer
from orbitwise.energies import GaussianMixture
from orbitwise.errors import InputError
from orbitwise.groups.so3 import SO3
from orbitwise.networks import EGNN, MLP
from orbitwise.objectives.paths.adjoint_matching import AdjointMatching
from orbitwise.objectives.paths.augmented_flow import AugmentedFlow
from orbitwise.objectives.paths.detailed_balance import DetailedBalance
from orbitwise.objectives.paths.maximum_likelihood import MaximumLikelihood
from orbitwise.objectives.paths.path import bridges, step_ratios
from orbitwise.objectives.paths.reverse_kl import ReverseKL
from orbitwise.objectives.paths.sampler import DiffusionSampler
from orbitwise.objectives.paths.schedule import Decaying, Uniform
from orbitwise.objectives.paths.subtrajectory_balance import SubTrajectoryBalance
from orbitwise.objectives.paths.trajectory_balance import TrajectoryBalance, VarGrad
from orbitwise.training import TrainConfig, train

STEPS = 10


def mixture(dim=2):
    means = torch.tensor([[-0.6] * dim, [0.9] * dim], dtype=torch.float64)
    return GaussianMixture(means, 0.5, torch.tensor([0.3, 0.7]))


def sampler(dim=2, flows=False, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flow = MLP((dim,), 8, 1, out_shape=()) if flows else None
        made = DiffusionSampler(
            MLP((dim,), 8, 1),
            (dim,),
            Decaying(STEPS, first=0.1, last=0.05),
            noise=1.5,
            data_scale=0.75,
            flow=flow,
            **options,
        ).double()
    g = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in made.parameters():
            p += 0.2 * torch.randn(p.shape, generator=g, dtype=p.dtype)
    return made


def buffer(energy, n=500, seed=5):
    g = torch.Generator().manual_seed(seed)
    x = energy.sample((n,), generator=g)
    made = ReplayBuffer(n, energy.event_shape, dtype=torch.float64)
    made.add(x, *energy.value_and_grad(x))
    return made


def gradient(objective, made, count, seed):
    """All parameter gradients as one vector."""
    made.zero_grad()
    objective(made, range(count), torch.Generator().manual_seed(seed)).mean().backward()
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
            for p in made.parameters()
        ]
    )


def same_mean(a, b):
    """Two samples (n, P) of vectors agree in the mean, coordinate by coordinate (they are
    correlated)."""
    error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
    z = ((a.mean(0) - b.mean(0)) / error.clamp_min(1e-300))[error > 1e-12]
    assert len(z) > 20
    assert z.abs().max() < 5, z.abs().max()
    assert (z.abs() < 3).double().mean() > 0.95


@pytest.mark.parametrize("objective", [TrajectoryBalance, VarGrad])
@pytest.mark.parametrize("on_policy", [0.0, 0.5, 1.0])
def test_the_gradient_is_that_of_the_squared_residual(objective, on_policy):
    """Against autograd through half the squared residual, written out."""
    energy, made = mixture(), sampler()
    tested = objective(energy, buffer(energy), on_policy=on_policy)
    found = gradient(tested, made, 6, 3)
    paths = tested.paths(made, 6, torch.Generator().manual_seed(3))
    residual = step_ratios(made, paths).sum(0) + paths.energy
    constant = made.log_z if objective is TrajectoryBalance else -residual.mean()
    made.zero_grad()
    (0.5 * (residual + constant).square().mean()).backward()
    plain = torch.cat(
        [
            torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
            for p in made.parameters()
        ]
    )
    torch.testing.assert_close(found, plain, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("objective", [TrajectoryBalance, DetailedBalance])
def test_a_random_subset_of_steps_has_the_gradient_of_all_in_the_mean(objective):
    """The paths are the same for all repeats (one seed), only the chosen steps differ."""
    energy, made = mixture(), sampler(flows=True)
    whole = objective(energy, buffer(energy), on_policy=0.5)
    part = objective(energy, buffer(energy), on_policy=0.5, time_steps=3)
    fixed = whole.paths(made, 8, torch.Generator().manual_seed(3))
    fixed = type(fixed)(
        *(fixed.x, fixed.times, fixed.energy, None, step_ratios(made, fixed).sum(0).detach())
    )
    whole.paths = part.paths = lambda *_: fixed
    exact = gradient(whole, made, 8, 0)
    repeats = torch.stack([gradient(part, made, 8, seed) for seed in range(600)])
    error = repeats.std(0) / math.sqrt(len(repeats))
    z = ((repeats.mean(0) - exact) / error)[error > 1e-12]
    assert len(z) > 20 and z.abs().max() < 4.5
    assert (z.abs() < 3).double().mean() > 0.98  # within three standard errors
    assert (repeats.std(0) > 1e-6).any()


def test_subtrajectories_of_full_length_are_trajectory_balance():
    energy, made = mixture(), sampler(flows=True)
    data = buffer(energy)
    longest = gradient(SubTrajectoryBalance(energy, data, decay=1e6), made, 6, 2)
    whole = gradient(TrajectoryBalance(energy, data), made, 6, 2)
    torch.testing.assert_close(longest, whole, atol=1e-6, rtol=1e-4)


def test_subtrajectories_of_one_step_are_detailed_balance():
    energy, made = mixture(), sampler(flows=True)
    data = buffer(energy)
    for partial in (False, True):
        shortest = SubTrajectoryBalance(energy, data, decay=1e-6, partial_energy=partial)
        detailed = DetailedBalance(energy, data, partial_energy=partial)
        a, b = gradient(shortest, made, 6, 2), gradient(detailed, made, 6, 2)
        torch.testing.assert_close(a, b / STEPS, atol=1e-4, rtol=1e-3)


def test_detailed_balance_residuals_add_up_to_the_trajectorys():
    energy, made = mixture(), sampler(flows=True)
    objective = DetailedBalance(energy, buffer(energy))
    paths = objective.paths(made, 5, torch.Generator().manual_seed(0))
    k = torch.arange(paths.steps)
    before, after = objective.log_flows(made, paths, torch.cat([k, k + 1])).chunk(2)
    total = (before - after + step_ratios(made, paths)).sum(0)
    torch.testing.assert_close(total, made.log_z + step_ratios(made, paths).sum(0) + paths.energy)


def test_on_policy_log_variance_has_the_gradient_of_the_reverse_kl():
    """Richter et al. 2010.10436, proposition 1, with the path-wise gradient as the other
    estimator."""
    energy, made = mixture(), sampler(variance="gaussian")
    variance, kl = VarGrad(energy, on_policy=1.0), ReverseKL(energy)
    n = 100
    a = torch.stack([gradient(variance, made, 400, s) for s in range(n)])
    b = torch.stack([gradient(kl, made, 400, 1000 + s) for s in range(n)])
    same_mean(a * 400 / 399, b * 2)  # ReverseKL is per dimension, two here


def test_likelihood_has_the_gradient_of_the_paths_density():
    energy, made = mixture(), sampler()
    data = buffer(energy)
    tested = MaximumLikelihood(energy, data)
    n = 60
    a = torch.stack([gradient(tested, made, 2000, s) for s in range(n)])

    def plain(seed):
        g = torch.Generator().manual_seed(seed)
        index = data.draw(1000, g)
        paths = bridges(made, energy, data.x[index], data.energy[index], g)
        made.zero_grad()
        (-step_ratios(made, paths).sum(0).mean()).backward()
        return torch.cat(
            [
                torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
                for p in made.parameters()
            ]
        )

    same_mean(a, torch.stack([plain(5000 + s) for s in range(n)]))
    assert tested.spent.tolist() == [0, 0]


def test_exact_orbit_targets_keep_the_likelihoods_gradient_and_lower_its_variance():
    n_points = 4
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP((n_points, 3), 16, 1)
        made = DiffusionSampler(
            network,
            (n_points, 3),
            Decaying(6, first=0.1, last=0.1),
            noise=1.5,
            data_scale=0.8,
            zero_com=True,
        ).double()
        for p in network.parameters():
            torch.nn.init.normal_(p, std=0.3)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3, n_points, 3, generator=g, dtype=torch.float64)
    x = x - x.mean(-2, keepdim=True)

    class Trivial(SO3):
        """Rotates at random but knows no posterior: plain augmentation."""

    exact = ReplayBuffer(3, (n_points, 3), dtype=torch.float64)
    exact.add(x, torch.zeros(3))
    turned = ReplayBuffer(20_000, (n_points, 3), dtype=torch.float64)
    rotations = SO3().sample((20_000,), generator=g, dtype=torch.float64)
    turned.add(SO3().act(rotations, x[torch.arange(20_000) % 3]), torch.zeros(20_000))
    energy = GaussianMixture(torch.zeros(1, n_points, 3))
    n = 200
    a = torch.stack(
        [gradient(MaximumLikelihood(energy, exact, SO3()), made, 96, s) for s in range(n)]
    )
    b = torch.stack(
        [gradient(MaximumLikelihood(energy, turned), made, 96, 900 + s) for s in range(n)]
    )
    same_mean(a, b)
    assert a.var(0).sum() < 0.8 * b.var(0).sum()


def test_forces_keep_the_likelihoods_gradient_and_lower_its_variance():
    energy, made = mixture(), sampler(variance="gaussian")
    n, size = 120, 20_000
    x = energy.sample((size,), generator=torch.Generator().manual_seed(5))
    data = ReplayBuffer(size, (2,), dtype=torch.float64)
    data.add(x, *energy.value_and_grad(x))
    with_forces = MaximumLikelihood(energy, data, forces=True, steps=STEPS)
    for seed in range(40):  # the factors of the control variate settle
        with_forces(made, range(500), torch.Generator().manual_seed(90_000 + seed))
    a = torch.stack([gradient(with_forces, made, 500, s) for s in range(n)])
    b = torch.stack(
        [gradient(MaximumLikelihood(energy, data), made, 500, 900 + s) for s in range(n)]
    )
    same_mean(a, b)
    assert a.var(0).sum() < 0.5 * b.var(0).sum()


def test_adjoint_matching_rests_at_the_optimum_of_a_gaussian():
    """A fresh sampler solves N(0, scale²): there the mean gradient of the regression is zero."""
    energy = GaussianMixture(torch.zeros(1, 2, dtype=torch.float64), 0.75)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = DiffusionSampler(
            MLP((2,), 8, 1), (2,), Uniform(10), noise=1.5, data_scale=0.75, variance="gaussian"
        ).double()
    objective = AdjointMatching(
        energy, ReplayBuffer(5000, (2,), dtype=torch.float64), endpoints=5000, refresh=1, clip=1e9
    )
    repeats = torch.stack([gradient(objective, made, 4000, s) for s in range(60)])
    error = repeats.std(0) / math.sqrt(60)
    z = (repeats.mean(0) / error)[error > 1e-9]
    assert len(z) >= 10 and z.abs().max() < 4.5
    assert objective.spent.tolist() == [60 * 5000, 60 * 5000]
    # and it is not zero for another energy
    other = AdjointMatching(
        GaussianMixture(torch.ones(1, 2, dtype=torch.float64), 0.5),
        ReplayBuffer(5000, (2,), dtype=torch.float64),
        endpoints=5000,
        refresh=1,
    )
    assert (gradient(other, made, 4000, 0) / (error * math.sqrt(60) + 1e-9)).abs().max() > 20


def test_the_augmented_flow_pays_for_what_is_new_and_forgets_with_visits():
    energy, made = mixture(), sampler()
    objective = AugmentedFlow(energy, buffer(energy), weight=5.0, rate=0.05).double()
    x = energy.sample((500,), generator=torch.Generator().manual_seed(0))
    scale = made.data_scale
    first = objective.novelty(x, scale).mean().item()
    g = torch.Generator().manual_seed(0)
    plain = TrajectoryBalance(energy, buffer(energy)).paths(
        made, 10, torch.Generator().manual_seed(9)
    )
    augmented = objective.paths(made, 10, torch.Generator().manual_seed(9))
    assert (augmented.energy < plain.energy).all()  # the reward only grows
    for _ in range(300):
        objective.paths(made, 40, g)
    assert objective.novelty(x, scale).mean().item() < 0.5 * first
    made.zero_grad()
    objective(made, range(8), g).mean().backward()
    assert all(p.grad is None for p in objective.distillation.predictor.parameters())


def test_the_augmented_flow_takes_its_memory_of_an_earlier_version():
    """Its two networks then stood beside the buffer, not in a part of their own."""
    energy = mixture()
    old, new = (AugmentedFlow(energy, buffer(energy), seed=seed) for seed in (1, 2))
    state = {k.removeprefix("distillation."): v for k, v in old.state_dict().items()}
    assert "target.out.weight" in state and "predictor.out.weight" in state
    new.load_state_dict(state)
    assert all(torch.equal(new.state_dict()[k], v) for k, v in old.state_dict().items())


def test_paths_into_infinite_energy_are_left_out():
    class Walled(GaussianMixture):
        def forward(self, x):
            return torch.where(x[..., 0] > 0, torch.inf, super().forward(x))

    energy, made = Walled(torch.zeros(1, 2, dtype=torch.float64)), sampler()
    for objective in (
        TrajectoryBalance(energy, on_policy=1.0),
        VarGrad(energy, on_policy=1.0, time_steps=3),
    ):
        losses = objective(made, range(32), torch.Generator().manual_seed(0))
        assert torch.isfinite(losses).all() and (losses == 0).any() and (losses > 0).any()
        losses.mean().backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in made.parameters())


def test_evaluations_are_counted():
    energy, made = mixture(), sampler()
    tested = VarGrad(energy, buffer(energy), on_policy=0.5)
    for k in range(3):
        tested(made, range(8), torch.Generator().manual_seed(k))
    assert tested.spent.tolist() == [12, 0]
    kl = ReverseKL(energy)
    kl(made, range(8), torch.Generator().manual_seed(0))
    assert kl.spent.tolist() == [8, 8]
    langevin = TrajectoryBalance(energy, buffer(energy), on_policy=0.5)
    langevin(sampler(langevin=True), range(4), torch.Generator().manual_seed(0))
    assert langevin.spent.tolist() == [2 + 4 * STEPS, 4 * STEPS]


def test_settings_out_of_range_are_refused():
    energy = mixture()
    with pytest.raises(InputError, match="on-policy share"):
        VarGrad(energy, on_policy=1.5)
    with pytest.raises(InputError, match="replay buffer"):
        VarGrad(energy, on_policy=0.5)
    with pytest.raises(InputError, match="time_steps"):
        VarGrad(energy, on_policy=1.0, time_steps=0)
    with pytest.raises(InputError, match="fixed backward"):
        ReverseKL(energy)(sampler(backward=MLP((2,), 8, 1).double()), range(2), None)
    with pytest.raises(InputError, match="starts at the origin"):
        AdjointMatching(energy, ReplayBuffer(5, (2,)))(
            sampler(langevin=True), range(2), torch.Generator()
        )


class Count:
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return Count(len(index))

    def to(self, device):
        return self


@pytest.mark.parametrize("name", ["vargrad", "adjoint"])
def test_an_interrupted_training_with_a_memory_ends_as_an_unbroken_one(tmp_path, name):
    def make():
        energy = mixture().float()
        made = sampler().float()
        if name == "vargrad":
            data = ReplayBuffer(500, (2,))
            x = energy.sample((500,), generator=torch.Generator().manual_seed(5))
            data.add(x, energy(x))
            return made, VarGrad(energy, data, time_steps=4)
        return made, AdjointMatching(energy, ReplayBuffer(300, (2,)), endpoints=64, refresh=3)

    config = TrainConfig(steps=12, batch_size=8, warmup=2, checkpoint_every=5, accelerator="cpu")
    a, objective_a = make()
    train(a, objective_a, Count(80), config, tmp_path / "whole", on_progress=lambda _: None)
    b, objective_b = make()

    with pytest.raises(Stop):
        train(b, _stopping(objective_b, after=7), Count(80), config, tmp_path / "broken")
    c, objective_c = make()
    result = train(
        c, objective_c, Count(80), config, tmp_path / "broken", on_progress=lambda _: None
    )
    assert result.resumed_at == 5
    for p, q in zip(a.parameters(), c.parameters(), strict=True):
        assert torch.equal(p, q)
    assert torch.equal(objective_a.spent, objective_c.spent)


class Stop(Exception):
    """What breaks a training."""


def _stopping(objective, after: int):
    """``objective`` that gives its losses so many times and then stops the training."""
    losses, given = objective.losses, itertools.count()

    def until(*arguments):
        if next(given) == after:
            raise Stop
        return losses(*arguments)

    objective.losses = until
    return objective


def test_a_molecules_sampler_uses_one_item_of_labels_for_all():
    labels = PointBatch(
        torch.zeros(1, 3, 3),
        torch.tensor([[8, 1, 1]]),
        torch.tensor([[[0, 1, 1], [1, 0, 0], [1, 0, 0]]]),
        torch.ones(1, 3, dtype=torch.bool),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = EGNN(hidden=16, layers=2, pair=12, vectors=8, heads=4, radial=8)
    x, t = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(0)), torch.rand(5)
    every = PointBatch(
        x, labels.species.expand(5, 3), labels.bonds.expand(5, 3, 3), labels.mask.expand(5, 3)
    )
    torch.testing.assert_close(network(x, t, labels), network(x, t, every))
