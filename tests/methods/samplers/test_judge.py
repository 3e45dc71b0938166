"""The verdict on exact samples with the weights of a known proposal, on defects put in, and its
page."""

import json
import math
import re

import numpy as np
import pytest
import torch

from orbitwise.energies import Count, Counted, Energy, GaussianMixture, LennardJones, ManyWell
from orbitwise.errors import InputError
from orbitwise.methods.samplers.judge import DrawnPaths, ReferenceSet, judge
from orbitwise.methods.samplers.page import write_report


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_step(energy: GaussianMixture, proposal: GaussianMixture, n: int, m: int, seed: int):
    """Paths of one step: the proposal's samples, weighted by exp(-U) over its density."""
    x, y = proposal.sample((n,), generator=gen(seed)), energy.sample((m,), generator=gen(seed + 1))
    drawn = DrawnPaths(x, energy(x), proposal(x) - energy(x), proposal(y) - energy(y), 0.01)
    return drawn, ReferenceSet(y, energy(y))


@pytest.fixture(scope="module")
def forty():
    energy = Counted(GaussianMixture.forty().double())
    inner = energy.inner
    weights = torch.ones(40, dtype=torch.float64)
    weights[:20] = 1.5
    proposal = GaussianMixture(inner.means, 1.4, weights)
    drawn, reference = one_step(inner, proposal, 4000, 3000, 0)
    with energy.stage("evaluation"):
        verdict = judge(energy, drawn, reference)
    return energy, drawn, reference, verdict


def test_a_mixture_is_judged_in_full(forty):
    energy, _, _, verdict = forty
    found = verdict.evidence
    assert abs(found.log_z_bridge) < 4 * found.log_z_bridge_error < 0.05
    assert found.elbo < 0 < found.eubo and found.log_z_true == 0.0
    # 1.5 : 1 between the halves shows without weights, and is repaired by them
    assert verdict.modes.found == 40 and verdict.modes.largest.excess
    assert verdict.modes.total_variation.value > 0.08
    assert verdict.modes_weighted.total_variation.value < 0.06
    assert (
        abs(verdict.virial.value - 2) < 4 * verdict.virial.error + 0.3
    )  # the proposal is a little too wide
    assert (
        verdict.energy_w1.value > 0 and verdict.distance_w1 is None and verdict.symmetric_w2 is None
    )
    assert energy.counts["evaluation"] == Count(2000, 2000)


def test_floors_are_reached_by_exact_samples():
    energy = ManyWell(16)
    x, y = energy.sample((3000,), generator=gen(3)), energy.sample((3000,), generator=gen(4))
    verdict = judge(
        energy,
        DrawnPaths(x, energy(x), torch.full((3000,), energy.log_z)),
        ReferenceSet(y, energy(y)),
    )
    assert verdict.evidence.ess == pytest.approx(1.0) and verdict.evidence.eubo is None
    assert verdict.energy_w1.value < 3 * verdict.energy_w1.floor
    assert abs(verdict.virial.value - 16) < 4 * verdict.virial.error
    assert not verdict.modes.largest.excess and not verdict.modes.correlation.excess
    assert verdict.log_z_parameter is None


def test_without_a_reference_and_json(forty):
    energy, drawn, _, verdict = forty
    alone = judge(energy, DrawnPaths(drawn.x, drawn.energy, drawn.log_weight))
    assert alone.energy_w1 is None and alone.evidence.gap is None and alone.modes is not None
    for found in (alone, verdict):
        text = json.dumps(found.to_dict(), allow_nan=False)
        assert json.loads(text)["modes"]["found"] == 40
    assert json.loads(text)["evidence"]["gap"] == pytest.approx(verdict.evidence.gap)
    assert any("log Z, learned 0.010" in line for line in verdict.lines())


def test_broken_samples_are_told_not_hidden(forty):
    energy, drawn, reference, _ = forty
    u, w = drawn.energy.clone(), drawn.log_weight.clone()
    u[:40], w[:40] = math.inf, -math.inf
    verdict = judge(energy, DrawnPaths(drawn.x, u, w), reference)
    assert verdict.not_finite == 40 and verdict.evidence.zero_weights == 40
    assert any("40 of 4000" in line for line in verdict.lines())
    assert verdict.to_dict()["evidence"]["elbo"] is None


def test_unfit_shapes_are_refused(forty):
    energy, drawn, reference, _ = forty
    with pytest.raises(InputError, match="as many energies"):
        judge(energy, DrawnPaths(drawn.x, drawn.energy[:5], drawn.log_weight))
    with pytest.raises(InputError, match="for an energy of"):
        judge(ManyWell(4), DrawnPaths(drawn.x, drawn.energy, drawn.log_weight))
    with pytest.raises(InputError, match="at least 4"):
        judge(energy, drawn, ReferenceSet(reference.x[:2], reference.energy[:2]))


