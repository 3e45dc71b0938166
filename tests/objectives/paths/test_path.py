"""Paths of a diffusion sampler against closed forms: a Gaussian target is solved exactly by a fresh
sampler."""

from __future__ import annotations

import math

import pytest
import torch

from orbitwise.data.batch import PointBatch
from orbitwise.data.buffer import ReplayBuffer
from orbitwise.energies import Counted, Energy, GaussianMixture
from orbitwise.errors import InputError
from orbitwise.networks import EGNN, MLP
from orbitwise.objectives.paths.path import (
    bridges,
    chosen_steps,
    log_weight,
    roll_out,
    step_ratios,
    with_log_ratio,
)
from orbitwise.objectives.paths.sampler import DiffusionSampler
from orbitwise.objectives.paths.schedule import Decaying, Random, Uniform

SCHEDULES = [Uniform(12), Uniform(12, 0.1), Random(12), Decaying(12), Decaying(12, 0.05)]


class Gaussian(Energy):
    """U = |x - mean|²/(2 s²), of points with ``zero_com`` only of their relative positions."""

    def __init__(self, event_shape, scale, zero_com=False):
        super().__init__()
        self.event_shape, self.scale, self.zero_com = tuple(event_shape), scale, zero_com
        dims = math.prod(event_shape) - (event_shape[1] if zero_com else 0)
        self.log_z = 0.5 * dims * math.log(2 * math.pi * scale**2)

    def forward(self, x):
        x = x - x.mean(-2, keepdim=True) if self.zero_com else x
        return 0.5 * x.square().flatten(x.ndim - len(self.event_shape)).sum(-1) / self.scale**2


def labels(n):
    return PointBatch(
        torch.zeros(1, n, 3),
        torch.ones(1, n, dtype=torch.long),
        torch.zeros(1, n, n, dtype=torch.long),
        torch.ones(1, n, dtype=torch.bool),
    )


def sampler(schedule, event_shape=(3,), *, scale=0.75, noise=1.1, network=None, **options):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = MLP(event_shape, 16, 1) if network is None else network()
        made = DiffusionSampler(
            network, event_shape, schedule, noise=noise, data_scale=scale, **options
        )
    return made.double()


def disturbed(made, size=0.3):
    g = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in made.parameters():
            p += size * torch.randn(p.shape, generator=g, dtype=p.dtype)
    return made


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{type(s).__name__}-{s.start}")
@pytest.mark.parametrize("zero_com", [False, True])
def test_every_weight_is_z_for_the_gaussian_the_sampler_starts_with(schedule, zero_com):
    shape = (4, 3)
    energy = Gaussian(shape, 0.75, zero_com)
    made = sampler(schedule, shape, zero_com=zero_com, variance="gaussian")
    g = torch.Generator().manual_seed(0)
    forward = roll_out(made, energy, 50, g)
    x1 = made.centre(0.75 * torch.randn(50, *shape, generator=g, dtype=torch.float64))
    back = with_log_ratio(made, bridges(made, energy, x1, energy(x1), g))
    for paths in (forward, back):
        torch.testing.assert_close(
            log_weight(paths),
            torch.full((50,), energy.log_z, dtype=torch.float64),
            atol=1e-9,
            rtol=0,
        )
    # and the end points have the right spread, in 3(N-1) dimensions
    many = roll_out(made, energy, 4000, g).x[-1].square().sum((1, 2)) / 0.5625
    dims = 9 if zero_com else 12
    assert abs(many.mean() - dims) < 4 * math.sqrt(2 * dims / 4000)


