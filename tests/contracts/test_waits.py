"""The counter of what a training step waits for (benchmarks/speed/waits.py) counts."""

import torch

from benchmarks.speed.waits import Waits, counted


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


def test_without_the_check_the_posterior_only_waits_for_torchs_eigenvalues():
    """Of the one step of the loop, the part within the posterior."""
    shipped, unchecked = counted(), counted(check=False)
    assert shipped.total() == unchecked.total() + 1
    inside = {key: n for key, n in unchecked.items() if key[1].startswith("orbits/")}
    assert [name for name, _ in inside] == ["_linalg_eigh"]
    assert sum(inside.values()) == 1
