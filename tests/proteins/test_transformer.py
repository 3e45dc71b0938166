"""The residue transformer: shapes, padding, what it reads, and that gradients reach all of it."""

from __future__ import annotations

import pytest
import torch

from orbitwise.proteins import ResidueTransformer
from orbitwise.proteins.chain import blank_batch

SMALL = {"hidden": 16, "layers": 2, "heads": 4, "waves": 8, "radial": 8, "times": 8}


def build(atoms: int, **changes) -> ResidueTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return ResidueTransformer(atoms, **{**SMALL, **changes}).double()


def inputs(atoms: int, lengths=(7, 4, 1)):
    chain = blank_batch(torch.tensor(lengths), atoms)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(chain.x.shape, generator=generator, dtype=torch.float64) * chain.mask[..., None]
    return x, torch.linspace(0.1, 0.9, len(lengths), dtype=torch.float64), chain


@pytest.mark.parametrize("atoms", [1, 3])
def test_shape_centre_and_padding(atoms):
    x, t, chain = inputs(atoms)
    net = build(atoms)
    y = net(x, t, chain)
    assert y.shape == x.shape and y[~chain.mask].abs().max() == 0
    assert y.sum(1).abs().max() < 1e-12 and y[:2].abs().max() > 1e-3
    dirty = net(x.masked_fill(~chain.mask[..., None], torch.nan), t, chain)
    torch.testing.assert_close(dirty, y, rtol=0, atol=0)
    for i, n in enumerate(chain.lengths.tolist()):
        alone = net(x[i : i + 1, : n * atoms], t[i : i + 1], blank_batch(torch.tensor([n]), atoms))
        torch.testing.assert_close(alone[0], y[i, : n * atoms], rtol=1e-9, atol=1e-11)
    assert build(atoms, zero_com=False)(x, t, chain).sum(1).abs().max() > 1e-3


@pytest.mark.parametrize("atoms", [1, 3])
def test_reads_positions_time_place_and_length(atoms):
    x, t, chain = inputs(atoms, (6, 6))
    net = build(atoms)
    y = net(x, t, chain)
    turned = x[..., [1, 0, 2]]
    backwards = x.flip(1)
    assert (net(turned, t, chain) - y[..., [1, 0, 2]]).abs().max() > 1e-3  # not equivariant
    assert (net(backwards, t, chain) - y.flip(1)).abs().max() > 1e-3  # a chain has a direction
    assert (net(x, t + 0.1, chain) - y).abs().max() > 1e-5
    with torch.no_grad():
        net.length.weight.zero_()
    assert (net(x, t, chain) - y).abs().max() > 1e-6


@pytest.mark.parametrize("atoms", [1, 3])
def test_gradients_are_finite_and_reach_every_parameter(atoms):
    x, t, chain = inputs(atoms)
    x[0, 1] = x[0, 0]
    x[1] = 0
    net = build(atoms)
    x.requires_grad_()
    for when in (torch.zeros_like(t), torch.ones_like(t), t):
        net.zero_grad()
        net(x, when, chain).square().sum().backward()
        assert x.grad.isfinite().all()
        for name, p in net.named_parameters():
            assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, name


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="multiple of heads"):
        ResidueTransformer(hidden=20, heads=8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_same_on_cuda():
    x, t, chain = inputs(3)
    here, there = build(3), build(3).cuda()
    y = there(x.cuda(), t.cuda(), chain.to("cuda"))
    torch.testing.assert_close(y.cpu(), here(x, t, chain), rtol=1e-8, atol=1e-10)