@pytest.mark.parametrize(
    "options",
    [
        {"variance": "reference"},
        {"variance": "gaussian"},
        {"variance": "learned"},
        {"variance": "learned", "langevin": True},
        {"variance": "gaussian", "backward": True},
    ],
    ids=lambda o: "-".join(map(str, o.values())),
)
def test_weights_are_unbiased_whatever_the_network_does(options):
    """E_F[w] = Z and E_B[1/w] = 1/Z for a randomly disturbed sampler."""
    energy = Gaussian((2,), 0.75)
    if options.get("backward"):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            options = options | {"backward": MLP((2,), 8, 1)}
    made = disturbed(sampler(Decaying(8, first=0.1, last=0.05), (2,), **options), 0.15)
    g = torch.Generator().manual_seed(1)
    n = 40_000
    x1 = 0.75 * torch.randn(n, 2, generator=g, dtype=torch.float64)
    forward = (log_weight(roll_out(made, energy, n, g)) - energy.log_z).exp()
    back = with_log_ratio(made, bridges(made, energy, x1, energy(x1), g))
    backward = (energy.log_z - log_weight(back)).exp()
    for w in (forward, backward):
        assert w.std() > 1e-3  # the disturbance is seen
        assert abs(w.mean() - 1) < 4 * w.std() / math.sqrt(n), (w.mean(), w.std())


def test_bridges_have_the_covariance_of_brownian_bridges():
    made = sampler(Uniform(5), (1,), noise=1.3)
    g = torch.Generator().manual_seed(0)
    x1 = torch.full((60_000, 1), 0.4, dtype=torch.float64)
    x = bridges(made, Gaussian((1,), 1.0), x1, x1[:, 0], g).x[..., 0]
    t = made.times()
    torch.testing.assert_close(x.mean(1), 0.4 * t, atol=0.02, rtol=0)
    exact = 1.3**2 * (torch.minimum(t[:, None], t) - t[:, None] * t)
    torch.testing.assert_close(torch.cov(x), exact, atol=0.02, rtol=0)
    assert (x[0] == 0).all() and (x[-1] == 0.4).all()


def test_one_call_equals_the_densities_of_the_roll_out():
    made = disturbed(sampler(Decaying(9), (3,), langevin=True))
    paths = roll_out(
        made,
        GaussianMixture(torch.eye(3, dtype=torch.float64)),
        7,
        torch.Generator().manual_seed(0),
    )
    torch.testing.assert_close(step_ratios(made, paths).sum(0), paths.log_ratio, atol=1e-9, rtol=0)


def test_langevin_counts_a_gradient_per_step():
    energy = Counted(Gaussian((2,), 1.0))
    made = sampler(Uniform(6), (2,), langevin=True)
    roll_out(made, energy, 5, torch.Generator().manual_seed(0))
    assert (energy.counts["other"].energy, energy.counts["other"].gradient) == (5 * 6 + 5, 5 * 6)


@pytest.mark.parametrize(("total", "count"), [(10, 3), (100, 7), (12, 12), (7, 1)])
def test_every_step_is_chosen_equally_often(total, count):
    g = torch.Generator().manual_seed(0)
    seen, repeats = torch.zeros(total), 6000
    for _ in range(repeats):
        chosen = chosen_steps(total, count, g, "cpu")
        if chosen is None:
            assert count == total
            return
        assert len(chosen.unique()) == count
        seen[chosen] += 1
    share = count / total
    assert (seen / repeats - share).abs().max() < 4.5 * math.sqrt(share * (1 - share) / repeats)


def test_the_zero_centre_is_kept_and_the_sampler_turns_with_its_input():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = EGNN(
            hidden=16, layers=2, pair=12, vectors=8, heads=4, radial=8, chiral=False, graph=False
        )
    made = sampler(Uniform(5), (5, 3), network=lambda: network, zero_com=True, labels=labels(5))
    g = torch.Generator().manual_seed(0)
    paths = roll_out(made, Gaussian((5, 3), 1.0, True), 6, g)
    assert paths.x.mean(-2).abs().max() < 1e-12
    turn = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64)).Q
    order = torch.randperm(5, generator=g)
    moved = type(paths)(paths.x[:, :, order] @ turn.T, paths.times, paths.energy)
    torch.testing.assert_close(
        step_ratios(made, moved), step_ratios(made, paths), atol=1e-8, rtol=0
    )


