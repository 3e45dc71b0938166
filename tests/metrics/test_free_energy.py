"""Free-energy differences, their errors and importance weights against repeated experiments with
known populations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from orbitwise.energies import Counted, Energy
from orbitwise.methods.conformers.diffusion.weights import Weighed, weigh, words, worth
from orbitwise.methods.conformers.exchange.found import Found
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.metrics.free_energy import (
    agreement,
    from_blocks,
    from_chains,
    from_populations,
    from_samples,
    judge_free_energies,
    memory,
    told,
)
from orbitwise.molecules.metrics.conformers import populations
from orbitwise.molecules.molecule import parse_smiles
from orbitwise.objectives.denoiser import Denoiser
from orbitwise.objectives.paths.ancestral_paths import (
    AncestralSampler,
    ancestral_paths,
    noised_paths,
)
from orbitwise.objectives.paths.path import log_weight
from orbitwise.processes.gaussian import GaussianProcess, beside
from orbitwise.processes.sampling import snr_grid

P = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
TRUE = -(P / P[0]).log()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(p, n, g):
    return torch.multinomial(p, n, replacement=True, generator=g)


def standard_scores(made):
    """(value - truth)/error of each repetition ``(R, 2)``."""
    return torch.stack([((f.value - TRUE[: len(f.value)]) / f.error)[1:3] for f in made])


def chains(g, frames, count, stay):
    """Chains that keep their state with probability ``stay`` and else draw a new one from P: (S,
    C)."""
    fresh = draw(P, frames * count, g).view(frames, count)
    keep = torch.rand(frames, count, generator=g) < stay
    keep[0] = False
    last = torch.where(keep, 0, torch.arange(frames)[:, None]).cummax(0).values
    return fresh.gather(0, last)


def test_errors_of_independent_samples_are_the_scatter_of_repetitions():
    g = generator()
    made = [from_samples(draw(P, 400, g), 3) for _ in range(400)]
    z = standard_scores(made)
    assert abs(z.mean(0)).max() < 0.2 and ((z.std(0) > 0.9) & (z.std(0) < 1.1)).all()
    # ln p_1/p_0 of a multinomial: 1/n_1 + 1/n_0
    exact = (1 / (400 * P) + 1 / (400 * P[0])).sqrt()[1:]
    mean = torch.stack([f.error for f in made]).mean(0)[1:]
    torch.testing.assert_close(mean, exact, rtol=0.03, atol=0)


def test_errors_of_weighted_samples_are_the_scatter_of_repetitions():
    """Drawn alike from three conformers, weighted to P times a noise of its own."""
    g, made = generator(), []
    for _ in range(300):
        label = torch.randint(3, (600,), generator=g)
        log_w = P[label].log() + 0.7 * torch.randn(600, generator=g, dtype=torch.float64)
        made.append(from_samples(label, 3, log_w))
        assert made[-1].independent < 500
    z = standard_scores(made)
    assert abs(z.mean(0)).max() < 0.2 and ((z.std(0) > 0.88) & (z.std(0) < 1.12)).all()


def test_errors_of_chains_hold_their_autocorrelation():
    g, made, naive = generator(), [], []
    for _ in range(80):
        label = chains(g, 1200, 6, 0.9)
        made.append(from_chains(label, 3))
        naive.append(from_samples(label.flatten(), 3))
    z = standard_scores(made)
    assert ((z.std(0) > 0.75) & (z.std(0) < 1.3)).all(), z.std(0)
    assert (standard_scores(naive).std(0) > 2.5).all()  # 19 frames are one independent frame
    independent = torch.tensor([f.independent for f in made]).mean()
    assert abs(independent / (1200 * 6 / 19) - 1) < 0.3


def test_few_samples_have_an_interval_and_no_error():
    g, p = generator(), torch.tensor([0.99, 0.01], dtype=torch.float64)
    truth, inside, repeats = math.log(99.0), 0, 400
    for _ in range(repeats):
        found = from_samples(draw(p, 300, g), 2)
        if found.population[1] * 300 < 9.5:
            assert math.isnan(found.error[1])
        low, high = (float(v[1]) for v in found.interval())
        inside += low <= truth <= high
    assert inside / repeats > 0.93
    nothing = from_samples(torch.zeros(300, dtype=torch.long), 2)
    low, high = (float(v[1]) for v in nothing.interval())
    # no success in 300: a share below 1 - 0.025^(1/300)
    share = 1 - 0.025 ** (1 / 300)
    assert low == pytest.approx(math.log((1 - share) / share), rel=1e-4) and high == math.inf
    plain = told(nothing, 1, 0.6)
    assert (
        plain["kT"] is None
        and plain["error_kT"] is None
        and plain["interval_kcal_mol"] == [0.6 * low, None]
    )


def test_populations_with_errors_give_back_multinomial_errors():
    n = 700
    found = from_populations(P, (P * (1 - P) / n).sqrt())
    torch.testing.assert_close(found.variance[1:], (1 / (n * P) + 1 / (n * P[0]))[1:])
    torch.testing.assert_close(found.covariance()[1, 2], 1 / (n * P[0]))
    assert found.independent == pytest.approx(n)


def test_equal_sets_agree_as_often_as_they_should_and_others_do_not():
    g, chance = generator(), []
    for _ in range(300):
        a, b = from_samples(draw(P, 500, g), 3), from_samples(draw(P, 800, g), 3)
        chance.append(agreement(a, b).p_value)
    chance = torch.tensor(chance)
    assert abs(chance.mean() - 0.5) < 0.07 and 0.01 < (chance < 0.05).double().mean() < 0.1
    other = torch.tensor([0.6, 0.2, 0.2], dtype=torch.float64)
    found = agreement(from_samples(draw(P, 2000, g), 3), from_samples(draw(other, 2000, g), 3))
    assert found.dof == 2 and not found.within_errors and "differ" in found.words()
    assert agreement(a, from_samples(torch.zeros(50, dtype=torch.long), 3)) is None


def test_errors_from_the_scatter_between_blocks():
    """Blocks whose members are equal are worth one sample each, whatever their weights are."""
    g, scores = generator(), []
    for _ in range(200):
        of_block = draw(P, 400, g)
        blocks = torch.arange(400).repeat_interleave(5)
        weight = torch.tensor([1.0, 0.5, 2.0, 1.0, 0.5], dtype=torch.float64).repeat(400)
        scores.append(from_blocks(of_block[blocks], 3, blocks, weight))
    z = standard_scores(scores)
    assert ((z.std(0) > 0.85) & (z.std(0) < 1.15)).all(), z.std(0)
    apart = from_blocks(of_block, 3, torch.arange(400))
    alike = from_samples(of_block, 3)
    assert torch.allclose(apart.population, alike.population)
    assert torch.allclose(apart.variance[1:], alike.variance[1:], rtol=0.02)


def test_what_the_ensemble_inherits_from_the_search_is_in_its_error():
    """Search of 400 frames, a learner that draws from its frames, a relaxation that forgets in some
    of the samples."""
    g, kept, verdicts, remembered = generator(), 0.6, [], []
    for _ in range(150):
        searched = draw(P, 400, g).view(50, 8)
        start = searched.flatten()[torch.randint(400, (1500,), generator=g)]
        end = torch.where(torch.rand(1500, generator=g) < kept, start, draw(P, 1500, g))
        verdicts.append(judge_free_energies(end, start, from_chains(searched, 3), 3))
        remembered.append(memory(start, end, 3)[1:])
    assert (torch.stack(remembered).mean(0) - kept).abs().max() < 0.03
    z = standard_scores([v.ensemble for v in verdicts])
    assert ((z.std(0) > 0.85) & (z.std(0) < 1.15)).all(), z.std(0)
    chance = torch.tensor([v.against_search.p_value for v in verdicts])
    assert abs(chance.mean() - 0.5) < 0.1 and (chance < 0.05).double().mean() < 0.12


class Wells(Energy):
    """-ln of a mixture of two isotropic Gaussians in the plane; log Z = 0."""

    def __init__(self, weights, width=0.25):
        super().__init__()
        self.event_shape, self.zero_com, self.log_z = (1, 2), False, 0.0
        self.weights, self.width = torch.tensor(weights, dtype=torch.float64), width
        self.centres = torch.tensor([[[-1.0, 0.0]], [[1.0, 0.3]]], dtype=torch.float64)

    def logs(self, x, alpha=1.0, sigma=0.0):
        """Log weight and density of each well at x, noised: (B, 2)."""
        variance = beside(torch.as_tensor((alpha * self.width) ** 2 + sigma**2)).double()
        d = (
            (x[:, None] - beside(beside(torch.as_tensor(alpha)))[:, 0] * self.centres)
            .square()
            .sum((-2, -1))
        )
        variance = variance.reshape(-1, 1)
        return self.weights.log() - d / (2 * variance) - (2 * math.pi * variance).log()

    def forward(self, x):
        return -self.logs(x).logsumexp(1)


def test_weights_turn_a_learner_of_equal_wells_into_the_right_populations():
    """The exact denoiser of two equal wells, weighted to wells of 80 and 20 %."""
    process, target, learned = GaussianProcess.edm(), Wells([0.8, 0.2]), Wells([0.5, 0.5])

    def denoise(x, t):
        sigma = process.sigma(t)
        variance = beside(learned.width**2 + sigma**2)
        share = learned.logs(x, torch.ones_like(sigma), sigma).softmax(1)[..., None, None]
        pull = learned.width**2 / variance
        return (share * (learned.centres + pull[:, None] * (x[:, None] - learned.centres))).sum(1)

    grid = snr_grid(process, 60, noise_min=0.01)
    sampler = AncestralSampler(denoise, process, grid, 0.8, (1, 2))
    frames = target.centres[
        torch.multinomial(target.weights, 2000, replacement=True, generator=generator(1))
    ]
    frames = frames + target.width * torch.randn(
        2000, 1, 2, generator=generator(2), dtype=torch.float64
    )
    sampler = sampler.fitted(frames[:500], generator(3))
    backward = log_weight(noised_paths(sampler, frames[500:], target(frames[500:]), generator(5)))
    paths = ancestral_paths(sampler, target, 3000, generator(4))
    log_w, label = log_weight(paths), (paths.x[-1, :, 0, 0] > 0).long()
    found = worth(Weighed(paths.x[-1], log_w, backward, 3000), 1500.0)
    plain, weighted = populations(label, 2), populations(label, 2, log_weights=log_w)
    assert abs(plain.population[0] - 0.5) < 4 * plain.error[0]  # the learner's own are wrong
    assert abs(weighted.population[0] - 0.8) < 4 * weighted.error[0] < 0.1
    free = from_samples(label, 2, log_w)
    assert abs(free.value[1] - math.log(4)) < 4 * free.error[1]
    assert found.usable and 300 < found.effective < 3000
    assert abs(found.evidence.log_z) < 4 * found.evidence.log_z_error


class Cloud(Energy):
    """U = |x|²/(2 s²) around the centre of mass."""

    def __init__(self, points, scale):
        super().__init__()
        self.event_shape, self.zero_com, self.log_z, self.scale = (points, 3), True, None, scale

    def forward(self, x):
        return 0.5 * (x - x.mean(-2, keepdim=True)).square().sum((-2, -1)) / self.scale**2


class Nothing(nn.Module):
    def forward(self, x, fraction, batch):
        return torch.zeros_like(x)


def test_a_learner_that_is_right_has_usable_weights_and_the_known_log_z():
    """Water as three free points: a network of zeros is the exact denoiser of a Gaussian cloud in
    3(N-1) = 6 dimensions."""
    scale = 0.9
    energy = Counted(Cloud(3, scale))
    system = System(parse_smiles("O"), energy, 300.0, torch.device("cpu"), torch.float32)
    x = scale * torch.randn(200, 4, 3, 3, generator=generator())
    x = x - x.mean(-2, keepdim=True)
    found = Found(x, energy.inner(x), 0.0, {})
    effort = Effort(
        chains=4,
        rungs=1,
        leapfrog=1,
        search_steps=1,
        train_steps=1,
        batch_size=1,
        denoise_steps=2,
        relax_steps=1,
        weigh_paths=400,
    )
    learner = Denoiser(Nothing(), GaussianProcess.edm(zero_com=True), scale)
    weighed = weigh(system, effort, learner, found, 0)
    assert energy.counts["weighing"].energy == 400 and weighed.paths == len(weighed.x) == 400
    result = worth(weighed, 800.0)
    exact = 3 * math.log(2 * math.pi * scale**2)
    assert result.usable and "usable" in words(weighed, result)
    assert abs(result.evidence.log_z - exact) < 4 * result.evidence.log_z_error + 1e-3
    assert -0.2 < result.evidence.gap < 2 and result.evidence.elbo <= exact + 0.1


def test_weights_that_degenerate_are_told():
    g = generator()
    wide = 8 * torch.randn(500, generator=g, dtype=torch.float64)
    weighed = Weighed(torch.zeros(500, 3, 3), wide, wide + 64, 500)
    result = worth(weighed, 300.0)
    assert not result.usable and result.effective < 50
    assert "degenerate" in words(weighed, result) and "No populations" in words(weighed, result)
    none = Weighed(torch.zeros(1, 3, 3), wide[:1], wide, 500)
    assert not worth(none, 300.0).usable and "fewer than two" in words(none, worth(none, 300.0))
