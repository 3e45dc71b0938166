"""The tables of finite groups of matrices on other devices than the processor."""

import contextlib
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from orbitwise.groups import base
from orbitwise.groups.finite import Finite


@pytest.fixture(autouse=True)
def meta_knows_no_autocast(monkeypatch):
    monkeypatch.setattr(base, "unrounded", lambda x: contextlib.nullcontext())


class Copies(TorchDispatchMode):
    """How many tensors went from one device to another."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.count += name in ("_to_copy", "copy_") and args[0].device.type == "cpu"
        return out


def turns(order):
    """The rotations of a regular polygon."""
    a = torch.arange(order, dtype=torch.float64) * 2 * math.pi / order
    return Finite(torch.stack([a.cos(), -a.sin(), a.sin(), a.cos()], -1).view(-1, 2, 2))


def test_tables_go_to_a_device_once():
    group, g = turns(5), torch.zeros(4, dtype=torch.long, device="meta")
    x = torch.zeros(4, 3, 2, dtype=torch.float64, device="meta")
    with Copies() as copies:
        for _ in range(3):
            assert group.compose(g, g).device.type == group.inverse(g).device.type == "meta"
            assert group.act(g, x).shape == x.shape
    assert copies.count == 3  # matrices, products, inverses


def test_copies_made_under_inference_serve_training():
    group, x = turns(3), torch.randn(2, 4, 2, dtype=torch.float64, device="meta")
    g = torch.zeros(2, dtype=torch.long, device="meta")
    with torch.inference_mode():
        group.act(g, x)
    group.act(g, x.requires_grad_()).sum().backward()
    assert x.grad is not None
    assert not any(table.is_inference() for table in group._tables(x.device))


def test_the_processors_tables_are_those_of_the_group():
    group, k = turns(6), torch.arange(6)
    assert torch.equal(group.compose(k[:, None], k), (k[:, None] + k) % 6)
    assert torch.equal(group.inverse(k), -k % 6)
