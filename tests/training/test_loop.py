"""The training loop: what it minimises, how it resumes, and how it fails."""

from __future__ import annotations

import io
import json
import math
import os
import signal
from dataclasses import dataclass

import pytest
import torch
from pydantic import ValidationError
from rich.console import Console
from torch import Tensor, nn

from orbitwise.errors import InputError, OrbitwiseError
from orbitwise.training import (
    DivergedError,
    Progress,
    ProgressBar,
    TrainConfig,
    estimate_step_seconds,
    learning_rate_at,
    read_checkpoint,
    train,
)
from orbitwise.training.ema import averaged_model
from orbitwise.training.order import EpochOrder, mix


@dataclass(frozen=True)
class Rows:
    """The smallest data set the loop takes."""

    x: Tensor
    y: Tensor

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return Rows(self.x[index], self.y[index])

    def to(self, device):
        return Rows(self.x.to(device), self.y.to(device))


def rows(n=64, seed=0) -> Rows:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=g)
    return Rows(x, x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3)


def linear() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(3, 1)


def objective(model, batch, generator):
    noise = torch.randn(batch.x.shape, generator=generator, device=generator.device)
    return (model(batch.x + 0.1 * noise) - batch.y).square().sum(-1)


def config(**changes) -> TrainConfig:
    settings = {
        "steps": 40,
        "batch_size": 16,
        "warmup": 4,
        "learning_rate": 0.05,
        "accelerator": "cpu",
    }
    return TrainConfig(**{**settings, "log_every": 10, "checkpoint_every": 10, **changes})


def quiet(report: Progress) -> None:
    pass


def go(tmp_path, model=None, loss=objective, data=None, run=None, show=quiet, **changes):
    return train(
        model or linear(),
        loss,
        rows() if data is None else data,
        config(**changes),
        tmp_path,
        run,
        show,
    )


def same(a, b) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_finds_the_least_squares_solution(tmp_path):
    """With noise of variance s² added to x, the minimiser is ridge regression with n·s² (closed
    form)."""
    data = rows(256)
    result = go(tmp_path, data=data, steps=600, batch_size=64, ema_decay=0.98)
    x = torch.cat([data.x, torch.ones(256, 1)], 1).double()
    gram = x.T @ x + 256 * 0.01 * torch.diag(torch.tensor([1.0, 1, 1, 0], dtype=torch.float64))
    want = torch.linalg.solve(gram, x.T @ data.y.double()).squeeze()
    have = torch.cat([result.ema.weight.squeeze(), result.ema.bias]).double()
    assert (have - want).abs().max() < 0.01
    assert result.steps == 600 and result.resumed_at == 0 and result.skipped == 0


def test_the_same_run_twice_is_the_same_and_seeds_differ(tmp_path):
    a, b, c = (go(tmp_path / str(i), seed=s) for i, s in enumerate((0, 0, 1)))
    assert same(a.model, b.model) and same(a.ema, b.ema) and not same(a.model, c.model)


def test_changes_no_global_state(tmp_path):
    before = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
    go(tmp_path)
    after = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_repeating_a_finished_run_returns_it(tmp_path):
    first = go(tmp_path)
    again = go(tmp_path)
    assert again.resumed_at == 40 and same(first.model, again.model) and same(first.ema, again.ema)


class Stop(Exception):
    pass


def break_at(step):
    """An objective that breaks off in the middle of the given call."""
    calls = []

    def broken(model, batch, generator):
        calls.append(1)
        if len(calls) == step:
            raise Stop
        return objective(model, batch, generator)

    return broken


