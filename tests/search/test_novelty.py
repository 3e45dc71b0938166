"""The novelty bonus: low where chains have been, high elsewhere, invariant, and never in a stored
energy."""

import math

import pytest
import torch

from orbitwise.energies import Counted, GaussianMixture, LennardJones, ManyWell
from orbitwise.errors import InputError
from orbitwise.groups.so3 import SO3
from orbitwise.search import (
    HMC,
    MALA,
    AdjustedLangevin,
    Coordinates,
    Cycle,
    GaussianPrior,
    Langevin,
    Novelty,
    NoveltyEnergy,
    PairHistogram,
    explore,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def plane(seed=0, **options):
    return Novelty(Coordinates((2,)), generator=generator(seed), **options)


def clusters(count=13, size=300, scale=0.7, seed=0):
    return GaussianPrior((count, 3), scale, zero_com=True).sample(
        (size,), generator=generator(seed)
    )


def fitted(seed=0):
    novelty = Novelty(PairHistogram(13, 4.0, bins=16), generator=generator(seed))
    novelty.fit(clusters(), 100, generator=generator(1))
    return novelty


def test_bonus_is_low_where_it_was_fitted_and_about_one_elsewhere():
    gen = generator(1)
    centres = torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
    seen = centres.repeat_interleave(100, 0) + torch.randn(300, 2, generator=gen)
    unseen = torch.tensor([[20.0, 20.0], [-20.0, -20.0], [-20.0, 5.0], [40.0, 0.0]])
    before, after = [], []
    for seed in range(3):
        novelty = plane(seed, length=0.5, hidden=64)
        assert (novelty.bonus(seen) == 0).all()  # nothing is known before the first fit
        novelty.fit(seen, 0)
        assert novelty.bonus(seen).mean().item() == pytest.approx(
            1.0, abs=1e-5
        )  # what the weight refers to
        before.append(novelty.bonus(unseen))
        novelty.fit(seen, 300, generator=gen)
        held_out = centres + torch.randn(3, 2, generator=gen)
        assert novelty.bonus(held_out).max() < 0.05
        after.append(novelty.bonus(unseen))
    assert 0.3 < torch.cat(before).mean() < 3
    assert torch.cat(after).mean() > 0.3 and torch.cat(after).min() > 0.05


def test_bonus_is_bounded_far_away():
    """exp(-U + weight·bonus) must have a normaliser: no growth with the distance."""
    novelty = plane()
    novelty.fit(torch.randn(200, 2, generator=generator(1)), 100, generator=generator(2))
    direction = torch.nn.functional.normalize(torch.randn(200, 2, generator=generator(3)), dim=-1)
    assert novelty.bonus(1e4 * direction).max() < 20


def test_new_points_become_known_and_old_ones_stay_known():
    novelty, gen = plane(length=0.5, hidden=64), generator(1)
    first = torch.randn(200, 2, generator=gen)
    second = first + 12.0
    novelty.fit(first, 200, generator=gen)
    scale = novelty.unseen.clone()
    high = novelty.bonus(second).mean()
    novelty.fit(torch.cat([first, second]), 300, generator=gen)
    assert novelty.bonus(second).mean() < 0.1 * high
    assert novelty.bonus(first).mean() < 0.05
    assert torch.equal(novelty.unseen, scale)  # the unit is that of the first fit


def test_only_the_predictor_learns():
    novelty = plane()
    target = [p.clone() for p in novelty.target.parameters()]
    predictor = [p.clone() for p in novelty.predictor.parameters()]
    novelty.fit(torch.randn(50, 2, generator=generator()), 20, generator=generator())
    assert all(torch.equal(a, b) for a, b in zip(target, novelty.target.parameters(), strict=True))
    assert all(
        not torch.equal(a, b)
        for a, b in zip(predictor, novelty.predictor.parameters(), strict=True)
    )
    with pytest.raises(InputError, match="two"):
        plane().fit(torch.zeros(1, 2), 5)


def test_same_generator_same_novelty():
    points = torch.randn(50, 2, generator=generator(5))
    values = []
    for _ in range(2):
        novelty = plane(3)
        novelty.fit(points, 10, generator=generator(4))
        values.append(novelty.bonus(points))
    assert torch.equal(*values)


def test_bonus_of_particles_has_their_symmetries():
    novelty = fitted()
    x = clusters(size=20, seed=7).double()
    bonus = novelty.bonus(x)
    assert bonus.shape == (20,) and bonus.std() > 0.01
    turned = SO3().act(SO3().sample((20,), generator=generator(), dtype=x.dtype), x)
    order = torch.randperm(13, generator=generator(2))
    for other in (turned, -x, x + 3.0, x[:, order]):
        torch.testing.assert_close(novelty.bonus(other), bonus, rtol=1e-5, atol=1e-5)
    assert (novelty.bonus(1.5 * x) - bonus).abs().max() > 0.05


def test_histogram_knows_species_and_counts_pairs():
    x = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0], [3.0, 0, 0]]])
    alike = PairHistogram(3, 4.0, bins=5)(x)
    # Bins of width 1 at 0, 1, 2, 3, 4; the distances are 1, 2, 3.
    expected = torch.stack(
        [torch.exp(-0.5 * (torch.tensor([1.0, 2.0, 3.0]) - c) ** 2).mean() for c in range(5)]
    )
    torch.testing.assert_close(alike[0], expected)
    mixed = PairHistogram(3, 4.0, bins=5, species=torch.tensor([6, 6, 1]))
    assert mixed.size == 10
    torch.testing.assert_close(mixed(x), mixed(x[:, [1, 0, 2]]))
    assert (mixed(x) - mixed(x[:, [2, 1, 0]])).abs().max() > 0.1
    with pytest.raises(InputError):
        PairHistogram(1, 4.0)