def test_particles(shared_data):
    x = torch.from_numpy(np.load(shared_data("lj13_reference/lj13.npz"))["val"]).double()
    x = x[torch.randperm(len(x), generator=gen(5))]
    energy = LennardJones(13).double()
    y, good = x[2000:6000], x[:1000]
    turned = (
        good[:, torch.randperm(13, generator=gen(6))]
        @ torch.linalg.qr(torch.randn(3, 3, generator=gen(7)))[0].double()
    )
    reference = ReferenceSet(y, energy(y))

    def verdict(points):
        drawn = DrawnPaths(points, energy(points), energy(points) * 0)
        return judge(energy, drawn, reference, particle_samples=6)

    plain, same = verdict(good), verdict(turned)
    rough = verdict(good + 0.05 * torch.randn(good.shape, generator=gen(8)).double())
    assert same.virial.exact == 36 and abs(same.virial.value - 36) < 4 * same.virial.error
    # rotations and exchanges change nothing
    assert same.symmetric_w2.value == pytest.approx(plain.symmetric_w2.value, rel=0.05)
    assert same.symmetric_w2.floor == pytest.approx(same.symmetric_w2.value, rel=0.5)
    assert same.energy_w2.value < 3 * same.energy_w2.floor < rough.energy_w2.value
    assert rough.distance_w1.value > 2 * same.distance_w1.value


class Springs(Energy):
    """A stand-in for a molecule's energy."""

    event_shape, zero_com = (22, 3), True

    def forward(self, x):
        return 0.5 * (x - x.mean(-2, keepdim=True)).square().sum((-1, -2))


def test_torsions_and_their_page(shared_data, tmp_path):
    data = np.load(shared_data("alanine_dipeptide/aldp_300K.npz"))
    x = 10 * torch.from_numpy(data["positions_nm"])
    x = x[torch.randperm(len(x), generator=gen(9))][:2400]
    energy = Springs()
    torsions = [("φ", tuple(data["phi_index"])), ("ψ", tuple(data["psi_index"]))]
    drawn = DrawnPaths(x[:800], energy(x[:800]), torch.randn(800, generator=gen(10)))
    reference = ReferenceSet(x[800:], energy(x[800:]))
    verdict = judge(energy, drawn, reference, torsions=torsions)
    (found,) = verdict.torsions
    assert (
        found.names == ("φ", "ψ") and abs(found.kl.value - found.kl.floor) < 5 * found.kl.floor_std
    )
    assert found.w2.value < 2 * found.w2.floor and verdict.distance_w1.value < 0.05
    page = write_report(
        tmp_path, "A molecule", verdict, drawn, reference, counts={}, seconds={}, settings={}
    ).read_text()
    assert (tmp_path / "torsions.png").stat().st_size > 10_000
    assert "φ and ψ" in page and "pair distances" in page


def test_the_page_says_what_the_verdict_says(forty, tmp_path):
    energy, drawn, reference, verdict = forty
    counts = {
        "search": (1_200_000, 900_000),
        "training": Count(34_567, 0),
        "evaluation": energy.counts["evaluation"],
    }
    seconds = {
        "search1": 10.0,
        "search2": 12.0,
        "likelihood1": 30.0,
        "balance1": 33.0,
        "evaluation": 4.0,
    }
    settings = {"seed": 3, "sampler": {"steps": 100, "note": "<b>bold</b>"}}
    path = write_report(
        tmp_path / "run",
        "Forty & modes",
        verdict,
        drawn,
        reference,
        counts=counts,
        seconds=seconds,
        settings=settings,
        seed=3,
    )
    page = path.read_text()
    assert path == tmp_path / "run" / "report.html"
    words = re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]+>", " ", page, flags=re.S)
    assert "Forty &amp; modes" in page and "<b>bold" not in page
    assert "40 of 40 modes are found" in words and f"{verdict.evidence.gap:.3f}" in words
    # evaluations: energies and gradients apart, time of parts added up
    rows = re.findall(
        r'<tr><td class="left">(\w+)</td><td>([^<]*)</td>.*?<td>([\d,–]+)</td><td>([\d,–]+)</td>',
        page,
    )
    assert ("search", "22 s", "1,200,000", "900,000") in rows
    assert ("training", "1 min 03 s", "34,567", "–") in rows
    assert re.search(r"Total.*1,2\d\d,\d{3}", words, re.S)
    assert "sampler.steps" in words
    for name in ("modes.png", "energies.png", "weights.png"):
        assert (tmp_path / "run" / name).stat().st_size > 5000
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r'(src|href)="(?!data:)(?!https://arxiv)', page)  # loads nothing
