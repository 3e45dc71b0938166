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


def test_a_step_waits_for_torchs_eigenvalues_and_for_the_norm():
    """Off the CPU; the look at values that ``check=True`` asks for would be one more."""
    shipped, checked = counted(), counted(check=True)
    assert checked.total() == shipped.total() + 1
    found = sorted((name, place.split(":")[0]) for name, place in shipped.elements())
    assert found == [
        ("_linalg_eigh", "orbits/posterior/matrix_fisher.py"),
        ("_local_scalar_dense", "training/loop.py"),
    ]