def surfaces():
    vector = plane()
    vector.fit(torch.randn(100, 2, generator=generator(1)), 50, generator=generator(2))
    means = torch.tensor([[1.0, 2.0], [-2.0, 0.0]], dtype=torch.float64)
    cluster = Novelty(PairHistogram(5, 4.0, bins=8), generator=generator())
    cluster.fit(clusters(5), 50, generator=generator(1))
    grid = torch.cartesian_prod(*[torch.arange(2, dtype=torch.float64)] * 3)[:5]
    shaken = grid + 0.1 * torch.randn(4, 5, 3, generator=generator(3), dtype=torch.float64)
    return {
        "vector": (
            GaussianMixture(means),
            vector,
            2.0 * torch.randn(6, 2, generator=generator()).double(),
        ),
        "cluster": (LennardJones(5), cluster, shaken),
    }


@pytest.mark.parametrize("name", ["vector", "cluster"])
def test_gradient_against_finite_differences(name):
    energy, novelty, x = surfaces()[name]
    novelty.double()
    surface = NoveltyEnergy(energy, novelty, 7.0)
    value, grad = surface.value_and_grad(x)
    torch.testing.assert_close(value, energy(x) - 7.0 * novelty.bonus(x))
    assert (grad - energy.value_and_grad(x)[1]).abs().max() > 0.05  # the bonus does push
    h = 1e-6
    for k in range(x[0].numel()):
        shift = torch.zeros_like(x[0]).flatten()
        shift[k] = h
        shift = shift.view_as(x[0])
        slope = (surface(x + shift) - surface(x - shift)) / (2 * h)
        torch.testing.assert_close(grad.flatten(1)[:, k], slope, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(surface.last.energy, energy(x))
    torch.testing.assert_close(surface.last.grad, energy.value_and_grad(x)[1])


def test_coinciding_points_have_a_finite_gradient():
    novelty = fitted()
    x = clusters(size=2)
    x[0, 0] = x[0, 1]
    x.requires_grad_(True)
    (grad,) = torch.autograd.grad(novelty.bonus(x).sum(), x)
    assert torch.isfinite(grad).all()


KERNELS = {
    "MALA": (MALA(0.5), 1),
    "HMC": (HMC(0.4, leapfrog_steps=3), 3),
    "Langevin": (Langevin(0.2), 1),
    "AdjustedLangevin": (AdjustedLangevin(0.4), 1),
}


@pytest.mark.parametrize("name", KERNELS)
def test_stored_energies_are_clean_and_none_is_evaluated_twice(name):
    kernel, gradients = KERNELS[name]
    energy = Counted(ManyWell(4))
    novelty = Novelty(Coordinates((4,)), generator=generator())
    novelty.fit(torch.randn(100, 4, generator=generator(1)), 50, generator=generator(2))
    gen = generator(3)
    x = torch.randn(5, 4, generator=gen)
    found = explore(
        kernel,
        x,
        energy,
        novelty,
        30,
        weight=20.0,
        warmup_steps=10,
        thin=2,
        refit_every=10,
        refit_steps=5,
        generator=gen,
    )
    expected = 5 * (1 + (10 + 30) * gradients)
    assert energy.counts["other"].energy == energy.counts["other"].gradient == expected
    assert found.x.shape == found.grad.shape == (15, 5, 4) and found.energy.shape == (15, 5)
    value, grad = ManyWell(4).value_and_grad(found.x)
    torch.testing.assert_close(found.energy, value)
    torch.testing.assert_close(found.grad, grad)
    # The chain itself stands on the surface with the bonus as it is now: nothing stale.
    value, grad = NoveltyEnergy(ManyWell(4), novelty, 20.0).value_and_grad(found.state.x)
    torch.testing.assert_close(found.state.energy, value)
    torch.testing.assert_close(found.state.grad, grad, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.state.x, found.x[-1])
    assert not found.interrupted and found.steps == 30


def test_rejected_steps_repeat_their_point():
    energy = ManyWell(2)
    found = explore(
        MALA(0.8), torch.zeros(8, 2), energy, plane(), 50, weight=0.0, generator=generator()
    )
    stayed = (found.x[1:] == found.x[:-1]).all(-1).double().mean()
    assert 0.1 < stayed < 0.9
    assert stayed.item() == pytest.approx(1 - found.acceptance.mean().item(), abs=0.03)


def test_the_law_of_the_chains_is_that_of_the_surface():
    """Histogram of one coordinate against quadrature of exp(-U + weight·bonus); reweighting by the
    clean and the lowered energy is then possible."""
    energy = GaussianMixture(torch.zeros(1, 1, dtype=torch.float64))
    novelty = Novelty(Coordinates((1,)), length=0.5, hidden=64, generator=generator(1))
    novelty.fit(torch.randn(300, 1, generator=generator(2)) * 0.5, 200, generator=generator(3))
    gen = generator(4)
    found = explore(
        MALA(1.0),
        torch.randn(500, 1, generator=gen).double(),
        energy,
        novelty,
        400,
        weight=2.0,
        generator=gen,
    )
    grid = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    with torch.no_grad():
        density = (-NoveltyEnergy(energy, novelty, 2.0)(grid.unsqueeze(-1))).exp()
    x = found.x[100:, :, 0]
    for edge in (-1.0, 0.0, 0.7, 1.5):
        exact = (density[grid < edge].sum() / density.sum()).item()
        share = (x < edge).double().mean(0)
        assert abs(share.mean() - exact) < 4 * share.std() / math.sqrt(500) + 1e-3
    # The bonus does matter here.
    normal = 0.5 * math.erfc(1.5 / math.sqrt(2))
    assert abs((density[grid > 1.5].sum() / density.sum()).item() - normal) > 0.03


def test_novelty_drives_chains_to_new_wells():
    """From one well of four, in steps that hardly ever cross the barrier: with the bonus they
    do."""
    energy, gen = ManyWell(4), generator(5)
    start = torch.tensor([1.7, 0.0, 1.7, 0.0]) + 0.1 * torch.randn(16, 4, generator=gen)
    unbiased = Novelty(Coordinates((4,)), hidden=16, generator=gen)
    first = explore(MALA(0.3), start, energy, unbiased, 50, weight=0.0, generator=gen)

    def visited(weight):
        novelty = Novelty(Coordinates((4,)), length=3.0, hidden=64, generator=generator(6))
        novelty.fit(first.x.flatten(0, 1), 100, generator=generator(7))
        found = explore(
            MALA(0.3),
            start,
            energy,
            novelty,
            300,
            weight=weight,
            refit_every=20,
            refit_steps=20,
            generator=generator(8),
        )
        low = found.energy.flatten() < -10.0
        return len(torch.unique((found.x[..., 0::2] > 0).flatten(0, 1)[low], dim=0))

    assert visited(0.0) == 1
    assert visited(40.0) >= 3


def test_kernels_with_several_proposals_per_step_are_refused():
    energy, novelty = ManyWell(2), plane()
    with pytest.raises(InputError, match="Cycle"):
        explore(Cycle((MALA(),)), torch.zeros(2, 2), energy, novelty, 5, weight=1.0)
    with pytest.raises(InputError, match="multiple"):
        explore(MALA(), torch.zeros(2, 2), energy, novelty, 5, weight=1.0, thin=2, refit_every=3)


def test_ctrl_c_keeps_whole_points(monkeypatch):
    energy, calls = ManyWell(2), []
    inner = ManyWell.value_and_grad

    def press(self, x):
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return inner(self, x)

    monkeypatch.setattr(ManyWell, "value_and_grad", press)
    found = explore(
        MALA(), torch.zeros(3, 2), energy, plane(), 50, weight=1.0, generator=generator()
    )
    assert found.interrupted and found.steps == 18
    assert len(found.x) == len(found.energy) == len(found.grad) == 18
    torch.testing.assert_close(found.energy, energy(found.x))