def test_resumed_run_ends_with_the_same_weights(tmp_path):
    whole = go(tmp_path / "whole")
    for step in (
        3,
        14,
        18,
    ):  # before the first checkpoint; after one; after the resumed run's next one
        with pytest.raises(Stop):
            go(tmp_path / "broken", loss=break_at(step))
    end = go(tmp_path / "broken")
    assert end.resumed_at == 20  # the third run began at step 10 and got to 27
    assert same(whole.model, end.model) and same(whole.ema, end.ema)
    lines = [
        json.loads(s) for s in (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in lines] == [10, 20, 30, 40]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert list((tmp_path / "broken" / "tensorboard").iterdir())


def test_another_configuration_is_refused_by_name(tmp_path):
    go(tmp_path, run={"network": {"hidden": 16}, "data": "a.sdf"})
    with pytest.raises(InputError, match=r"run\.network\.hidden: 16 before, 32 now"):
        go(tmp_path, run={"network": {"hidden": 32}, "data": "a.sdf"})
    with pytest.raises(InputError, match=r"train\.learning_rate"):
        go(tmp_path, run={"network": {"hidden": 16}, "data": "a.sdf"}, learning_rate=0.01)
    with pytest.raises(InputError, match=r"run\.data: 'a\.sdf' before, 'not set' now"):
        go(tmp_path, run={"network": {"hidden": 16}})
    # what leaves the result alone may change
    go(tmp_path, run={"network": {"hidden": 16}, "data": "a.sdf"}, log_every=7, checkpoint_every=3)


def test_another_model_is_refused(tmp_path):
    go(tmp_path)
    with pytest.raises(InputError, match="such as bias"):
        go(tmp_path, model=nn.Linear(3, 1, bias=False))


def test_constant_schedule_can_be_made_longer(tmp_path):
    go(tmp_path / "a", schedule="constant", steps=20)
    longer = go(tmp_path / "a", schedule="constant", steps=40)
    assert longer.resumed_at == 20 and same(
        longer.model, go(tmp_path / "b", schedule="constant").model
    )
    go(tmp_path / "c", steps=20)
    with pytest.raises(InputError, match=r"train\.steps"):
        go(tmp_path / "c", steps=40)


def test_shards_are_gradient_accumulation(tmp_path):
    """One step: the stored first moment is (1 - β1) times the clipped gradient of the whole
    batch."""

    def plain(model, batch, generator):
        return (model(batch.x) - batch.y).square().sum(-1)

    net = linear()
    data = rows(32)
    (model_loss := plain(net, data, None).mean()).backward()
    moments = {}
    for shards in (1, 4):
        folder = tmp_path / str(shards)
        go(folder, loss=plain, data=data, steps=1, batch_size=32, shards=shards, clip_norm=None)
        state = read_checkpoint(folder / "checkpoint.safetensors").optimizer
        moments[shards] = state["weight"]["exp_avg"]
        torch.testing.assert_close(moments[shards], 0.1 * net.weight.grad, rtol=1e-5, atol=1e-7)
        row = json.loads((folder / "metrics.jsonl").read_text())
        assert row["loss"] == pytest.approx(model_loss.item(), rel=1e-5)
        norm = math.hypot(net.weight.grad.norm(), net.bias.grad.norm())
        assert row["grad_norm"] == pytest.approx(norm, rel=1e-5)


def test_gradient_is_clipped(tmp_path):
    go(tmp_path, steps=1, clip_norm=0.01)
    state = read_checkpoint(tmp_path / "checkpoint.safetensors").optimizer
    norm = math.hypot(*(s["exp_avg"].norm().item() / 0.1 for s in state.values()))
    assert norm == pytest.approx(0.01, rel=1e-3)


def test_batches_must_divide(tmp_path):
    with pytest.raises(InputError, match="multiple of shards"):
        go(tmp_path, shards=3)


def test_no_data(tmp_path):
    with pytest.raises(InputError, match="no training data"):
        go(tmp_path, data=rows(0))


def test_steps_without_a_finite_gradient_are_skipped_and_counted(tmp_path):
    calls = []

    def sometimes(model, batch, generator):
        calls.append(1)
        return objective(model, batch, generator) * (math.nan if len(calls) % 4 == 0 else 1.0)

    result = go(tmp_path, loss=sometimes)
    assert result.skipped == 10 and result.steps == 40
    assert all(p.isfinite().all() for p in (*result.model.parameters(), *result.ema.parameters()))
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["skipped"] == 10 and math.isfinite(last["loss"])
    assert read_checkpoint(tmp_path / "checkpoint.safetensors").skipped == 10


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OrbitwiseError, match=r"cannot write the log .*file"):
        go(tmp_path / "file" / "run")


def test_divergence_is_an_error_and_the_checkpoint_stays(tmp_path):
    calls = []

    def breaks(model, batch, generator):
        calls.append(1)
        return objective(model, batch, generator) * (math.inf if len(calls) > 12 else 1.0)

    with pytest.raises(DivergedError, match="5 steps in a row"):
        go(tmp_path, loss=breaks, max_nonfinite=5)
    saved = read_checkpoint(tmp_path / "checkpoint.safetensors")
    assert saved.step == 10 and all(v.isfinite().all() for v in saved.model.values())


def test_ctrl_c_finishes_the_step_and_saves(tmp_path):
    calls = []

    def interrupted(model, batch, generator):
        calls.append(1)
        if len(calls) == 17:
            os.kill(os.getpid(), signal.SIGINT)
        return objective(model, batch, generator)

    previous = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, loss=interrupted)
    assert signal.getsignal(signal.SIGINT) is previous
    assert read_checkpoint(tmp_path / "checkpoint.safetensors").step == 17
    assert same(go(tmp_path).model, go(tmp_path / "whole").model)


