"""Initial weights from a seed: the same for the same seed, and nothing else is touched."""

import pytest
import torch
from torch import nn

from orbitwise.errors import InputError, MissingExtraError
from orbitwise.networks.seeded import seeded


def test_weights_come_from_the_seed_and_the_stream_stays():
    before = torch.random.get_rng_state()
    nets = []
    for seed in (3, 3, 4):
        with seeded(seed):
            nets.append(nn.Linear(4, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(nets[0].weight, nets[1].weight)
    assert not torch.equal(nets[0].weight, nets[2].weight)


def test_refused_sizes_are_input_errors_that_keep_their_words():
    with pytest.raises(InputError, match=r"^network: 10 is no multiple of 8$"), seeded(0):
        raise ValueError("10 is no multiple of 8")
    with pytest.raises(InputError, match=r"^width$"), seeded(0):
        raise InputError("width")
    with pytest.raises(MissingExtraError), seeded(0):
        raise MissingExtraError("a package")
