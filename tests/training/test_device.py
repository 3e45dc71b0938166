"""The accelerator of a training: never one without float64."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from orbitwise.errors import InputError
from orbitwise.training.config import TrainConfig
from orbitwise.training.device import device_for, training_device
from orbitwise.training.loop import train


class Rows:
    """Eight rows of data."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return Rows(self.x[index])

    def to(self, device):
        return Rows(self.x.to(device))


@pytest.fixture
def on_a_mac(monkeypatch):
    """mps is there and CUDA is not."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def trained(tmp_path, accelerator):
    model, seen = nn.Linear(3, 1), []

    def objective(model, batch, generator):
        seen.append((batch.x.device.type, generator.device.type))
        return model(batch.x).square().sum(-1)

    config = TrainConfig(steps=1, batch_size=4, accelerator=accelerator)
    train(model, objective, Rows(torch.ones(8, 3)), config, tmp_path, None, lambda _: None)
    return seen


@pytest.mark.usefixtures("on_a_mac")
def test_auto_never_chooses_mps(tmp_path):
    assert device_for() == training_device("auto") == "cpu"
    assert trained(tmp_path, "auto") == [("cpu", "cpu")]


@pytest.mark.usefixtures("on_a_mac")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_mps_is_refused_with_the_reason(tmp_path, precision):
    config = TrainConfig(steps=1, accelerator="mps", precision=precision)
    data = Rows(torch.ones(8, 3))
    with pytest.raises(InputError, match=r"mps has no float64, .* accelerator: cpu"):
        train(nn.Linear(3, 1), lambda *_: torch.zeros(4), data, config, tmp_path)
    with pytest.raises(InputError, match="float64"):
        device_for("mps")


def test_fabric_is_told_what_was_found(tmp_path, monkeypatch):
    """CUDA where there is some, also where it was asked for and there is none (Fabric says so)."""
    import lightning_fabric

    told = []

    def fabric(**options):
        told.append(options["accelerator"])
        raise KeyError("enough seen")

    monkeypatch.setattr(lightning_fabric, "Fabric", fabric)
    for there, asked in ((True, "auto"), (True, "cpu"), (False, "auto"), (False, "cuda")):
        monkeypatch.setattr(torch, "cuda", SimpleNamespace(is_available=lambda there=there: there))
        with pytest.raises(KeyError, match="enough seen"):
            trained(tmp_path, asked)
    assert told == ["cuda", "cpu", "cpu", "cuda"]