def test_every_epoch_uses_every_sample_once():
    order = EpochOrder(10, 4, seed=3)
    drawn = torch.cat([order.indices(step) for step in range(5)]).view(2, 10)
    assert torch.equal(drawn.sort(-1).values, torch.arange(10).expand(2, 10))
    assert not torch.equal(drawn[0], drawn[1])
    later = EpochOrder(10, 4, seed=3)  # no history needed
    assert torch.equal(later.indices(3), order.indices(3))
    small = EpochOrder(3, 8, seed=0).indices(5)
    assert small.shape == (8,) and small.bincount().min() >= 2


def test_seeds_are_mixed_well():
    seeds = {mix(s, k, i) for s in range(10) for k in range(2) for i in range(100)}
    assert len(seeds) == 2000 and max(seeds) < 2**63
    bits = torch.tensor([[s >> b & 1 for b in range(63)] for s in seeds]).double()
    assert (bits.mean(0) - 0.5).abs().max() < 5 * 0.5 / math.sqrt(2000)


def test_averaged_weights_follow_the_formula():
    net = linear()
    ema, want = averaged_model(net, 0.7), net.weight.detach().clone()
    for n in range(20):
        with torch.no_grad():
            net.weight.copy_(torch.full_like(net.weight, float(n)))
        ema.update_parameters(net)
        keep = min(0.7, (1 + n) / (10 + n)) if n else 0.0  # the first update is a copy
        want = keep * want + (1 - keep) * n
    torch.testing.assert_close(ema.module.weight, want.expand_as(ema.module.weight))


def test_learning_rate():
    c = config(steps=104, warmup=4, learning_rate=1.0)
    rates = [learning_rate_at(c, s) for s in range(104)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8]) and max(rates) == pytest.approx(1.0)
    assert rates[54] == pytest.approx(0.505) and rates[-1] < 0.011
    flat = config(schedule="constant", warmup=0, learning_rate=1.0)
    assert {learning_rate_at(flat, s) for s in range(40)} == {1.0}


def test_configuration_refuses_what_it_does_not_know():
    for wrong in ({"step": 3}, {"learning_rate": -1.0}, {"schedule": "linear"}, {"ema_decay": 1.0}):
        with pytest.raises(ValidationError):
            TrainConfig(**wrong)


def test_estimate_leaves_the_model_alone():
    net = linear()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    seconds = estimate_step_seconds(net, objective, rows(), config(), steps=3)
    assert 0 < seconds < 10
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_progress_reports(tmp_path):
    reports = []
    go(tmp_path, show=reports.append)
    assert (reports[0].step, reports[0].loss) == (0, None)
    assert (reports[-1].step, reports[-1].steps, reports[-1].seconds_left) == (40, 40, 0)
    assert reports[-1].loss > 0 and reports[-1].rate > 0


@pytest.mark.parametrize("terminal", [True, False])
def test_bar_on_a_terminal_lines_in_a_file(terminal):
    out = io.StringIO()
    with ProgressBar("learning", Console(file=out, force_terminal=terminal, width=100)) as show:
        for step in range(101):
            show(Progress(step, 100, 0.125, 20.0, (100 - step) / 20))
    text = out.getvalue()
    assert "loss 0.125" in text and "20 steps/s" in text and "0:00 left" in text
    assert ("\x1b[" in text) == terminal
    if not terminal:
        assert len(text.splitlines()) == 11 and text.splitlines()[5].startswith(
            "learning 50/100  loss"
        )


def test_mixed_precision_rounds_in_the_network_and_not_before(tmp_path):
    """Inputs and batches reach the network as they are, its products are of bfloat16, what it
    returns is not."""
    seen = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 1)

        def forward(self, x, batch):
            hidden = self.first(x)
            seen.append((x.dtype, batch.x.dtype, hidden.dtype))
            return self.last(hidden.tanh())

    def loss(model, batch, generator):  # Rows is a frozen dataclass, as batches are
        out = model(batch.x, batch)
        seen.append(out.dtype)
        return (out - batch.y).square().sum(-1)

    torch.manual_seed(0)
    done = go(tmp_path, Net(), loss, precision="bf16-mixed")
    assert set(seen) == {(torch.float32, torch.float32, torch.bfloat16), torch.float32}
    assert done.model.first.weight.dtype == torch.float32 and done.loss < 1.0
