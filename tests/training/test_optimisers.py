"""Which parameters step how: Muon against its definition, and runs with it that are killed and
resumed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from orbitwise.errors import InputError
from orbitwise.training import TrainConfig, read_checkpoint, train
from orbitwise.training.optimisers import optimisers


@dataclass(frozen=True)
class Words:
    number: Tensor
    value: Tensor

    def __len__(self):
        return len(self.number)

    def __getitem__(self, index):
        return Words(self.number[index], self.value[index])

    def to(self, device):
        return Words(self.number.to(device), self.value.to(device))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.word = nn.Embedding(5, 6)
        self.wide, self.out = nn.Linear(6, 24), nn.Linear(24, 1)

    def forward(self, number):
        return self.out(self.wide(self.word(number)).tanh())


def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


def words(n=64) -> Words:
    number = torch.randint(5, (n,), generator=torch.Generator().manual_seed(0))
    return Words(number, (number[:, None] - 2.0) ** 2)


def loss(model, batch, generator):
    return (model(batch.number) - batch.value).square().sum(-1)


def go(folder, **changes):
    settings = {
        "steps": 40,
        "batch_size": 16,
        "warmup": 0,
        "learning_rate": 0.02,
        "accelerator": "cpu",
    }
    settings |= {"optimiser": "muon", "log_every": 10, "checkpoint_every": 10}
    return train(
        net(),
        loss,
        words(),
        TrainConfig(**settings | changes),
        folder,
        on_progress=lambda report: None,
    )


def test_linear_weights_go_to_muon_and_all_the_rest_to_adamw():
    model = net()
    muon, adamw = optimisers(model, TrainConfig(optimiser="muon", weight_decay=0.1))
    assert isinstance(muon, torch.optim.Muon) and isinstance(adamw, torch.optim.AdamW)
    assert set(muon.param_groups[0]["params"]) == {model.wide.weight, model.out.weight}
    decays = {p: group["weight_decay"] for group in adamw.param_groups for p in group["params"]}
    assert decays == {model.word.weight: 0.1, model.wide.bias: 0.0, model.out.bias: 0.0}
    (only,) = optimisers(model, TrainConfig(weight_decay=0.1))
    assert sum(len(group["params"]) for group in only.param_groups) == 5
    model.word.weight.requires_grad_(False)
    (only,) = optimisers(model, TrainConfig())
    assert model.word.weight not in {p for group in only.param_groups for p in group["params"]}
    (bare,) = optimisers(nn.Embedding(2, 3), TrainConfig(optimiser="muon"))
    assert isinstance(bare, torch.optim.AdamW)


def test_the_first_step_is_along_the_polar_factor_of_the_gradient(tmp_path):
    """Without decay: -0.2 √(larger side) lr U Vᵀ, from an SVD; Muon's iteration leaves singular
    values near one."""
    begin, rate = net(), 0.01
    done = go(tmp_path, steps=1, batch_size=64, learning_rate=rate, clip_norm=None, shards=1)
    loss(begin, words(), None).mean().backward()
    u, _, v = torch.linalg.svd(begin.wide.weight.grad, full_matrices=False)
    step = (done.model.wide.weight - begin.wide.weight).detach() / (-0.2 * 24**0.5 * rate)
    big = torch.linalg.svdvals(begin.wide.weight.grad) > 0.05 * begin.wide.weight.grad.norm()
    found = u.T[big] @ step @ v.T[:, big]
    along = found.diagonal()
    assert big.sum() >= 2 and ((along > 0.6) & (along < 1.3)).all()
    assert (found - along.diag()).abs().max() < 0.15  # torch iterates in bfloat16


def test_a_run_with_muon_learns_and_resumes_as_if_unbroken(tmp_path):
    whole = go(tmp_path / "whole", schedule="constant")
    go(tmp_path / "part", schedule="constant", steps=20)
    resumed = go(tmp_path / "part", schedule="constant")
    assert resumed.resumed_at == 20
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    state = read_checkpoint(tmp_path / "whole" / "checkpoint.safetensors").optimizer
    assert set(state["wide.weight"]) == {"momentum_buffer"} and "exp_avg" in state["word.weight"]
    assert loss(whole.model, words(), None).mean() < 0.2 * loss(net(), words(), None).mean()
    with pytest.raises(InputError, match="optimiser"):
        go(tmp_path / "part", schedule="constant", optimiser="adamw")
