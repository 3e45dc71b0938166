"""Permutations: their convention, labels, padding, uniformity and enumeration."""

import itertools
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.permutation import Permutation


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_convention():
    """Row i of g·x is row g[i] of x; composing reads right to left all the same."""
    group, x = Permutation(3), torch.tensor([[0.0], [10.0], [20.0]])
    g, h = torch.tensor([1, 2, 0]), torch.tensor([0, 2, 1])
    assert group.act(g, x).flatten().tolist() == [10, 20, 0]
    assert group.compose(g, h).tolist() == [2, 1, 0]
    assert torch.equal(group.act(group.compose(g, h), x), group.act(g, group.act(h, x)))
    assert group.inverse(g).tolist() == [2, 0, 1]


@pytest.mark.parametrize("labels", [None, [0, 0, 1, 1, 1], [3, 3, 3, 3, 7], [-1, 2, 2, -1, 2]])
def test_enumeration_against_itertools(labels):
    group = Permutation(5, labels)
    table, log_weights = group.enumerate(dtype=torch.float64)
    same = labels or [0] * 5
    by_hand = {
        p
        for p in itertools.permutations(range(5))
        if all(same[i] == same[j] and (same[i] >= 0 or i == j) for i, j in enumerate(p))
    }
    assert {tuple(row) for row in table.tolist()} == by_hand and len(table) == len(by_hand)
    assert table[0].tolist() == list(range(5))
    assert abs(log_weights.logsumexp(0)) < 1e-14
    assert abs(group.log_order - math.log(len(by_hand))) < 1e-12


def test_sampling_is_uniform_within_labels():
    """Chi-squared over all 12 elements, and per item labels."""
    group = Permutation(5, [4, 4, 9, 9, 9])
    draws = group.sample((24_000,), generator=rng(1))
    _, count = draws.unique(dim=0, return_counts=True)
    assert len(count) == 12
    chi2 = ((count - 2000.0) ** 2 / 2000).sum()
    assert chi2 < 11 + 5 * math.sqrt(22)


def test_one_set_of_labels_per_item():
    labels = torch.tensor([[0, 0, 0, 0], [0, 0, -1, -1], [1, 2, 1, 2]])
    group = Permutation(4, labels)
    draws = group.sample((3000, 3), generator=rng(2))
    for k, order in enumerate([24, 2, 4]):
        unique, count = draws[:, k].unique(dim=0, return_counts=True)
        assert len(unique) == order and count.min() > 3000 / order * 0.6
        kept = torch.where(labels[k] < 0, torch.arange(4) + 10, labels[k])
        assert (kept[draws[:, k]] == kept).all()
    assert group.log_order.exp().round().tolist() == [24, 2, 4]
    assert not group.finite
    with pytest.raises(NoClosedFormError, match="gibbs"):
        group.enumerate()
    with pytest.raises(InputError, match="cannot give permutations"):
        group.sample((3000,))


def test_padding():
    x = torch.arange(24.0).reshape(2, 4, 3)
    mask = torch.tensor([[True, True, True, False], [True, False, True, True]])
    group = Permutation(4)
    with pytest.raises(InputError, match="restricted"):
        group.act(torch.tensor([3, 0, 1, 2]), x, mask=mask)
    g = group.restricted(mask).sample((500, 2), generator=rng(3))
    y = group.act(g, x, mask=mask)
    assert (y[:, 0, 3] == x[0, 3]).all() and (y[:, 1, 1] == x[1, 1]).all()
    assert len(g[:, 0].unique(dim=0)) == len(g[:, 1].unique(dim=0)) == 6


def test_points_beyond_the_group_stay():
    x = torch.rand(7, 3, generator=rng(4))
    y = Permutation(4).act(torch.tensor([3, 2, 1, 0]), x)
    assert torch.equal(y, x[[3, 2, 1, 0, 4, 5, 6]])


def test_too_large_says_what_to_use():
    group = Permutation(8)
    assert not group.finite and Permutation(7).finite
    with pytest.raises(NoClosedFormError, match=r"method='gibbs', 'mode' or 'snis'"):
        group.enumerate()
    assert len(Permutation(8, max_order=50_000).enumerate()[0]) == 40_320
    assert Permutation(200).sample((2,), generator=rng(5)).shape == (2, 200)


@pytest.mark.parametrize("labels", [[0, 1], [0.5, 0.5, 0.5], 3])
def test_labels_that_do_not_fit(labels):
    with pytest.raises(InputError, match="labels must be whole numbers"):
        Permutation(3, labels)


def test_wrong_sizes():
    with pytest.raises(InputError, match="n >= 1"):
        Permutation(0)
    with pytest.raises(InputError, match="permutes 5 points, the input has 4"):
        Permutation(5).act(torch.arange(5), torch.zeros(4, 3))


def test_values_of_labels_are_looked_at_once():
    """``finite`` and later tables start no operation that an accelerator would have to wait for."""
    group = Permutation(4, [1, 1, 2, 2])
    first, _ = group.enumerate()
    with Operations() as ran:
        assert group.finite
        again, _ = group.enumerate()
    assert torch.equal(first, again) and "_local_scalar_dense" not in ran.names
    assert ran.names <= {"clone", "full"}


def test_tables_are_the_callers_own():
    group = Permutation(3)
    with torch.inference_mode():
        group.enumerate()
    tables, _ = group.enumerate()
    assert not tables.is_inference()
    tables.zero_()
    assert len(group.enumerate()[0].unique(dim=0)) == 6
    assert group.enumerate(device="meta")[0].device.type == "meta"


class Operations(TorchDispatchMode):
    """The names of the operations that ran."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))
