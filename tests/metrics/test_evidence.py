"""Evidence against Gaussians: log w = -U - log q with q = N(0, 1) and the target Z N(mu, s²)."""

import math

import pytest
import torch

from orbitwise.errors import InputError
from orbitwise.metrics.evidence import evidence, pareto_k

LOG_Z = 3.7


def draw(n: int, m: int, mu: float, s: float, seed: int, dims: int = 1):
    """Forward and backward log weights of one-step paths; the proposal is N(0, 1)^dims."""
    g = torch.Generator().manual_seed(seed)
    q = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    p = torch.distributions.Normal(torch.tensor(mu, dtype=torch.float64), s)

    def log_w(x):
        return LOG_Z + (p.log_prob(x) - q.log_prob(x)).sum(-1)

    x = torch.randn(n, dims, generator=g, dtype=torch.float64)
    y = mu + s * torch.randn(m, dims, generator=g, dtype=torch.float64)
    return log_w(x), log_w(y)


def exact(mu: float, s: float, dims: int = 1):
    """KL both ways and the ESS fraction Z²/E_q[w²] (exists for s² < 2) in closed form."""
    forward = math.log(s) + (1 + mu**2) / (2 * s**2) - 0.5  # KL(q‖p)
    backward = -math.log(s) + (s**2 + mu**2) / 2 - 0.5  # KL(p‖q)
    square = math.exp(mu**2 / (2 - s**2)) / (s * math.sqrt(2 - s**2))  # ∫ p²/q
    return LOG_Z - dims * forward, LOG_Z + dims * backward, square**-dims


@pytest.mark.parametrize("mu, s, dims", [(0.0, 0.9, 1), (0.5, 0.8, 1), (0.3, 0.9, 4)])
def test_everything_is_right_within_its_error(mu, s, dims):
    elbo, eubo, ess = exact(mu, s, dims)
    found = evidence(*draw(40_000, 30_000, mu, s, 1, dims), log_z_true=LOG_Z)
    assert abs(found.elbo - elbo) < 4 * found.elbo_error < 0.05
    assert abs(found.eubo - eubo) < 4 * found.eubo_error < 0.05
    assert abs(found.gap - (eubo - elbo)) < 4 * found.gap_error
    assert abs(found.log_z - LOG_Z) < 4 * found.log_z_error < 0.05
    assert abs(found.log_z_bridge - LOG_Z) < 4 * found.log_z_bridge_error < 0.03
    assert abs(found.ess - ess) < 4 * found.ess_error < 0.1
    assert found.ess_backward == pytest.approx(ess, rel=0.05)
    assert found.trusted and found.zero_weights == 0


def test_errors_are_the_scatter_over_repetitions():
    runs = [evidence(*draw(400, 300, 0.6, 0.8, seed)) for seed in range(200)]
    for name in ("elbo", "eubo", "gap", "log_z", "log_z_bridge", "ess"):
        values = torch.tensor([getattr(r, name) for r in runs])
        claimed = torch.tensor([getattr(r, f"{name}_error") for r in runs]).square().mean().sqrt()
        assert float(claimed / values.std()) == pytest.approx(1.0, abs=0.25), name


def test_the_bridge_is_much_better_where_importance_weights_fail():
    # The target is wider than the proposal: 12 dimensions, s = 1.3, weights without a finite
    # variance.
    runs = [evidence(*draw(1000, 1000, 0.0, 1.3, seed, 12)) for seed in range(30)]
    plain = torch.tensor([r.log_z - LOG_Z for r in runs])
    bridge = torch.tensor([r.log_z_bridge - LOG_Z for r in runs])
    assert bridge.square().mean().sqrt() < 0.5 * plain.square().mean().sqrt()
    assert abs(float(bridge.mean())) < 4 * float(bridge.std()) / math.sqrt(30)


def test_bridge_solves_its_equation_with_unequal_sizes():
    forward, backward = draw(150, 900, 0.8, 0.7, 3)
    c = evidence(forward, backward).log_z_bridge

    def pooled(v):  # 1 / (n q + m p) in units of q
        return 1 / (150 + 900 * (v - c).exp())

    left = (pooled(forward) * (forward - c).exp()).mean()  # E_q[p h]
    right = pooled(backward).mean()  # E_p[q h]
    assert float(left / right) == pytest.approx(1.0, abs=1e-9)