def test_schedules_ascend_from_start_to_one():
    for schedule in SCHEDULES:
        t = schedule(torch.Generator().manual_seed(0))
        assert len(t) == 13 and t[-1] == 1 and t[0] == schedule.start and (t.diff() > 0).all()
    with pytest.raises(InputError, match="steps >= 2"):
        Uniform(1)
    with pytest.raises(InputError, match="first and last"):
        Decaying(10, first=0.7, last=0.5)
    logit = torch.logit(Decaying(50)()[1:-1])
    assert logit.diff().std() < 1e-9


def test_a_sampler_refuses_what_it_cannot_use():
    with pytest.raises(InputError, match="unknown variance"):
        sampler(Uniform(3), variance="big")
    with pytest.raises(InputError, match="positive"):
        sampler(Uniform(3), noise=0.0)
    made = sampler(Uniform(3))
    with pytest.raises(InputError, match="flow network"):
        made.log_flow(torch.zeros(1, 3).double(), torch.ones(1).double())
    with pytest.raises(InputError, match="no densities"):
        log_weight(bridges(made, Gaussian((3,), 1.0), torch.zeros(2, 3), torch.zeros(2), None))


class TestReplayBuffer:
    def test_first_in_first_out(self):
        buffer = ReplayBuffer(4, (2,))
        x = torch.arange(12.0).view(6, 2)
        buffer.add(x[:3], torch.arange(3.0))
        assert len(buffer) == 3
        buffer.add(x[3:], torch.arange(3.0, 6.0), grad=-x[3:])
        assert len(buffer) == 4 and sorted(buffer.energy.tolist()) == [2, 3, 4, 5]
        last = buffer.energy.argmax()
        assert (buffer.x[last] == x[5]).all() and (buffer.grad[last] == -x[5]).all()
        buffer.add(torch.ones(9, 2), torch.arange(9.0))
        assert sorted(buffer.energy.tolist()) == [5, 6, 7, 8]

    @pytest.mark.parametrize("priority", ["uniform", "rank", "reward"])
    def test_draws_follow_their_priority(self, priority):
        energy = torch.tensor([2.0, 0.0, 1.0])
        buffer = ReplayBuffer(10, (1,), priority=priority)
        weight = torch.tensor([0.0, 0.5, 0.0])
        buffer.add(energy[:, None], energy, log_weight=weight)
        rank = torch.tensor([2.0, 0.0, 1.0])
        exact = {
            "uniform": weight.exp(),
            "rank": weight.exp() / (0.03 + rank),
            "reward": (weight - energy).exp(),
        }[priority]
        exact = exact / exact.sum()
        drawn = buffer.draw(20_000, torch.Generator().manual_seed(0)).bincount(minlength=3) / 20_000
        assert (drawn - exact).abs().max() < 4 * 0.5 / math.sqrt(20_000)

    def test_the_state_dict_is_the_buffer(self):
        a, b = ReplayBuffer(5, (2,)), ReplayBuffer(5, (2,))
        a.add(torch.randn(7, 2), torch.randn(7))
        b.load_state_dict(a.state_dict())
        draw = [m.x[m.draw(50, torch.Generator().manual_seed(1))] for m in (a, b)]
        assert (draw[0] == draw[1]).all()

    def test_bad_points_are_refused(self):
        buffer = ReplayBuffer(5, (2,))
        with pytest.raises(InputError, match="empty"):
            buffer.draw(1)
        with pytest.raises(InputError, match="finite"):
            buffer.add(torch.zeros(1, 2), torch.tensor([math.nan]))
        with pytest.raises(InputError, match="expected points"):
            buffer.add(torch.zeros(1, 3), torch.zeros(1))
        with pytest.raises(InputError, match="priority"):
            ReplayBuffer(5, (2,), priority="best")
