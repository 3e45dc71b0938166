"""How often an accelerator would have to wait for what is checked and packed, counted on a CPU by
the operations that hand a number to Python."""

import traceback

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import orbitwise as ow

WAITS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select")
HERE = ("posterior/call/", "posterior/checked.py", "posterior/entrance.py", "posterior/noise.py")


class Waits(TorchDispatchMode):
    """Counts them, where a file of ``HERE`` asked."""

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.__name__.split(".")[0] in WAITS:
            nearest = [f for f in traceback.extract_stack() if "orbitwise" in f.filename][-1]
            if any(part in nearest.filename for part in HERE):
                self.seen.append(f"{nearest.filename}:{nearest.lineno}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("given", "most"),
    [
        ({"check": False}, 0),
        ({}, 2),  # times and values of the posterior; sigma of the velocity
        ({"check": False, "sizes": (2, 4), "batch": [0, 0, 0, 1, 1, 1, 1]}, 0),
        ({"sizes": (2, 4), "batch": [0, 0, 0, 1, 1, 1, 1]}, 2),
        ({"batch": [0, 0, 0, 1, 1, 1, 1]}, 6),
    ],
)
def test_waits(given, most):
    gen = torch.Generator().manual_seed(0)
    shape = (7, 3) if "batch" in given else (2, 4, 3)
    x1, xt = torch.randn(2, *shape, generator=gen)
    if "batch" in given:
        given = {**given, "batch": torch.tensor(given["batch"])}
    else:
        given = {**given, "mask": torch.ones(2, 4, dtype=torch.bool)}
    t = torch.tensor([0.2, 0.7])
    process = ow.GaussianProcess.flow(zero_com=True)
    with Waits() as waits:
        post = ow.orbit_posterior(ow.SO3(), process, x1, xt, t, **given)
        assert post.velocity.shape == x1.shape
        _ = post.score, post.log_evidence
    assert len(waits.seen) <= most, waits.seen
    assert most == 0 or waits.seen  # the count can be other than 0
