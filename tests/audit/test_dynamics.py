"""The audit along a training: what it says of a model with a known split, when it looks, and how it
resumes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from orbitwise.audit import AuditBatch, Estimate
from orbitwise.audit.dynamics import AuditedStep, AuditEvery, course, log_steps, read_audits
from orbitwise.errors import InputError, OrbitwiseError
from orbitwise.groups.so3 import SO3
from orbitwise.training import Moment, TrainConfig, train


@dataclass(frozen=True)
class Pairs:
    x: Tensor
    y: Tensor

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return Pairs(self.x[index], self.y[index])

    def to(self, device):
        return Pairs(self.x.to(device), self.y.to(device))


def pairs(count=48, seed=0) -> Pairs:
    x = torch.randn(count, 4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Pairs(x, 2 * x + 0.1 * x.roll(1, 1))


def linear(seed=0) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(3, 3, bias=False, dtype=torch.float64)


def squared(model, batch, generator):
    noise = torch.randn(batch.x.shape, generator=generator, dtype=batch.x.dtype)
    return (model(batch.x + 0.1 * noise) - batch.y).square().mean((1, 2))


HELD_OUT = pairs(12, seed=1)


def batches(level=None) -> list[AuditBatch]:
    return [
        AuditBatch(HELD_OUT.x[i : i + 4], HELD_OUT.y[i : i + 4], level=level) for i in (0, 4, 8)
    ]


def config(**changes) -> TrainConfig:
    settings = {
        "steps": 60,
        "batch_size": 8,
        "warmup": 2,
        "learning_rate": 0.02,
        "accelerator": "cpu",
    }
    return TrainConfig(**{**settings, "checkpoint_every": 20, "schedule": "constant", **changes})


def quiet(report) -> None:
    pass


def go(folder, on_step=None, model=None, **changes):
    return train(
        model or linear(),
        squared,
        pairs(),
        config(**changes),
        folder,
        on_progress=quiet,
        on_step=on_step,
    )


def looking(folder, **options) -> AuditEvery:
    return AuditEvery(folder, SO3(), batches(), **{"steps": 10, "gradients": True, **options})


def split_of_a_matrix(w: Tensor) -> tuple[float, float]:
    """Twirled and equivariance error of ``x -> x wᵀ`` on the held-out items, in closed form.

    The mean of R⁻¹wR over rotations is c·1, c = tr w/3, and E|R⁻¹(w - c)R x|² = |w - c|² |x|²/3.
    """
    c = w.trace() / 3
    rest = (w - c * torch.eye(3, dtype=w.dtype)).square().sum() / 3
    return float((c * HELD_OUT.x - HELD_OUT.y).square().mean()), float(
        rest * HELD_OUT.x.square().mean()
    )


def test_audits_agree_with_the_closed_form_along_the_way(tmp_path):
    seen: dict[int, Tensor] = {}
    audit = looking(tmp_path)

    def look(moment):
        seen[moment.step] = moment.model.weight.detach().clone()
        audit(moment)

    go(tmp_path, look)
    found = read_audits(tmp_path)
    assert [a.step for a in found] == [0, 10, 20, 30, 40, 50, 60] and sorted(seen) == list(
        range(61)
    )
    for a in found:
        twirled, error = split_of_a_matrix(seen[a.step])
        assert a.twirled.value == pytest.approx(twirled, rel=1e-9)
        assert a.equivariance.value == pytest.approx(error, rel=1e-9)
        assert a.percent.value == pytest.approx(100 * error / (twirled + error), rel=1e-9)
        assert a.rows[0].items == 12 and a.rows[0].gradients.batches == 3
    assert found[-1].total.value < found[0].total.value
    assert all(a.seconds < b.seconds for a, b in pairwise(found))


def test_looking_on_changes_nothing(tmp_path):
    plain = go(tmp_path / "plain")
    state = torch.get_rng_state()
    watched = go(tmp_path / "watched", looking(tmp_path / "watched", weights="averaged"))
    assert torch.equal(plain.model.weight, watched.model.weight)
    assert torch.equal(plain.ema.weight, watched.ema.weight)
    assert torch.equal(state, torch.get_rng_state()) and watched.model.training


def without_times(folder) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


@pytest.mark.parametrize("killed_at", [20, 33])
def test_a_resumed_run_leaves_the_lines_of_an_unbroken_one(tmp_path, killed_at):
    class Kill(Exception):
        pass

    def until_killed(audit):
        def look(moment):
            audit(moment)
            if moment.step == killed_at:
                raise Kill

        return look

    go(tmp_path / "whole", looking(tmp_path / "whole"))
    with pytest.raises(Kill):
        go(tmp_path / "broken", until_killed(looking(tmp_path / "broken")))
    with open(tmp_path / "broken" / "audit.jsonl", "a") as file:
        file.write('{"step": 40, "rows": [')  # cut short
    # the checkpoint of step 20 is written after its audit, so a kill there goes back to the start
    resumed = go(tmp_path / "broken", looking(tmp_path / "broken"))
    assert resumed.resumed_at == (0 if killed_at == 20 else 20)
    assert without_times(tmp_path / "broken") == without_times(tmp_path / "whole")
    before = (tmp_path / "broken" / "audit.jsonl").read_bytes()
    go(tmp_path / "broken", looking(tmp_path / "broken"))
    assert (tmp_path / "broken" / "audit.jsonl").read_bytes() == before
    seconds = [a.seconds for a in read_audits(tmp_path / "broken")]
    assert seconds == sorted(seconds)


def test_same_elements_or_new_ones(tmp_path):
    """Of a model that is not quadratic in the rotation the audit depends on the elements that were
    drawn."""

    class Cubic(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.eye(3, dtype=torch.float64))

        def forward(self, x):
            return (x @ self.w).pow(3)

    model = Cubic()
    for same in (True, False):
        audit = looking(tmp_path / str(same), same_elements=same, gradients=False)
        first, second = (audit.audit(Moment(k, 0.0, model, model)) for k in (0, 10))
        assert (first.total == second.total) is same


def test_what_is_audited_and_measured_beside(tmp_path):
    model = linear()
    audit = looking(
        tmp_path,
        audited=lambda m: nn.Sequential(m, nn.Identity()),
        numbers={"trace": lambda m: m.weight.trace(), "nothing": lambda m: math.nan},
        weights="averaged",
    )
    audit(Moment(0, 1.5, linear(5), model))
    found = read_audits(tmp_path / "audit.jsonl")[0]
    assert found.numbers["trace"] == pytest.approx(float(model.weight.detach().trace()))
    assert math.isnan(found.numbers["nothing"]) and found.seconds == 1.5
    assert "NaN" not in (tmp_path / "audit.jsonl").read_text()
    assert found.equivariance.value == pytest.approx(split_of_a_matrix(model.weight.detach())[1])


def test_levels_are_summed_by_their_loss(tmp_path):
    both = [*batches("a"), *[AuditBatch(b.x, 3 * b.target, level="b") for b in batches()]]
    audit = AuditEvery(tmp_path, SO3(), both, steps=[0]).audit(Moment(0, 0.0, linear(), linear()))
    assert [row.level for row in audit.rows] == ["a", "b"]
    a, b = audit.rows
    share = (a.equivariance.value + b.equivariance.value) / (a.total.value + b.total.value)
    assert audit.percent.value == pytest.approx(100 * share)
    assert audit.total.value == pytest.approx((a.total.value + b.total.value) / 2)
    low, high = sorted((a.percent.error, b.percent.error))
    assert low <= audit.percent.error <= high


def test_log_steps():
    assert log_steps(10_000, 1) == [0, 10, 100, 1000, 10_000]
    steps = log_steps(20_000, 4)
    assert {10, 100, 1000, 10_000, 20_000, 18, 32, 56} <= set(steps) and steps == sorted(set(steps))
    assert log_steps(30) == [0, 10, 18, 30] and log_steps(4) == [0, 4] and log_steps(0) == [0]
    with pytest.raises(InputError, match="per_decade"):
        log_steps(10, 0)


def audited(step: int, percent: float) -> AuditedStep:
    from orbitwise.audit import Audit

    e = Estimate(percent, 0.1)
    row = Audit(
        "prediction",
        None,
        9,
        24,
        Estimate(100.0, 1.0),
        Estimate(100 - percent, 1),
        e,
        e,
        e,
        0.0,
        0.1,
        False,
    )
    return AuditedStep(step, float(step), 0.0, (row,))


def test_course_of_the_percentage():
    found = course([audited(k, p) for k, p in enumerate([30.0, 5, 1.5, 0.5, 4, 3])])
    assert (found.first_below, found.largest_after, found.smallest, found.smallest_step) == (
        2,
        4,
        0.5,
        3,
    )
    assert found.final.value == pytest.approx(3) and found.final_step == 5
    never = course([audited(0, 9.0)])
    assert never.first_below is None and never.largest_after is None
    with pytest.raises(InputError, match="train the run first"):
        course([])


def test_impossible_settings_and_places(tmp_path):
    for steps in (0, -5, [], [-1]):
        with pytest.raises(InputError, match="positive interval"):
            looking(tmp_path, steps=steps)
    with pytest.raises(InputError, match="'averaged'"):
        looking(tmp_path, weights="both")
    with pytest.raises(InputError, match="train the run first"):
        read_audits(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OrbitwiseError, match="cannot write the audits"):
        looking(tmp_path / "file" / "run")(Moment(0, 0.0, linear(), linear()))


def test_sgd_trains_resumes_and_leaves_old_settings_readable(tmp_path):
    whole = go(tmp_path / "whole", optimiser="sgd", learning_rate=0.05)
    go(tmp_path / "part", optimiser="sgd", learning_rate=0.05, steps=20)
    resumed = go(tmp_path / "part", optimiser="sgd", learning_rate=0.05)
    assert resumed.resumed_at == 20 and torch.equal(whole.model.weight, resumed.model.weight)
    assert not torch.equal(
        whole.model.weight, go(tmp_path / "adamw", learning_rate=0.05).model.weight
    )
    # runs begun before there was a choice have no such key
    assert (
        "optimiser" not in TrainConfig().model_dump()
        and TrainConfig(optimiser="sgd").model_dump()["optimiser"]
    )
    with pytest.raises(InputError, match="optimiser"):
        go(tmp_path / "part", learning_rate=0.05)


def test_sgd_step_is_momentum_by_hand(tmp_path):
    """Two steps on one fixed batch against the textbook recursion v = 0.9 v + g, w -= lr v."""
    data, model = pairs(8), linear()
    w, v = model.weight.detach().clone(), 0.0

    def plain(model, batch, generator):
        return (model(batch.x) - batch.y).square().mean((1, 2))

    for _ in range(2):
        w = w.requires_grad_()
        (g,) = torch.autograd.grad((data.x @ w.T - data.y).square().mean(), w)
        v = 0.9 * v + g
        w = (w - 0.01 * v).detach()
    settings = config(steps=2, optimiser="sgd", learning_rate=0.01, warmup=0, clip_norm=None)
    train(model, plain, data, settings, tmp_path, on_progress=quiet)
    assert torch.allclose(model.weight, w, rtol=1e-10)