def test_equal_distributions_have_no_error():
    forward, backward = draw(100, 120, 0.0, 1.0, 4)
    found = evidence(forward, backward)
    assert found.ess == pytest.approx(1.0) and found.overlap == pytest.approx(1.0)
    for value in (found.elbo, found.eubo, found.log_z, found.log_z_bridge):
        assert value == pytest.approx(LOG_Z, abs=1e-9)
    assert found.log_z_bridge_error < 1e-6 and found.gap == pytest.approx(0.0, abs=1e-9)


def test_infinite_energies_are_weight_zero():
    forward, _ = draw(2000, 2, 0.3, 0.8, 5)
    dead = torch.cat([forward, torch.full((1000,), -math.inf)])[torch.randperm(3000)]
    found, whole = evidence(dead), evidence(forward)
    assert found.log_z == pytest.approx(whole.log_z - math.log(1.5), abs=1e-12)
    assert found.ess == pytest.approx(whole.ess * 2 / 3)
    assert found.elbo == -math.inf and found.zero_weights == 1000
    assert any("infinite energy" in text for text in found.cautions) and not found.trusted
    assert math.isfinite(found.log_z_error)


@pytest.mark.parametrize(
    "forward, backward, words",
    [
        ([0.0, math.nan, 1.0], None, "NaN"),
        ([0.0, math.inf], None, r"\+inf"),
        ([-math.inf, -math.inf], None, "all 2 paths"),
        ([0.0], None, "at least 2"),
        ([0.0, 1.0], [0.0, -math.inf], "reference samples have infinite"),
        ([0.0, 1.0], [0.0, math.nan], "backward"),
    ],
)
def test_what_cannot_be_judged_is_refused(forward, backward, words):
    with pytest.raises(InputError, match=words):
        evidence(torch.tensor(forward), None if backward is None else torch.tensor(backward))


def test_cautions_say_when_few_weights_dominate():
    forward, _ = draw(1000, 2, 0.3, 0.8, 6)
    forward[17] = forward.max() + 9.0
    found = evidence(forward)
    assert found.largest_share > 0.8 and any(
        "few weights dominate" in text for text in found.cautions
    )
    assert any("caution" in line for line in found.lines())


def test_a_missed_mode_shows_in_the_reference_paths_only():
    # Half of the target's mass lies where the proposal has exp(-20): own weights look perfect.
    g = torch.Generator().manual_seed(7)
    forward = LOG_Z - math.log(2) + 0.01 * torch.randn(2000, generator=g)
    backward = forward[:1000].clone()
    backward[500:] += 20.0
    found = evidence(forward, backward)
    assert found.ess > 0.99 and found.ess_backward < 1e-6
    assert any("misses a part" in text for text in found.cautions)
    assert found.gap == pytest.approx(10.0, abs=0.01)


def test_correlated_references_widen_the_error():
    forward, backward = draw(500, 500, 0.3, 0.8, 8)
    all_independent, few = evidence(forward, backward), evidence(forward, backward, independent=20)
    assert few.eubo_error == pytest.approx(5 * all_independent.eubo_error)
    assert few.log_z_bridge_error > all_independent.log_z_bridge_error


@pytest.mark.parametrize("k", [0.3, 0.7, 1.2])
def test_tail_index_of_pareto_weights(k):
    u = torch.rand(20_000, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    assert pareto_k(-k * u.log()) == pytest.approx(k, abs=0.15)


def test_a_generator_makes_it_reproducible_and_nothing_global_moves():
    forward, backward = draw(300, 300, 0.5, 0.8, 10)
    before = torch.random.get_rng_state()
    assert evidence(forward, backward) == evidence(forward, backward)
    other = evidence(forward, generator=torch.Generator().manual_seed(3))
    assert other.log_z_error == pytest.approx(evidence(forward).log_z_error, rel=0.3)
    assert torch.equal(before, torch.random.get_rng_state())
