"""The counter of what a training step waits for (benchmarks/speed/waits.py) counts."""

import torch

from benchmarks.speed.waits import Waits, counted
from orbitwise.training.ema import averaged_model


def test_what_python_has_to_see_is_counted(monkeypatch):
    monkeypatch.setattr("benchmarks.speed.waits._place", lambda: "here")
    x, apart = torch.arange(4.0), torch.tensor(3.0)
    with Waits([apart]) as waits:
        (x + 1).sum().item()
        x[x > 1]
        x[torch.tensor([0, 1])]  # whole numbers: no wait
        x.nonzero()
        torch.equal(x, x)
        apart.item()
    names = {name: n for (name, _), n in waits.seen.items()}
    assert names == {"_local_scalar_dense": 1, "index": 1, "nonzero": 1, "equal": 1}


def test_a_step_waits_for_torchs_eigenvalues_and_the_norm_of_the_gradient():
    seen = counted()
    assert sorted((name, place.split(":")[0]) for name, place in seen) == [
        ("_linalg_eigh", "orbits/posterior/matrix_fisher.py"),
        ("_local_scalar_dense", "training/loop.py"),
    ]
    assert seen.total() == 2


def test_what_the_averaged_weights_count_with_stays_on_the_cpu():
    model = torch.nn.Linear(2, 2, device="meta")
    assert averaged_model(model, 0.99).n_averaged.device.type == "cpu"
